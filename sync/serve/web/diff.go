package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// Limits of a page that compares. A file has no limit of differences.
const (
	maxLines   = 500    // of one entry
	maxChanges = 50_000 // that are looked at
)

// levels are those that a page offers.
var levels = []string{"manifest", "layer", "file"}

type diffView struct {
	frame
	Choices []string // what can be compared
	A, B    string   // as they are asked for
	Level   string
	Levels  []string
	Result  *diffResult
	Err     string
}

type diffResult struct {
	Equal    bool
	Summary  string
	Tiles    []tile
	Bar      barView
	Entries  []diffEntry
	Legend   []letterView
	Stopped  bool
	Complete bool
}

type letterView struct{ Letter, Class, Text string }

type diffEntry struct {
	ID, Name, Class, Letter, Kind string
	Layers, Files, Packages       string
	OnlyA, OnlyB                  string
	PackageRows                   []packageRow
	Lines                         []diffLine
	More                          int
}

type packageRow struct{ Kind, Class, Name, A, B string }

type diffLine struct {
	Depth         string
	Letter, Class string
	Kind          string
	Text          string
	Diff          []textLine
}

type textLine struct{ Class, Text string }

// A side of a comparison, "NAME:REFNAME" or "NAME@DIGEST", is found among all
// repositories.
func (x *request) side(s string) (diff.Side, string, error) {
	for _, repo := range x.repos {
		for _, sep := range []string{":", "@"} {
			ref, ok := strings.CutPrefix(s, repo.Name+sep)
			if !ok {
				continue
			}
			snap, err := x.snapshot(repo)
			if err != nil {
				return diff.Side{}, "", err
			}
			for _, d := range snap.documents {
				if sep == ":" && slices.Contains(d.refNames, ref) || sep == "@" && string(d.desc.Digest) == ref {
					return diff.Side{Source: repo.Source, Roots: []ocispec.Descriptor{d.desc}}, snap.id, nil
				}
			}
		}
	}
	return diff.Side{}, "", notFound("there is no %s to compare", show.Clean(s))
}

// sides are all that a form offers.
func (x *request) sides() ([]string, error) {
	var all []string
	for _, repo := range x.repos {
		snap, err := x.snapshot(repo)
		if err != nil {
			return nil, err
		}
		for _, d := range snap.versions() {
			if len(all) < maxVersions {
				all = append(all, repo.Name+d.sideName())
			}
		}
	}
	return all, nil
}

func (d *document) sideName() string {
	if len(d.refNames) > 0 {
		return ":" + d.refNames[0]
	}
	return "@" + string(d.desc.Digest)
}

func (x *request) diff() error {
	q := x.r.URL.Query()
	v := &diffView{frame: x.frame("Compare"), A: q.Get("a"), B: q.Get("b"), Level: q.Get("level"), Levels: levels}
	if !slices.Contains(levels, v.Level) {
		v.Level = "layer"
	}
	var err error
	if v.Choices, err = x.sides(); err != nil {
		return err
	}
	if v.A == "" || v.B == "" {
		return x.render("diff", v)
	}
	a, idA, err := x.side(v.A)
	if err != nil {
		return err
	}
	b, idB, err := x.side(v.B)
	if err != nil {
		return err
	}
	if x.fresh(append([]string{idA, idB}, v.Choices...)...) {
		return nil
	}
	ctx, done, err := x.reading()
	if err != nil {
		return err
	}
	defer done()
	level, err := diff.ParseLevel(v.Level)
	if err != nil {
		return err
	}
	opts := &diff.Options{Level: level, Key: x.h.opts.key, Name: x.h.opts.key, Total: "b"}
	all := difftext.Collection{MaxLines: maxLines}
	var sum diff.Summary
	n, stopped := 0, false
	for ch, err := range diff.Compare(ctx, a, b, opts, &sum) {
		if err != nil {
			if x.r.Context().Err() != nil {
				return err
			}
			v.Err = show.Clean(strings.ReplaceAll(err.Error(), "\n", "; "))
			if errors.Is(err, context.DeadlineExceeded) {
				v.Err = "comparing was stopped after " + heavyTimeout.String()
			}
			break
		}
		all.Add(&ch)
		if n++; n == maxChanges {
			stopped = true
			break
		}
	}
	if v.Err == "" {
		v.Result = newDiffResult(&all, difftext.NewSummary(&sum, n))
		v.Result.Stopped = stopped
	} else {
		x.w.Header().Del("ETag")
		x.w.Header().Set("Cache-Control", "no-store")
	}
	return x.render("diff", v)
}

// A Diff is a comparison that was made, for [WriteDiff].
type Diff struct {
	A, B       string // what was compared
	Collection *difftext.Collection
	Summary    difftext.Summary
}

// WriteDiff writes a comparison as one file of HTML that needs no other.
func WriteDiff(w io.Writer, d *Diff) error {
	v := &diffView{frame: frame{Title: "Changes from " + d.A + " to " + d.B, Static: true, links: links{static: true}}, A: d.A, B: d.B}
	v.Result = newDiffResult(d.Collection, d.Summary)
	return writeStatic(w, "diff", v)
}

func newDiffResult(all *difftext.Collection, sum difftext.Summary) *diffResult {
	r := &diffResult{Equal: sum.Equal, Summary: sum.String(), Complete: sum.Complete}
	if sum.Manifests > 0 || sum.Shared+sum.OnlyA+sum.OnlyB > 0 {
		changed := count(sum.Changed)
		if sum.Complete {
			changed += " of " + count(sum.Manifests)
		}
		r.Tiles = []tile{
			{changed, plural(sum.Manifests, "manifest differs", "manifests differ")},
			{show.Size(sum.OnlyB), "new in B"},
			{show.Size(sum.OnlyA), "only in A"},
		}
		if sum.Complete {
			r.Tiles = append(r.Tiles, tile{show.Size(sum.Shared), "the same"})
		}
	}
	if total := sum.OnlyA + sum.Shared + sum.OnlyB; total > 0 {
		names := []string{"only in A", "the same", "new in B"}
		r.Bar = barView{Label: fmt.Sprintf("%s only in A, %s the same, %s new in B", show.Size(sum.OnlyA), show.Size(sum.Shared), show.Size(sum.OnlyB))}
		x := 0.0
		for i, n := range []int64{sum.OnlyA, sum.Shared, sum.OnlyB} {
			w := 1000 * float64(n) / float64(total)
			r.Bar.Segments = append(r.Bar.Segments, segment{fmt.Sprintf("%.2f", x), fmt.Sprintf("%.2f", w), []string{"gone", "same", "new"}[i], names[i] + " " + show.Size(n)})
			x += w
		}
	}
	for i, e := range all.Entries {
		r.Entries = append(r.Entries, newDiffEntry(i, e))
	}
	for _, l := range difftext.Legend {
		r.Legend = append(r.Legend, letterView{difftext.Letter(l.Kind), kindName(l.Kind), l.Text})
	}
	return r
}

// kindName is the class of a kind of change.
func kindName(k diff.Kind) string { return "d-" + difftext.Letter(k) }

func newDiffEntry(i int, e *difftext.Entry) diffEntry {
	s := e.Stat
	v := diffEntry{
		ID: fmt.Sprintf("e%d", i+1), Name: s.Name(), Class: kindName(diff.Kind(s.Kind)), Letter: difftext.Letter(diff.Kind(s.Kind)), Kind: s.Kind,
		Layers: s.Layers(), Files: s.Files(), Packages: s.Packages(), OnlyA: show.Size(s.OnlyA), OnlyB: show.Size(s.OnlyB), More: e.More,
	}
	for _, p := range e.Packages {
		v.PackageRows = append(v.PackageRows, packageRow{string(p.Kind), kindName(p.Kind), show.Clean(p.Name), show.Clean(p.A), show.Clean(p.B)})
	}
	for _, l := range e.Lines {
		line := diffLine{Depth: fmt.Sprintf("n%d", min(l.Depth, 6)), Text: show.Clean(l.Text)}
		if l.Kind != "" {
			line.Letter, line.Class, line.Kind = difftext.Letter(l.Kind), kindName(l.Kind), string(l.Kind)
		}
		for text := range strings.Lines(l.Diff) {
			text = show.Clean(strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\t", "    "))
			class := ""
			switch {
			case strings.HasPrefix(text, "+"):
				class = "plus"
			case strings.HasPrefix(text, "-"):
				class = "minus"
			}
			line.Diff = append(line.Diff, textLine{class, text})
		}
		v.Lines = append(v.Lines, line)
	}
	return v
}

// home is the list of repositories.
func (x *request) home() error {
	v := &homeView{frame: x.frame(homeTitle)}
	var ids []string
	for _, repo := range x.repos {
		r := repositoryView{Name: repo.Name, Link: links{base: "/r/" + repo.Name}.Overview()}
		// One that is damaged must not hide the others.
		if snap, err := x.snapshot(repo); err != nil {
			r.Err = show.Clean(err.Error())
		} else {
			ids = append(ids, snap.id)
			r.Size, r.Entries, r.Manifests = show.Size(snap.stored), len(snap.versions()), 0
			for _, d := range snap.documents {
				if !d.isIndex && !d.role.refers() {
					r.Manifests++
				}
			}
			for i, d := range snap.versions() {
				if i == 4 {
					break
				}
				r.Newest = append(r.Newest, show.Clean(d.value()))
			}
		}
		v.List = append(v.List, r)
	}
	if x.fresh(ids...) {
		return nil
	}
	return x.render("home", v)
}

type homeView struct {
	frame
	List []repositoryView
}

type repositoryView struct {
	Name, Link, Size, Err string
	Entries, Manifests    int
	Newest                []string
}

// writeStatic writes a page as a file.
func writeStatic(w io.Writer, name string, view any) error {
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, name, view); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}
