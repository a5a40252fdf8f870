package main

import (
	"cmp"
	"fmt"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// diffStatResult is what differs of one entry, in numbers.
type diffStatResult struct {
	Type            string `json:"type" doc:"entry"`
	Kind            string `json:"kind" doc:"added, removed or changed"`
	Ref             string `json:"ref,omitempty" doc:"the ref name of the entry of index.json in which it lies"`
	Entry           string `json:"entry,omitempty" doc:"what the manifest or index is called; absent for index.json itself"`
	LayersAdded     int    `json:"layersAdded" doc:"layers that only B has"`
	LayersRemoved   int    `json:"layersRemoved" doc:"layers that only A has"`
	LayersChanged   int    `json:"layersChanged" doc:"layers that differ"`
	FilesAdded      int    `json:"filesAdded" doc:"files in layers that only B has"`
	FilesRemoved    int    `json:"filesRemoved" doc:"files that only A has"`
	FilesChanged    int    `json:"filesChanged" doc:"files that differ"`
	PackagesAdded   int    `json:"packagesAdded" doc:"packages that only B has, summed over all lists of packages"`
	PackagesRemoved int    `json:"packagesRemoved" doc:"packages that only A has"`
	PackagesChanged int    `json:"packagesChanged" doc:"packages of another version"`
	OnlyA           int64  `json:"onlyA" doc:"bytes of the manifests, configs and layers of A that differ, or of all of an entry that B lacks"`
	OnlyB           int64  `json:"onlyB" doc:"bytes of those of B"`
}

func (r diffStatResult) columns() []string {
	l, _ := letter(diff.Kind(r.Kind))
	return []string{
		l + " " + quoted(cmp.Or(r.Entry, r.Ref, "index.json")),
		counts(r.LayersAdded, r.LayersRemoved, r.LayersChanged),
		counts(r.FilesAdded, r.FilesRemoved, r.FilesChanged),
		counts(r.PackagesAdded, r.PackagesRemoved, r.PackagesChanged),
		size(r.OnlyA), size(r.OnlyB),
	}
}

func counts(added, removed, changed int) string {
	if added+removed+changed == 0 {
		return ""
	}
	return fmt.Sprintf("+%d -%d ~%d", added, removed, changed)
}

// add counts a difference.
func (r *diffStatResult) add(ch *diff.Change) {
	if ch.Level <= diff.LevelIndex && (ch.Kind == filediff.Added || ch.Kind == filediff.Removed) {
		r.Kind = string(ch.Kind)
		if ch.A != nil {
			r.OnlyA += ch.Bytes
		} else {
			r.OnlyB += ch.Bytes
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
		which(&r.LayersAdded, &r.LayersRemoved, &r.LayersChanged)
	case diff.LevelFile:
		which(&r.FilesAdded, &r.FilesRemoved, &r.FilesChanged)
	case diff.LevelPackage:
		which(&r.PackagesAdded, &r.PackagesRemoved, &r.PackagesChanged)
	case diff.LevelDefault, diff.LevelRefs, diff.LevelIndex, diff.LevelManifest, diff.LevelConfig:
	}
	differ := ch.A == nil || ch.B == nil || ch.A.Digest != ch.B.Digest
	if ch.Level >= diff.LevelManifest && differ {
		if ch.A != nil {
			r.OnlyA += ch.A.Size
		}
		if ch.B != nil {
			r.OnlyB += ch.B.Size
		}
	}
}

// diffStat prints one line for each entry.
type diffStat struct {
	env  *env
	rows []diffStatResult
}

func (p *diffStat) change(ch *diff.Change) error {
	if len(ch.Fields) == 0 && ch.A != nil && ch.B != nil && ch.Level <= diff.LevelIndex && layout.IsIndex(ch.A.MediaType) {
		return nil // a heading for the entries below it
	}
	n := len(p.rows)
	if n == 0 || p.rows[n-1].Ref != ch.Ref || p.rows[n-1].Entry != ch.Entry {
		p.rows = append(p.rows, diffStatResult{Type: "entry", Kind: string(filediff.Changed), Ref: ch.Ref, Entry: ch.Entry})
		n++
	}
	p.rows[n-1].add(ch)
	return nil
}

func (p *diffStat) end(sum diffSummary) error {
	if len(p.rows) > 0 || p.env.json {
		if err := table(p.env, []string{"  ENTRY", "LAYERS", "FILES", "PACKAGES", "ONLY A", "ONLY B"}, p.rows); err != nil {
			return err
		}
	}
	return p.env.confirm(sum, "%s", sum.text())
}
