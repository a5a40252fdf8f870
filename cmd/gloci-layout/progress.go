package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A progress shows what becomes of blobs and documents: two bars on a terminal,
// else, where lines are wanted, one line for each that is done.
type progress struct {
	env   *env
	verb  string
	lines bool

	mu               sync.Mutex
	bars             *mpb.Progress
	bytes, documents *mpb.Bar
	total            int64 // of bytes
	named            int64 // documents begun
}

// startProgress begins to show the work that verb names. lines asks for plain
// lines where stderr is no terminal. The caller calls stop.
func (e *env) startProgress(verb string, lines bool) *progress {
	p := &progress{env: e, verb: verb, lines: lines}
	tty := terminal(e.stderr)
	if !e.showsProgress() {
		p.lines = false
		return p
	}
	if tty == nil || os.Getenv("TERM") == "dumb" {
		return p
	}
	p.lines = false
	p.bars = mpb.New(mpb.WithOutput(tty), mpb.WithRefreshRate(150*time.Millisecond), mpb.WithWidth(40))
	p.bytes = p.bars.AddBar(0,
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(verb+" blobs", decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace), decor.AverageSpeed(decor.SizeB1024(0), " % .1f")))
	return p
}

// event takes what layout and sync tell. It may be called from several
// goroutines.
func (p *progress) event(ev layout.Event) {
	if p.bars == nil && !p.lines {
		return
	}
	document := layout.IsIndex(ev.Desc.MediaType) || layout.IsManifest(ev.Desc.MediaType)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.lines && ev.Kind == "done":
		// The line is told only for what took work; what was there is no news.
		_, _ = fmt.Fprintf(p.env.stderr, "copied %s %s\n", clean(string(ev.Desc.Digest)), size(ev.Desc.Size))
	case p.lines:
	case ev.Kind == "start" && document:
		p.named++
		p.documentBar().SetTotal(p.named, false)
	case ev.Kind == "start":
		p.total += ev.Desc.Size
		p.bytes.SetTotal(p.total, false)
	case document && (ev.Kind == "done" || ev.Kind == "skip"):
		p.documentBar().Increment()
	case ev.Kind == "bytes" && !document:
		p.bytes.IncrInt64(ev.Bytes)
	case ev.Kind == "skip":
		p.bytes.IncrInt64(ev.Desc.Size)
	}
}

// documentBar returns the bar of documents, which is there once there is one:
// verify does not tell them from other blobs.
func (p *progress) documentBar() *mpb.Bar {
	if p.documents == nil {
		p.documents = p.bars.AddBar(0,
			mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(p.verb+" manifests", decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)))
	}
	return p.documents
}

// stop takes the bars away; what happened is said by the results.
func (p *progress) stop() {
	if p.bars == nil {
		return
	}
	p.bytes.Abort(true)
	if p.documents != nil {
		p.documents.Abort(true)
	}
	p.bars.Wait()
}
