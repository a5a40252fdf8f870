package main

import (
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
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
	s := difftext.Stat(r)
	return []string{difftext.Letter(diff.Kind(s.Kind)) + " " + s.Name(), s.Layers(), s.Files(), s.Packages(), size(s.OnlyA), size(s.OnlyB)}
}

// diffStat prints one line for each entry.
type diffStat struct {
	env   *env
	stats difftext.Stats
}

func (p *diffStat) change(ch *diff.Change) error {
	p.stats.Add(ch)
	return nil
}

func (p *diffStat) end(sum diffSummary) error {
	rows := make([]diffStatResult, len(p.stats))
	for i, s := range p.stats {
		rows[i] = diffStatResult(s)
	}
	if len(rows) > 0 || p.env.json {
		if err := table(p.env, []string{"  ENTRY", "LAYERS", "FILES", "PACKAGES", "ONLY A", "ONLY B"}, rows); err != nil {
			return err
		}
	}
	return p.env.confirm(sum, "%s", sum.text())
}
