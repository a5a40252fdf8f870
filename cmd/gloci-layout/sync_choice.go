package main

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

// choiceFlags say what of a source is synced, and under which tags.
type choiceFlags struct {
	scoped bool
	sel    selectFlags
}

func (f *choiceFlags) flags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringSliceFlag{Name: "ref", Usage: "only ref names, or tags of full ones, that fit the `GLOB`"},
		&cli.StringSliceFlag{Name: "exclude", Usage: "no ref names that fit the `GLOB`"},
		&cli.StringSliceFlag{Name: "tag-map", Usage: "give a ref name another tag: `REFNAME=TAG`"},
		&cli.StringSliceFlag{Name: "also-tag", Usage: "give what is synced, which has to be one thing, the `TAG` too"},
		&cli.BoolFlag{Name: "scoped", Usage: "keep the repository of full ref names: host/a/b:tag goes to HOST/REPO/a/b:tag", Destination: &f.scoped},
	}, f.sel.flags()...)
}

// narrows tells whether something may be left out.
func (f *choiceFlags) narrows(c *cli.Context) bool {
	return f.sel.given(c) || len(c.StringSlice("ref"))+len(c.StringSlice("exclude")) > 0
}

func (f *choiceFlags) choice(c *cli.Context, sparse bool) (*layoutsync.Choice, error) {
	choice := &layoutsync.Choice{
		RefNames: c.StringSlice("ref"), Exclude: c.StringSlice("exclude"), Also: c.StringSlice("also-tag"), Scoped: f.scoped, Sparse: sparse,
	}
	for _, kv := range c.StringSlice("tag-map") {
		name, tag, ok := cutLast(kv, '=')
		if !ok || name == "" || tag == "" {
			return nil, usagef(c, "--tag-map %q: want REFNAME=TAG", kv)
		}
		if choice.Tags == nil {
			choice.Tags = map[string]string{}
		}
		if _, twice := choice.Tags[name]; twice {
			return nil, usagef(c, "--tag-map %s is given twice", name)
		}
		choice.Tags[name] = tag
	}
	if !f.sel.given(c) {
		return choice, nil
	}
	sel, err := f.sel.selector(c)
	choice.Select = &sel
	return choice, err
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// A lockFile is what --lock-file writes.
type lockFile struct {
	Version    int                  `json:"version"`
	Repository string               `json:"repository"`
	Tags       map[string]lockedTag `json:"tags"` // by REPOSITORY:TAG with --scoped, else by tag
}

type lockedTag struct {
	RefName string        `json:"refName,omitempty"`
	Digest  digest.Digest `json:"digest"`
}

// record writes the files that were asked for.
func (opts *syncOptions) record(r *layoutsync.Report) error {
	lock := lockFile{Version: 1, Repository: r.Repository, Tags: map[string]lockedTag{}}
	for _, t := range r.Tags {
		if t.Delete {
			continue
		}
		name := t.Tag
		if t.Repository != "" {
			name = t.Repository + ":" + t.Tag
		}
		lock.Tags[name] = lockedTag{RefName: t.RefName, Digest: t.Digest}
		// Tags of signatures come along behind the one that was asked for.
		if opts.digestFile != "" && t.Tag == opts.push.Targets[0].Tag {
			if err := writeFile(opts.digestFile, []byte(t.Digest)); err != nil {
				return err
			}
		}
	}
	if opts.lockFile == "" {
		return nil
	}
	raw, err := json.MarshalIndent(lock, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(opts.lockFile, append(raw, '\n'))
}
