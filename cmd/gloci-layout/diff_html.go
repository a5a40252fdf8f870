package main

import (
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
	"github.com/gardenlinux/gloci-layout/sync/serve/web"
)

// maxListedHTML is how many lines one entry has in a page.
const maxListedHTML = 5000

// diffHTML prints a comparison as a page, in one file.
type diffHTML struct {
	env  *env
	a, b string
	all  difftext.Collection
}

func newDiffHTML(e *env, a, b string) *diffHTML {
	return &diffHTML{env: e, a: a, b: b, all: difftext.Collection{MaxLines: maxListedHTML}}
}

func (p *diffHTML) change(ch *diff.Change) error {
	p.all.Add(ch)
	return nil
}

func (p *diffHTML) end(sum diffSummary) error {
	return web.WriteDiff(p.env.stdout, &web.Diff{A: p.a, B: p.b, Collection: &p.all, Summary: difftext.Summary(sum)})
}
