package web

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gardenlinux/gloci-layout/layout/show"
)

type matrixView struct {
	Columns []string
	Rows    []matrixRow
	Found   int // manifests
	Of      int
	More    int // rows that are not shown
	Version string
	ByName  bool // lines of several versions
}

// A matrixTable is some lines of a matrix. Those that are folded stand in a noscript
// element, so that a browser with scripts need not make thousands of elements
// before it shows any: the script unpacks them when it has nothing else to do, or
// when they are wanted. No such element can be in another one.
type matrixTable struct {
	Label   string
	Columns []string
	Rows    []matrixRow
}

// First returns the lines that are shown at once.
func (m *matrixView) First() []matrixTable {
	return m.tables(0, min(firstRows, len(m.Rows)))
}

// Rest returns the others.
func (m *matrixView) Rest() []matrixTable {
	return m.tables(min(firstRows, len(m.Rows)), len(m.Rows))
}

// Folded is how many lines Rest has.
func (m *matrixView) Folded() int { return max(0, len(m.Rows)-firstRows) }

// tables cuts lines into tables: of those that are not on the screen a browser
// lays out nothing.
func (m *matrixView) tables(from, to int) []matrixTable {
	var list []matrixTable
	for rows := range slices.Chunk(m.Rows[from:to], tableRows) {
		t := matrixTable{"Manifests", m.Columns, rows}
		if len(m.Rows) > tableRows {
			t.Label = fmt.Sprintf("Manifests, lines %s to %s", count(from+1), count(from+len(rows)))
		}
		from += len(rows)
		list = append(list, t)
	}
	return list
}

type matrixRow struct {
	Name     string
	Version  string
	Features []string
	Cells    [][]cell
}

// A cell is one manifest.
type cell struct {
	Link   string
	Role   string
	Signed bool
	SBOM   bool
	Bad    bool
	Size   string
	Label  string // what the marks say, and the size
}

// matrix arranges manifests in lines of one name and columns of architectures.
func (v *overviewView) matrix(all []listed, several bool) {
	m := &v.Matrix
	m.Of, m.Version, m.ByName = len(all), v.Query.Version, several
	type key struct{ version, title string }
	rows := map[key][]listed{}
	var order []key
	archs := map[string]bool{}
	for _, l := range all {
		if !v.Query.fits(l) {
			continue
		}
		m.Found++
		k := key{title: l.title}
		if several {
			k.version = l.root.value()
		}
		if rows[k] == nil {
			order = append(order, k)
		}
		rows[k] = append(rows[k], l)
		archs[l.doc.arch] = true
	}
	m.Columns = sortedKeys(archs)
	if len(m.Columns) > 0 && m.Columns[0] == "" { // no architecture comes last
		m.Columns = append(m.Columns[1:], "")
	}
	slices.SortStableFunc(order, func(a, b key) int { return cmp.Or(natural(b.version, a.version), natural(a.title, b.title)) })
	for i, k := range order {
		if i == maxRows {
			m.More = len(order) - maxRows
			break
		}
		r := matrixRow{Name: show.Clean(k.title), Cells: make([][]cell, len(m.Columns))}
		if k.version != k.title {
			r.Version = show.Clean(k.version)
		}
		for _, l := range rows[k] {
			d := l.doc
			if r.Features == nil {
				r.Features = clean(d.flavor.Features)
			}
			at := slices.Index(m.Columns, d.arch)
			r.Cells[at] = append(r.Cells[at], v.cell(d))
		}
		m.Rows = append(m.Rows, r)
	}
	for i, c := range m.Columns {
		m.Columns[i] = show.Clean(cmp.Or(c, "any"))
	}
}

func (v *overviewView) cell(d *document) cell {
	c := cell{
		Link: v.links.Manifest(string(d.desc.Digest)), Role: string(d.role), Signed: d.signed(), Size: show.Size(d.size),
		Bad: d.role == roleDamaged || d.role == roleAbsent,
	}
	for _, r := range d.referrers {
		c.SBOM = c.SBOM || r.role == roleSBOM
	}
	c.Label = c.Role
	if c.Signed {
		c.Label += ", signed"
	}
	if c.SBOM {
		c.Label += ", SBOM"
	}
	c.Label += ", " + c.Size
	return c
}
