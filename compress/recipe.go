package compress

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The writers of a [Recipe].
const (
	// RecipeBlocks is gzip as [NewWriter] writes it, and zstd in frames as that
	// does: it works on pieces. Gzip in pieces of 1 MiB is also what podman, skopeo
	// and buildah write, in pieces of 256 KiB umoci.
	RecipeBlocks = "blocks"
	// RecipeStream is one stream of the same library, without pieces.
	RecipeStream = "stream"
	// RecipeGo is gzip as the standard library of Go writes it: docker, containerd
	// and crane use that.
	RecipeGo = "go"
)

// gzipBlocks are the sizes of the pieces that gzip is known to be written in.
var gzipBlocks = []int64{gzipBlock, 256 << 10}

// zstdLevels are one level for each speed of the encoder of zstd.
var zstdLevels = []int{3, 1, 6, 10}

// maxHeader bounds the header of a gzip stream that is written again.
const maxHeader = 1 << 10 // 1 KiB

// A Recipe says how a stream was compressed, so that the same bytes come out when
// its content is compressed again. What it says holds for one version of the
// library: only a comparison with the stream, or its digest, tells whether they
// are the same.
type Recipe struct {
	Format  Format // Gzip or Zstd
	Writer  string // one of the constants above
	Level   int    // gzip 1 to 9; zstd 1, 3, 6 or 10
	Block   int64  // bytes of input that are compressed as one piece; 0 for one stream
	Header  []byte // of gzip: all bytes before the compressed data (RFC 1952, section 2.3)
	Library string // modules and versions that compress, of the program that made the recipe
}

// library returns what compresses in this program.
func (r *Recipe) library() string {
	switch {
	case r.Writer == RecipeGo:
		return "compress/flate of " + runtime.Version()
	case r.Format == Gzip && r.Writer == RecipeBlocks:
		return flateLibrary
	}
	return zstdLibrary
}

// Own returns the recipe with the library of this program in it.
func (r Recipe) Own() Recipe {
	r.Library = r.library()
	return r
}

// Check tells whether [Recipe.NewWriter] knows r; else the error is
// [ErrUnsupported]. It does not look at Library.
func (r *Recipe) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: a recipe for %s with %s", ErrUnsupported, r.Format, fmt.Sprintf(format, args...))
	}
	switch r.Format {
	case Gzip:
		if n, ok := gzipHeader(r.Header); !ok || n != len(r.Header) {
			return bad("a header that is none")
		}
		if r.Level < 1 || r.Level > 9 {
			return bad("level %d", r.Level)
		}
	case Zstd:
		if len(r.Header) > 0 {
			return bad("a header")
		}
		if !slices.Contains(zstdLevels, r.Level) {
			return bad("level %d", r.Level)
		}
	default:
		return bad("writer %.40q", r.Writer)
	}
	ok := false
	switch r.Writer {
	case RecipeBlocks:
		ok = r.Format == Gzip && slices.Contains(gzipBlocks, r.Block) || r.Format == Zstd && r.Block == zstdFrame
	case RecipeStream:
		ok = r.Block == 0
	case RecipeGo:
		ok = r.Format == Gzip && r.Block == 0
	default:
		return bad("writer %.40q", r.Writer)
	}
	if !ok {
		return bad("writer %s and pieces of %d bytes", r.Writer, r.Block)
	}
	return nil
}

// NewWriter returns a writer that compresses to w as r says. The bytes depend on
// the input, r without its Library, and the version of the library only. It is to
// be closed, and takes memory, as that of [NewWriter] does.
func (r *Recipe) NewWriter(w io.Writer) (io.WriteCloser, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	if r.Format == Zstd {
		if r.Writer == RecipeBlocks {
			return newZstdWriter(w, r.Level)
		}
		// One goroutine: its bytes are those of several.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(r.Level)), zstd.WithEncoderConcurrency(1))
	}
	w = &headerWriter{w: w, header: r.Header}
	switch r.Writer {
	case RecipeGo:
		return stdgzip.NewWriterLevel(w, r.Level)
	case RecipeStream:
		return gzip.NewWriterLevel(w, r.Level)
	}
	return newGzipWriter(w, r.Level, int(r.Block))
}

// gzipPlain is the length of a gzip header without a name and the like.
const gzipPlain = 10

// A headerWriter puts a header in the place of one of 10 bytes.
type headerWriter struct {
	w      io.Writer
	header []byte
	n      int // bytes of the other header that came
}

func (h *headerWriter) Write(p []byte) (int, error) {
	skip := min(len(p), gzipPlain-h.n)
	if skip > 0 {
		if h.n += skip; h.n == gzipPlain {
			if _, err := h.w.Write(h.header); err != nil {
				return 0, err
			}
		}
	}
	if skip == len(p) {
		return skip, nil
	}
	n, err := h.w.Write(p[skip:])
	return skip + n, err
}

// gzipHeader returns the length of the header that b begins with.
func gzipHeader(b []byte) (int, bool) {
	b = b[:min(len(b), maxHeader)]
	if len(b) < gzipPlain || Detect(b) != Gzip || b[3]&0xe0 != 0 { // reserved flags
		return 0, false
	}
	n := gzipPlain
	if b[3]&4 != 0 { // FEXTRA
		if len(b) < n+2 {
			return 0, false
		}
		n += 2 + int(b[n]) + int(b[n+1])<<8
	}
	for _, flag := range []byte{8, 16} { // FNAME, FCOMMENT
		if b[3]&flag == 0 {
			continue
		}
		if n > len(b) {
			return 0, false
		}
		end := bytes.IndexByte(b[n:], 0)
		if end < 0 {
			return 0, false
		}
		n += end + 1
	}
	if b[3]&2 != 0 { // FHCRC
		n += 2
	}
	return n, n <= len(b)
}

// How much of a stream is uncompressed to find its recipe: more than a piece.
const (
	gzipProbe = 2<<20 + 64<<10
	zstdProbe = zstdFrame + 64<<10
)

// enough bytes of output that are the same make all further tries needless;
// fewer than little say nothing.
const enough, little = 256 << 10, 512

// FindRecipe looks for a recipe for the stream of size bytes that r has. It
// compares the beginning only: whether all of the stream comes out again is the
// caller's to see. Without one the recipe is nil; an error is one of r. What it
// finds depends on the stream only.
func FindRecipe(r io.ReaderAt, size int64) (*Recipe, error) {
	src := &source{r: io.NewSectionReader(r, 0, size)}
	head := make([]byte, min(size, maxHeader))
	if _, err := io.ReadFull(src, head); err != nil {
		return nil, err
	}
	f := prober{r: r, size: size}
	format, length := Detect(head), int64(0)
	switch format {
	case Gzip:
		n, ok := gzipHeader(head)
		if !ok {
			return nil, nil //nolint:nilnil // as documented
		}
		f.header, length = head[:n], gzipProbe
	case Zstd:
		length = zstdProbe
	default:
		return nil, nil //nolint:nilnil // as documented
	}
	dec, err := NewReader(io.MultiReader(bytes.NewReader(head), src), format)
	if err == nil {
		defer dec.Close() //nolint:errcheck // it only frees the decoder
		_, err = io.CopyN(&f.plain, dec, length)
	}
	if src.err != nil {
		return nil, src.err
	}
	f.whole = errors.Is(err, io.EOF)
	if err != nil && !f.whole {
		return nil, nil //nolint:nilnil // what cannot be read has no recipe
	}
	if format == Gzip {
		err = f.gzip()
	} else {
		err = f.zstd(head)
	}
	if err != nil || f.best == nil {
		return nil, err
	}
	own := f.best.Own()
	own.Header = bytes.Clone(own.Header)
	return &own, nil
}

// A prober tries recipes.
type prober struct {
	r      io.ReaderAt
	size   int64
	header []byte
	plain  bytes.Buffer // the beginning of what the stream holds
	whole  bool         // all of it

	best *Recipe
	most int64 // bytes of output that are the same with it
}

// gzip tries the recipes for gzip.
func (f *prober) gzip() error {
	for _, level := range []int{6, 5, 9, 1, 2, 3, 4, 7, 8} {
		n, err := f.try(Recipe{Format: Gzip, Writer: RecipeStream, Level: level, Header: f.header})
		// The first piece is what a stream begins with.
		for _, block := range gzipBlocks {
			if err == nil && n >= little {
				_, err = f.try(Recipe{Format: Gzip, Writer: RecipeBlocks, Level: level, Block: block, Header: f.header})
			}
		}
		if err == nil {
			_, err = f.try(Recipe{Format: Gzip, Writer: RecipeGo, Level: level, Header: f.header})
		}
		if err != nil || f.done() {
			return err
		}
	}
	return nil
}

// zstd tries the recipes for zstd that write such a header.
func (f *prober) zstd(head []byte) error {
	var h zstd.Header
	if err := h.Decode(head); err != nil || h.Skippable || !h.HasCheckSum || h.DictionaryID != 0 || h.FrameContentSize > zstdFrame {
		return nil //nolint:nilerr // it is written by others
	}
	r := Recipe{Format: Zstd, Writer: RecipeBlocks, Block: zstdFrame}
	if !h.HasFCS {
		r.Writer, r.Block = RecipeStream, 0
	}
	for _, r.Level = range zstdLevels {
		if _, err := f.try(r); err != nil || f.done() {
			return err
		}
	}
	return nil
}

// done tells whether further tries are needless.
func (f *prober) done() bool { return f.most >= enough || f.whole && f.best != nil }

// try compresses what is known of the stream, and returns how many bytes of it
// come out. Where all is known, all must.
func (f *prober) try(r Recipe) (int64, error) {
	c := NewComparer(f.r, f.size)
	w, err := r.NewWriter(c)
	if err != nil {
		return 0, err
	}
	for plain := f.plain.Bytes(); len(plain) > 0 && err == nil && c.Same(); {
		n := min(len(plain), 64<<10)
		_, err = w.Write(plain[:n])
		plain = plain[n:]
	}
	if err = errors.Join(err, w.Close(), c.Err()); err != nil {
		return 0, err
	}
	if c.n > max(f.most, little) && (!f.whole || c.Complete()) {
		f.best, f.most = &r, c.n
	}
	return c.n, nil
}
