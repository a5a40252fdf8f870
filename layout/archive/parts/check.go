package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/hashing"
)

const readSize = 1 << 20 // 1 MiB

// CheckOptions changes what [Check] does. Nil is the zero value.
type CheckOptions struct {
	Options
	// Only is the name of the one part that is checked; "" checks all of them,
	// and the digest of the whole.
	Only string
	// Progress is told of each part; calls do not overlap. Nil is silent.
	Progress func(layout.Event)
}

// A Report is what [Check] saw.
type Report struct {
	Manifest *Manifest
	Findings []layout.Finding // in the order of the parts; Path is the name of one
	Parts    int              // hashed
	Bytes    int64            // hashed
}

// Check hashes the parts that the manifest in file names. Parts that are missing
// or damaged are no error but findings, of the kinds that [layout.Verify] has;
// an error means that it could not look. Only the name of no part is
// [layout.ErrNotFound].
func Check(ctx context.Context, file string, opts *CheckOptions) (*Report, error) {
	var o CheckOptions
	if opts != nil {
		o = *opts
	}
	if o.Progress == nil {
		o.Progress = func(layout.Event) {}
	}
	m, err := ReadManifest(file)
	if err != nil {
		return nil, err
	}
	c := checker{ctx: ctx, file: file, opts: o, report: &Report{Manifest: m}, part: hashing.New(), whole: hashing.New(), buf: make([]byte, readSize)}
	defer c.part.Stop()
	defer c.whole.Stop()
	found := false
	for i, p := range m.Parts {
		if o.Only != "" && p.Name != o.Only {
			continue
		}
		found = true
		if err := c.check(i, p); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: part %q: %w", file, o.Only, layout.ErrNotFound)
	}
	// What is of parts that are right could still be put together wrongly.
	if got := c.whole.Sum(); o.Only == "" && len(c.report.Findings) == 0 && got != m.Digest {
		c.find(layout.FindingDigest, filepath.Base(file), fmt.Errorf("%w: the parts together hash to %s, want %s", layout.ErrMismatch, got, m.Digest))
	}
	return c.report, nil
}

// A checker lives as long as one call of Check.
type checker struct {
	ctx         context.Context //nolint:containedctx // as the type says
	file        string
	opts        CheckOptions
	report      *Report
	part, whole *hashing.Hasher
	buf         []byte
}

func (c *checker) find(kind, name string, err error) {
	c.report.Findings = append(c.report.Findings, layout.Finding{Kind: kind, Path: name, Detail: err.Error(), Err: err})
}

// check looks at part i.
func (c *checker) check(i int, p Part) error {
	f, err := openPart(c.file, p, &c.opts.Options)
	if err != nil {
		err = fmt.Errorf("part %d of %d: %w", i+1, len(c.report.Manifest.Parts), err)
		kind := layout.FindingRead
		switch {
		case errors.Is(err, layout.ErrNotFound):
			kind = layout.FindingMissing
		case errors.Is(err, layout.ErrMismatch):
			kind = layout.FindingSize
		case errors.Is(err, layout.ErrUnsafe):
			kind = layout.FindingUnsafe
		}
		c.find(kind, p.Name, err)
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	return c.hash(f, p)
}

func (c *checker) hash(f *os.File, p Part) error {
	desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: p.Digest, Size: p.Size}
	c.opts.Progress(layout.Event{Kind: "start", Desc: desc})
	var n int64
	var rerr error
	// One byte more than there has to be shows that there is more.
	for r := io.LimitReader(f, p.Size+1); rerr == nil; {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		var k int
		k, rerr = r.Read(c.buf)
		_, _ = c.part.Write(c.buf[:k]) // never an error
		_, _ = c.whole.Write(c.buf[:k])
		n += int64(k)
		c.opts.Progress(layout.Event{Kind: "bytes", Desc: desc, Bytes: int64(k)})
	}
	got := c.part.Sum()
	switch {
	case !errors.Is(rerr, io.EOF):
		c.find(layout.FindingRead, p.Name, rerr)
	case n != p.Size:
		c.find(layout.FindingSize, p.Name, fmt.Errorf("%w: %d bytes, want %d", layout.ErrMismatch, n, p.Size))
	case got != p.Digest:
		c.find(layout.FindingDigest, p.Name, fmt.Errorf("%w: the bytes hash to %s", layout.ErrMismatch, got))
	}
	c.report.Parts++
	c.report.Bytes += n
	c.opts.Progress(layout.Event{Kind: "done", Desc: desc})
	return nil
}
