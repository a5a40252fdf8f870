package archive

import (
	"cmp"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

const (
	// minPlaced is the size of the smallest blob that is written at its place
	// beside others. Smaller ones are written with what stands around them, for
	// they are many.
	minPlaced = 1 << 20 // 1 MiB
	// maxPlacers bounds how many blobs are written at once.
	maxPlacers = 16
	// placeChunks are the buffers of one blob, each of packChunk bytes: one is
	// filled or written while others are hashed.
	placeChunks = 4
)

// errElsewhere ends work that is of no use after the failure of another.
var errElsewhere = errors.New("another blob has failed")

// placed are the blobs that are written at their places in a file, several at
// once, while plan.write writes all else. Nil is none.
type placed struct {
	plan     *plan
	src      layout.Source
	out      *output
	progress func(layout.Event)
	cancel   context.CancelCauseFunc

	begin []int64 // of each blob of the plan
	order []int   // numbers of the blobs that are placed: the largest first

	mu    sync.Mutex
	err   error
	first atomic.Int64 // the number of the blob that err is of, -1: of none
}

// place writes the archive to out, each byte at its place. The bytes are those
// of write, and so is the error: that of the first damaged blob in the archive,
// whoever is faster.
func (p *plan) place(ctx context.Context, src layout.Source, out *output, o *PackOptions) error {
	begin, _ := p.places()
	pl := &placed{plan: p, src: src, out: out, progress: func(layout.Event) {}, begin: begin}
	if tell := o.Progress; tell != nil {
		var mu sync.Mutex
		pl.progress = func(e layout.Event) {
			mu.Lock()
			defer mu.Unlock()
			tell(e)
		}
		own := *o
		own.Progress = pl.progress
		o = &own
	}
	if _, ok := src.(layout.Sectioner); ok {
		for i := range p.blobs {
			if pl.suits(i) {
				pl.order = append(pl.order, i)
			}
		}
	}
	// The last one to be written should be a small one.
	slices.SortStableFunc(pl.order, func(a, b int) int { return cmp.Compare(p.blobs[b].Size, p.blobs[a].Size) })
	pl.first.Store(int64(len(p.blobs)))
	ctx, pl.cancel = context.WithCancelCause(ctx)
	defer pl.cancel(nil)

	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), maxPlacers, len(pl.order)) {
		wg.Go(func() {
			free := make(chan []byte, placeChunks)
			for range placeChunks {
				free <- make([]byte, packChunk)
			}
			for {
				i := int(next.Add(1)) - 1
				if i >= len(pl.order) {
					return
				}
				pl.failed(pl.blob(ctx, pl.order[i], free))
			}
		})
	}
	err := p.write(ctx, src, out, o, pl)
	wg.Wait()
	if pl.err != nil {
		return pl.err
	}
	return err
}

// suits tells whether a blob is written at its place.
func (pl *placed) suits(i int) bool {
	desc := pl.plan.blobs[i]
	return desc.Size >= minPlaced && desc.Data == nil
}

// has tells whether others write the blob with this number.
func (pl *placed) has(i int) bool { return pl != nil && len(pl.order) > 0 && pl.suits(i) }

// failed keeps the error of the blob with this number, or of none (-1), unless
// that of an earlier one is there.
func (pl *placed) failed(at int, err error) {
	if pl == nil || err == nil {
		return
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if int64(at) < pl.first.Load() {
		pl.first.Store(int64(at))
		pl.err = err
	}
	if at < 0 {
		pl.cancel(err)
	}
}

// late tells whether an earlier blob than the one with this number has failed.
func (pl *placed) late(at int) bool { return pl != nil && int64(at) > pl.first.Load() }

// goOn returns an error if the blob with this number is not needed any more.
func (pl *placed) goOn(ctx context.Context, at int) error {
	if pl.late(at) {
		return errElsewhere
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// blob writes the blob with this number. It returns of which blob the error is:
// -1 for what would have been the same with any other.
func (pl *placed) blob(ctx context.Context, i int, free chan []byte) (at int, err error) {
	if err := pl.goOn(ctx, i); err != nil {
		return stopped(i, err)
	}
	desc := pl.plan.blobs[i]
	rc, verified, err := openBlob(ctx, pl.src, desc)
	if err != nil {
		return i, err
	}
	defer rc.Close() //nolint:errcheck // only read
	pl.progress(layout.Event{Kind: "start", Desc: desc})
	full := make(chan []byte, placeChunks)
	sum := make(chan error, 1)
	go func() { sum <- hashChunks(desc, verified, full, free) }()
	at, err = pl.copy(ctx, i, rc, verified, full, free)
	close(full)
	if herr := <-sum; err == nil && herr != nil {
		return i, herr
	}
	if err == nil {
		pl.progress(layout.Event{Kind: "done", Desc: desc})
	}
	return at, err
}

// hashChunks checks the chunks of a blob together, and gives each back.
func hashChunks(desc ocispec.Descriptor, verified bool, full <-chan []byte, free chan<- []byte) error {
	h := desc.Digest.Algorithm().Hash()
	var n int64
	for b := range full {
		if !verified {
			h.Write(b)
		}
		n += int64(len(b))
		free <- b[:cap(b)]
	}
	if verified {
		return nil // its source has counted and hashed
	}
	return check(desc, n, h)
}

// copy copies rc to the place of a blob, and has each chunk hashed meanwhile.
func (pl *placed) copy(ctx context.Context, i int, rc io.Reader, verified bool, full chan<- []byte, free <-chan []byte) (at int, err error) {
	desc, begin := pl.plan.blobs[i], pl.begin[i]
	hinted := int64(0)
	for n := int64(0); ; {
		if err := pl.goOn(ctx, i); err != nil {
			return stopped(i, err)
		}
		// Chunks need not end where pages of the file do: with whole pages the
		// kernel takes memory in larger pieces, which takes longer on a virtual
		// machine. The last chunk is empty: it shows that nothing follows, and that
		// a verified blob was right.
		off := begin + n
		buf := <-free
		k, eof, err := fill(rc, buf[:max(1, min(packChunk, desc.Size-n))])
		full <- buf[:k]
		if err != nil {
			return i, copyError(desc, verified, err)
		}
		if n+int64(k) > desc.Size {
			return i, mismatch(desc, "more than %d bytes", desc.Size)
		}
		if err := pl.out.writeAt(buf[:k], off); err != nil {
			return -1, err
		}
		n += int64(k)
		pl.progress(layout.Event{Kind: "bytes", Desc: desc, Bytes: int64(k)})
		if n-hinted >= writeBehind {
			durable.WriteBehind(pl.out.f, begin+hinted, n-hinted)
			hinted = n
		}
		if eof {
			return i, nil
		}
	}
}

// stopped returns of which blob the error of goOn is.
func stopped(i int, err error) (at int, _ error) {
	if errors.Is(err, errElsewhere) {
		return i, err
	}
	return -1, err
}
