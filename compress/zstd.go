package compress

import (
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// zstdFrame is how much input becomes one frame. It is part of the output. The
// frames are what several cores work on, for the encoder has no other way that
// gives the same bytes on any machine; each begins without history, which costs
// 0.8 % at level 3, and 16 MiB would cost 0.4 % and twice the memory.
const zstdFrame = 8 << 20 // 8 MiB

// maxFrames bounds how many frames are in memory, each with its output up to
// 16 MiB, beyond the one that each writer has for itself.
const maxFrames = 16

// frames are what all writers together have beyond one each.
var frames = make(chan struct{}, maxFrames)

// encoders are shared by all writers: each has one state for each core, of 10
// MiB and above level 9 of 45 MiB, and makes frames wait until one is free.
var encoders = map[zstd.EncoderLevel]func() (*zstd.Encoder, error){
	zstd.SpeedFastest:           newEncoder(zstd.SpeedFastest, maxFrames),
	zstd.SpeedDefault:           newEncoder(zstd.SpeedDefault, maxFrames),
	zstd.SpeedBetterCompression: newEncoder(zstd.SpeedBetterCompression, maxFrames),
	zstd.SpeedBestCompression:   newEncoder(zstd.SpeedBestCompression, 8),
}

func newEncoder(level zstd.EncoderLevel, most int) func() (*zstd.Encoder, error) {
	return sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil,
			zstd.WithEncoderLevel(level),
			zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), most)),
			zstd.WithZeroFrames(true)) // an empty input must give a stream, too
	})
}

// zstdWriter compresses frames at once and writes them in their order.
type zstdWriter struct {
	encoder *zstd.Encoder
	out     *latch
	own     chan *frame   // what this writer has for itself, while it is free
	jobs    chan *frame   // in the order of the input
	done    chan struct{} // closed when all of jobs are written
	cur     *frame        // not full yet; nil if there is none
	wrote   bool          // anything was submitted
	table   seekTable
	closed  bool
}

// A frame is input on its way to become a frame.
type frame struct {
	in, out []byte
	shared  bool          // counted in frames
	ready   chan struct{} // gets a value when out is what in became
}

func newZstdWriter(w io.Writer, level int) (*zstdWriter, error) {
	encoder, err := encoders[zstd.EncoderLevelFromZstd(level)]()
	if err != nil {
		return nil, err
	}
	z := &zstdWriter{
		encoder: encoder, out: &latch{w: w},
		own: make(chan *frame, 1),
		// With the frame that is written, and the one that is filled, one more than
		// there are processors.
		jobs: make(chan *frame, min(runtime.GOMAXPROCS(0), maxFrames)-1),
		done: make(chan struct{}),
	}
	z.own <- &frame{ready: make(chan struct{}, 1)}
	idle.count(1)
	go z.write()
	return z, nil
}

// frame returns a free frame. It waits only while frames of this writer are on
// their way, so that writers cannot wait for each other.
func (z *zstdWriter) frame() *frame {
	select {
	case f := <-z.own:
		return f
	default:
	}
	select {
	case f := <-z.own:
		return f
	case frames <- struct{}{}:
		f := idle.get()
		f.shared = true
		return f
	}
}

// idle are frames that are not needed now: their memory grew to what it has to
// be, which takes as long as a fifth of compressing. So it is not left to the
// garbage collector while anybody writes.
var idle idleFrames

type idleFrames struct {
	mu      sync.Mutex
	list    []*frame // together with those in use never more than maxFrames
	writers int      // that are not closed
}

func (i *idleFrames) get() *frame {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n := len(i.list); n > 0 {
		f := i.list[n-1]
		i.list = i.list[:n-1]
		return f
	}
	return &frame{ready: make(chan struct{}, 1)}
}

func (i *idleFrames) put(f *frame) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.list = append(i.list, f)
}

// count notes that a writer began, or ended. The last one frees all.
func (i *idleFrames) count(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.writers += n; i.writers == 0 {
		i.list = nil
	}
}

func (z *zstdWriter) Write(p []byte) (n int, err error) {
	if z.closed {
		return 0, errWriteClosed
	}
	for len(p) > 0 {
		if err := z.out.failure(); err != nil {
			return n, err
		}
		if z.cur == nil {
			z.cur = z.frame()
			z.cur.in = z.cur.in[:0]
		}
		k := min(len(p), zstdFrame-len(z.cur.in))
		if need := len(z.cur.in) + k; need > cap(z.cur.in) {
			room := 2 * cap(z.cur.in)
			if need > zstdFrame/8 {
				room = zstdFrame // most are filled then, and growing is copying
			}
			in := make([]byte, len(z.cur.in), max(need, min(room, zstdFrame)))
			copy(in, z.cur.in)
			z.cur.in = in // not slices.Grow, which touches all that is new
		}
		z.cur.in = append(z.cur.in, p[:k]...)
		n, p = n+k, p[k:]
		if len(z.cur.in) == zstdFrame {
			z.submit()
		}
	}
	return n, nil
}

// submit compresses the current frame.
func (z *zstdWriter) submit() {
	f := z.cur
	z.cur, z.wrote = nil, true
	go func() {
		// Room for the worst case costs nothing while it is not touched; output
		// that grows is copied to memory that the kernel has to find each time.
		if most := z.encoder.MaxEncodedSize(len(f.in)); cap(f.out) < most {
			f.out = make([]byte, 0, most)
		}
		f.out = z.encoder.EncodeAll(f.in, f.out[:0])
		f.ready <- struct{}{}
	}()
	z.jobs <- f
}

// write writes the frames until there are no more.
func (z *zstdWriter) write() {
	defer close(z.done)
	for f := range z.jobs {
		<-f.ready
		_, _ = z.out.Write(f.out) // the latch keeps the error
		z.table.add(len(f.out), len(f.in))
		if !f.shared {
			z.own <- f
			continue
		}
		f.shared = false
		idle.put(f)
		<-frames
	}
}

// Close ends the stream.
func (z *zstdWriter) Close() error {
	if z.closed {
		return z.out.failure()
	}
	z.closed = true
	if z.cur == nil && !z.wrote {
		z.cur = z.frame()
	}
	if z.cur != nil {
		z.submit()
	}
	close(z.jobs)
	<-z.done
	idle.count(-1)
	if len(z.table) > 1 {
		_, _ = z.out.Write(z.table.bytes())
	}
	return z.out.failure()
}
