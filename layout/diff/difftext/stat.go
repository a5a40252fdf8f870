package difftext

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// A Stat is what differs of one entry, in numbers.
type Stat struct {
	Type            string // "entry"
	Kind            string // of the entry: added, removed or changed
	Ref             string // the ref name of the entry of index.json in which it lies
	Entry           string // what it is called; "" for index.json itself
	LayersAdded     int
	LayersRemoved   int
	LayersChanged   int
	FilesAdded      int
	FilesRemoved    int
	FilesChanged    int
	PackagesAdded   int // summed over all lists of packages
	PackagesRemoved int
	PackagesChanged int
	OnlyA           int64 // bytes of what differs in A, or of all of an entry that B lacks
	OnlyB           int64 // bytes of that in B
}

// Name is what the entry is called.
func (s Stat) Name() string { return show.Quoted(cmp.Or(s.Entry, s.Ref, "index.json")) }

// Layers is "+1 -2 ~3", "" for none.
func (s Stat) Layers() string { return counts(s.LayersAdded, s.LayersRemoved, s.LayersChanged) }

// Files is the same of files.
func (s Stat) Files() string { return counts(s.FilesAdded, s.FilesRemoved, s.FilesChanged) }

// Packages is the same of packages.
func (s Stat) Packages() string {
	return counts(s.PackagesAdded, s.PackagesRemoved, s.PackagesChanged)
}

func counts(added, removed, changed int) string {
	if added+removed+changed == 0 {
		return ""
	}
	return fmt.Sprintf("+%d -%d ~%d", added, removed, changed)
}

// add counts a difference.
func (s *Stat) add(ch *diff.Change) {
	if ch.Level <= diff.LevelIndex && (ch.Kind == filediff.Added || ch.Kind == filediff.Removed) {
		s.Kind = string(ch.Kind)
		if ch.A != nil {
			s.OnlyA += ch.Bytes
		} else {
			s.OnlyB += ch.Bytes
		}
	}
	which := func(added, removed, changed *int) {
		switch ch.Kind {
		case filediff.Added:
			*added++
		case filediff.Removed:
			*removed++
		case filediff.Changed, filediff.Moved, filediff.Renamed, filediff.Reordered, filediff.Recompressed, filediff.Upgraded, filediff.Downgraded:
			*changed++
		}
	}
	switch ch.Level {
	case diff.LevelLayer:
		which(&s.LayersAdded, &s.LayersRemoved, &s.LayersChanged)
	case diff.LevelFile:
		which(&s.FilesAdded, &s.FilesRemoved, &s.FilesChanged)
	case diff.LevelPackage:
		which(&s.PackagesAdded, &s.PackagesRemoved, &s.PackagesChanged)
	case diff.LevelDefault, diff.LevelRefs, diff.LevelIndex, diff.LevelManifest, diff.LevelConfig:
	}
	differ := ch.A == nil || ch.B == nil || ch.A.Digest != ch.B.Digest
	if ch.Level >= diff.LevelManifest && differ {
		if ch.A != nil {
			s.OnlyA += ch.A.Size
		}
		if ch.B != nil {
			s.OnlyB += ch.B.Size
		}
	}
}

// Stats are those of a comparison, in its order.
type Stats []Stat

// Add counts a difference. It is false for one that is a mere heading of the
// entries below it, and counts for none.
func (s *Stats) Add(ch *diff.Change) bool {
	if len(ch.Fields) == 0 && ch.A != nil && ch.B != nil && ch.Level <= diff.LevelIndex && layout.IsIndex(ch.A.MediaType) {
		return false
	}
	n := len(*s)
	if n == 0 || (*s)[n-1].Ref != ch.Ref || (*s)[n-1].Entry != ch.Entry {
		*s = append(*s, Stat{Type: "entry", Kind: string(filediff.Changed), Ref: ch.Ref, Entry: ch.Entry})
		n++
	}
	(*s)[n-1].add(ch)
	return true
}

// A Summary is a comparison in numbers.
type Summary struct {
	Type        string // "summary"
	Equal       bool
	Differences int
	Levels      map[string]int // how many of each level
	Manifests   int            // those of both sides that were matched counted once
	Changed     int            // of them
	Added       int
	Removed     int
	Shared      int64 // bytes of blobs that both have
	OnlyA       int64
	OnlyB       int64
	Complete    bool // Manifests and Shared count also what is equal
}

// NewSummary returns the numbers of s and of so many changes.
func NewSummary(s *diff.Summary, changes int) Summary {
	r := Summary{
		Type: "summary", Equal: changes == 0, Differences: changes, Levels: map[string]int{},
		Manifests: s.Manifests, Changed: s.Changed, Added: s.Added, Removed: s.Removed,
		Shared: s.Shared, OnlyA: s.OnlyA, OnlyB: s.OnlyB, Complete: s.Complete,
	}
	for l, n := range s.Changes {
		r.Levels[l.String()] = n
	}
	return r
}

// String is the summary in one line.
func (s Summary) String() string {
	verdict := "equal"
	if !s.Equal {
		verdict = show.Plural(s.Differences, "difference")
	}
	if s.Manifests == 0 && s.Shared+s.OnlyA+s.OnlyB == 0 {
		return verdict
	}
	total := s.Shared + s.OnlyB
	if !s.Complete {
		return fmt.Sprintf("%s: %d manifests changed, %s new, %s gone; what is equal was not counted",
			verdict, s.Changed, show.Size(s.OnlyB), show.Size(s.OnlyA))
	}
	return fmt.Sprintf("%s: %d of %s changed, %s of %s new; only in A %s, only in B %s, shared %s",
		verdict, s.Changed, show.Plural(s.Manifests, "manifest"), show.Size(s.OnlyB), show.Size(total),
		show.Size(s.OnlyA), show.Size(s.OnlyB), show.Size(s.Shared))
}

// A Collection is all of a comparison by entry, for a document. The zero value
// is empty.
type Collection struct {
	MaxLines int // lines and packages of one entry; 0 means no limit
	Entries  []*Entry

	stats Stats
}

// An Entry is what differs of one entry.
type Entry struct {
	Stat     Stat
	Packages []Package // each once
	Lines    []EntryLine
	More     int // lines and packages that MaxLines left out
}

// A Package is a row of the table of packages.
type Package struct {
	Kind       diff.Kind
	Name, A, B string
}

// An EntryLine is a line below an entry.
type EntryLine struct {
	Depth int
	Kind  diff.Kind // "" for what belongs to the line before
	Text  string    // clean
	Diff  string    // a unified diff as it is, in the place of Text
}

// Add takes a difference in.
func (c *Collection) Add(ch *diff.Change) {
	if c.stats.Add(ch); len(c.stats) == 0 {
		return
	}
	if len(c.Entries) < len(c.stats) {
		c.Entries = append(c.Entries, &Entry{})
	}
	e := c.Entries[len(c.Entries)-1]
	e.Stat = c.stats[len(c.stats)-1]
	if pkg := ch.Package; pkg != nil {
		row := Package{ch.Kind, pkg.Name, pkg.A, pkg.B}
		switch {
		case slices.Contains(e.Packages, row): // the same package in several lists
		case c.MaxLines > 0 && len(e.Packages) >= c.MaxLines:
			e.More++
		default:
			e.Packages = append(e.Packages, row)
		}
		return
	}
	head, more := Line(ch)
	depth := len(strings.TrimPrefix(Indent(ch.Level), Indent(diff.LevelIndex))) / 2
	c.line(e, EntryLine{Depth: depth, Kind: ch.Kind, Text: strings.TrimLeft(head, " ")})
	for _, m := range more {
		c.line(e, EntryLine{Depth: depth, Text: strings.TrimSpace(m)})
	}
	if ch.Text != "" {
		c.line(e, EntryLine{Depth: depth, Diff: ch.Text})
	}
}

func (c *Collection) line(e *Entry, l EntryLine) {
	if c.MaxLines > 0 && len(e.Lines) >= c.MaxLines {
		e.More++
		return
	}
	e.Lines = append(e.Lines, l)
}
