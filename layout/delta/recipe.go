package delta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

// recipeJSON is a [Recipe] in JSON.
type recipeJSON struct {
	Digest  digest.Digest `json:"digest"`
	Size    int64         `json:"size"`
	Format  string        `json:"format"`
	Writer  string        `json:"writer"`
	Level   int           `json:"level"`
	Block   int64         `json:"block"`
	Header  []byte        `json:"header,omitempty"`
	Library string        `json:"library"`
}

func (r *Recipe) json() *recipeJSON {
	if r == nil {
		return nil
	}
	return &recipeJSON{
		Digest: r.Content.Digest, Size: r.Content.Size, Format: r.Format.String(),
		Writer: r.Writer, Level: r.Level, Block: r.Block, Header: r.Header, Library: r.Library,
	}
}

// recipe returns what r says; nothing if it is nil.
func (r *recipeJSON) recipe() (*Recipe, error) {
	if r == nil {
		return nil, nil //nolint:nilnil // as documented
	}
	format, err := compress.ParseFormat(r.Format)
	return &Recipe{
		Recipe:  compress.Recipe{Format: format, Writer: r.Writer, Level: r.Level, Block: r.Block, Header: r.Header, Library: r.Library},
		Content: layout.BlobInfo{Digest: r.Digest, Size: r.Size},
	}, err
}

// maxLibrary bounds the text about a library, in bytes.
const maxLibrary = 1 << 10

// checkContents checks what p says of uncompressed content. Nobody could read
// more of it than package compress allows for, so no more is made.
func (p *Patch) checkContents() error {
	errs := []error{checkInfos(p.Uncompressed)}
	pieces := slices.Concat(p.Base, p.Own)
	for _, info := range p.Uncompressed {
		i := slices.IndexFunc(pieces, func(piece layout.BlobInfo) bool { return piece.Digest == info.Digest })
		if i < 0 {
			errs = append(errs, fmt.Errorf("patch of %s: %s is none of its pieces", p.Digest, info.Digest))
			continue
		}
		errs = append(errs, checkContent(info.Size, pieces[i]))
	}
	if r := p.Recipe; r != nil {
		errs = append(errs, checkInfo(r.Content), checkContent(r.Content.Size, p.BlobInfo))
		if err := r.Check(); err != nil {
			errs = append(errs, fmt.Errorf("patch of %s: %w", p.Digest, err))
		}
		if len(r.Library) > maxLibrary {
			errs = append(errs, fmt.Errorf("patch of %s: a library of %d bytes", p.Digest, len(r.Library)))
		}
	}
	return errors.Join(errs...)
}

// checkContent checks the size of the content of a compressed blob.
func checkContent(size int64, blob layout.BlobInfo) error {
	switch {
	case size < 1, size > compress.DefaultMaxBytes:
		return fmt.Errorf("%s: a content of %d bytes", blob.Digest, size)
	case size > compress.RatioFloor && size/compress.DefaultMaxRatio > blob.Size:
		return fmt.Errorf("%s: a content of %d bytes in %d, a ratio above %d:1", blob.Digest, size, blob.Size, compress.DefaultMaxRatio)
	}
	return nil
}

// uncompressed returns a reader of the content of rc, which is compressed and
// verified: at its end all of rc was right. It closes rc.
func uncompressed(rc io.ReadCloser) (io.ReadCloser, error) {
	head := make([]byte, compress.DetectLen)
	n, err := io.ReadFull(rc, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errors.Join(err, rc.Close())
	}
	format := compress.Detect(head[:n])
	if format != compress.Gzip && format != compress.Zstd {
		return nil, errors.Join(fmt.Errorf("%w: neither gzip nor zstd", compress.ErrUnsupported), rc.Close())
	}
	dec, err := compress.NewReader(io.MultiReader(bytes.NewReader(head[:n]), rc), format)
	if err != nil {
		return nil, errors.Join(err, rc.Close())
	}
	return &contentReader{dec: dec, rc: rc}, nil
}

type contentReader struct {
	dec, rc io.ReadCloser
}

func (c *contentReader) Read(p []byte) (int, error) {
	n, err := c.dec.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		// A damaged blob is that, and not a wrong delta.
		if _, derr := io.Copy(io.Discard, c.rc); derr != nil {
			err = derr
		}
	}
	return n, err
}

func (c *contentReader) Close() error { return errors.Join(c.dec.Close(), c.rc.Close()) }

// An encodedReader compresses what a patch makes. No more than the content that
// the recipe names is compressed, and no more than the blob has bytes comes out.
type encodedReader struct {
	patch Patch
	in    io.ReadCloser // the content, verified
	buf   []byte

	zw    io.WriteCloser
	out   output
	n     int64 // bytes given
	sound bool  // all of the content was made, and is right
	err   error
}

func newEncodedReader(p Patch, in io.ReadCloser) (*encodedReader, error) {
	e := &encodedReader{patch: p, in: in, buf: make([]byte, 128<<10)}
	var err error
	if e.zw, err = p.Recipe.NewWriter(&e.out); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return e, nil
}

func (e *encodedReader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		n := e.out.read(p)
		if e.n += int64(n); e.n > e.patch.Size {
			return 0, e.tooMuch()
		}
		if n > 0 {
			return n, nil
		}
		if e.err != nil {
			return 0, e.err
		}
		e.err = e.step()
	}
	return 0, nil
}

// step makes a part of the content, and compresses it; at the end it is io.EOF,
// and all is in out.
func (e *encodedReader) step() error {
	n, err := e.content()
	if n > 0 {
		if _, werr := e.zw.Write(e.buf[:n]); werr != nil {
			return werr
		}
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	if err := e.zw.Close(); err != nil {
		return err
	}
	return io.EOF
}

// content reads into buf. io.EOF means that all content was right.
func (e *encodedReader) content() (int, error) {
	n, err := e.in.Read(e.buf)
	if errors.Is(err, io.EOF) {
		e.sound = true
		return n, io.EOF
	}
	if err != nil {
		err = fmt.Errorf("the content of blob %s: %w", e.patch.Digest, err)
	}
	return n, err
}

// tooMuch is called when more came out than the blob has bytes. Whose fault that
// is tells the content.
func (e *encodedReader) tooMuch() error {
	for e.err == nil && !e.sound {
		_, e.err = e.content()
	}
	if e.sound {
		e.err = e.patch.otherBytes()
	}
	return e.err
}

func (e *encodedReader) Close() error { return errors.Join(e.zw.Close(), e.in.Close()) }

// otherBytes is the error for content that is right and becomes another blob when
// it is compressed. It is [compress.ErrUnsupported].
func (p *Patch) otherBytes() error {
	own := p.Recipe.Own()
	err := fmt.Errorf("blob %s: %w: this program compresses its content to other bytes; the delta was made with %s, level %d, of %s; here it is %s",
		p.Digest, compress.ErrUnsupported, p.Recipe.Format, p.Recipe.Level, p.Recipe.Library, own.Library)
	return layout.WithHint(err, "use the version of gloci-layout that made the delta, or pack it without --delta-blobs")
}

// A judge tells a wrong compressor from wrong content.
type judge struct {
	io.ReadCloser // verifies the blob
	encoded       *encodedReader
}

func (j *judge) Read(p []byte) (int, error) {
	n, err := j.ReadCloser.Read(p)
	if err != nil && errors.Is(err, layout.ErrMismatch) && j.encoded.sound {
		err = j.encoded.patch.otherBytes()
	}
	return n, err
}
