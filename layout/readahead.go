package layout

import (
	"cmp"
	"context"
	"runtime"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// aheadBytes bounds the documents that a walk has read and not yet come
	// to, by the sizes that their descriptors give.
	aheadBytes = 8 << 20 // 8 MiB
	// aheadLeast is how many documents have to stand side by side before it
	// pays to read several at once.
	aheadLeast = 4
)

// A future is a document that is being read.
type future struct {
	done chan struct{}
	doc  *Document
	err  error
}

// readAhead returns a function that reads document i of descs, which must be
// asked for in rising order. Where many documents stand side by side, several
// are read at once, some before they are asked for. end has to be called when
// no more are wanted; it waits for what is under way.
func (w *walker) readAhead(parents, descs []ocispec.Descriptor) (read func(i int) (*Document, error), end func()) {
	plain := func(i int) (*Document, error) { return w.opts.Read(w.ctx, descs[i]) }
	if len(descs) < aheadLeast || w.opts.indexesOnly || len(parents) >= w.opts.MaxDepth {
		return plain, func() {}
	}
	ctx, cancel := context.WithCancel(w.ctx)
	var wg sync.WaitGroup
	// More than processors: a registry makes us wait.
	slots := make(chan struct{}, cmp.Or(w.opts.ahead, 4*runtime.GOMAXPROCS(0)))
	futures := make([]*future, len(descs))
	next, held := 0, int64(0) // the first not begun; bytes begun and not asked for
	begin := func(from int) {
		for next = max(next, from); next < len(descs); next++ {
			v, document := visitOf(descs[next])
			if _, seen := w.seen[v]; !document || seen {
				continue
			}
			size := min(max(descs[next].Size, 0), MaxDocument)
			if held > 0 && held+size > aheadBytes || next-from >= 4*cap(slots) {
				return
			}
			held += size
			f, desc := &future{done: make(chan struct{})}, descs[next]
			futures[next] = f
			wg.Go(func() {
				defer close(f.done)
				slots <- struct{}{}
				defer func() { <-slots }()
				f.doc, f.err = w.opts.Read(ctx, desc)
			})
		}
	}
	read = func(i int) (*Document, error) {
		begin(i)
		f := futures[i]
		if f == nil {
			return plain(i)
		}
		futures[i] = nil
		<-f.done
		held -= min(max(descs[i].Size, 0), MaxDocument)
		return f.doc, f.err
	}
	return read, func() {
		cancel()
		wg.Wait()
	}
}
