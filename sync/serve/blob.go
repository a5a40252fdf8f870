package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

const (
	// chunk is how much of a file goes out at once, and for how much of it a
	// client has Options.WriteTimeout.
	chunk = 1 << 20 // 1 MiB
	// small is the largest part that is read into memory and sent with the
	// header in one write; sendfile pays above it.
	small = 64 << 10 // 64 KiB
)

// buffers are for parts of blobs.
var buffers = sync.Pool{New: func() any { b := make([]byte, small); return &b }}

// A reply is the part of a blob that a response has.
type reply struct {
	b             *content.Blob
	start, length int64
	partial       bool
}

// blob answers with a blob or a range of it (distribution-spec, "Pulling
// blobs").
func (c *call) blob(rep *content.Repo, reference string) {
	b := c.held.Blob(rep, digest.Digest(reference), c.start)
	if b == nil {
		if _, ok := c.digest(reference); ok {
			c.unknownBlob(rep, reference)
		}
		return
	}
	h := c.w.Header()
	h["Docker-Content-Digest"] = []string{string(b.Digest)}
	etag := content.ETagOf(b.Digest)
	h["Etag"] = []string{etag}
	if c.notModified(etag) {
		return
	}
	h["Accept-Ranges"] = inBytes
	p := reply{b: b, length: b.Size}
	// A HEAD tells of the whole (RFC 9110, section 14.2).
	if header := c.r.Header.Get("Range"); header != "" && c.r.Method == http.MethodGet && c.stillTheSame(etag) {
		start, length, ok := parseRange(header, b.Size)
		if ok && length == 0 {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", b.Size))
			c.fail(http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", "the range has no byte of the blob", nil)
			return
		}
		if ok {
			p.start, p.length, p.partial = start, length, true
		}
	}
	if err := c.sendBlob(p); err != nil {
		switch {
		case c.status != 0: // too late for another answer
			c.abort(b, err)
		case errors.Is(err, layout.ErrNotFound):
			c.unknownBlob(rep, reference) // it was there when the source was loaded
		default:
			c.broken(b.Digest, err)
		}
	}
}

// stillTheSame tells whether If-Range, if there is one, lets the range stand.
func (c *call) stillTheSame(etag string) bool {
	header := c.r.Header.Get("If-Range")
	return header == "" || header == etag
}

func (c *call) unknownBlob(rep *content.Repo, reference string) {
	c.fail(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry", map[string]string{"name": rep.Name, "digest": reference})
}

// broken answers that the source is at fault.
func (c *call) broken(d digest.Digest, err error) {
	c.err = err
	if c.r.Context().Err() != nil {
		c.status = 499 // nobody is there to read an answer
		panic(http.ErrAbortHandler)
	}
	message := "the content cannot be read"
	if errors.Is(err, layout.ErrMismatch) {
		message = "the stored content does not match its digest"
	}
	c.s.opts.Log.Error(message, "digest", d, "error", err)
	c.fail(http.StatusInternalServerError, "UNKNOWN", message, map[string]string{"digest": string(d)})
}

// abort breaks the connection, so that nobody takes what was sent for whole.
func (c *call) abort(b *content.Blob, err error) {
	c.err = err
	if errors.Is(err, layout.ErrMismatch) {
		c.s.opts.Log.Error("the stored content does not match its digest: the response was cut off", "digest", b.Digest, "error", err)
	}
	panic(http.ErrAbortHandler)
}

// sendBlob sends p. An error before the header was sent leaves the answer to the
// caller.
func (c *call) sendBlob(p reply) error {
	b := p.b
	if b.Data != nil {
		c.header(p)
		return c.write(b.Data[p.start : p.start+p.length])
	}
	ctx := c.r.Context()
	// More than once only if the file is replaced all the time.
	for range 4 {
		again, err := c.trySend(ctx, p)
		if !again && !(errors.Is(err, content.ErrChanged) && c.status == 0) {
			return err
		}
	}
	return b.Error(content.ErrChanged)
}

func (c *call) trySend(ctx context.Context, p reply) (again bool, err error) {
	b := p.b
	f, err := b.Files(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		if c.r.Method == http.MethodHead {
			c.header(p)
			return false, nil
		}
		return false, c.sendMade(ctx, p)
	}
	if err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // only read
	good, bad := f.Known()
	switch {
	case bad:
		return false, b.Error(layout.ErrMismatch)
	case c.r.Method == http.MethodHead:
		c.header(p)
		return false, nil
	case good:
	case b.Size > c.s.opts.VerifyLimit && !p.partial:
		err := c.stream(p, f.Reader(ctx), 0)
		if err != nil && c.status != 0 && !errors.Is(err, layout.ErrMismatch) {
			// The client is gone in the middle; it may come back for the rest.
			c.s.content.StartHash(c.held, b)
			return false, err
		}
		return false, c.s.content.Judge(f, err)
	default:
		same := false
		err := c.waiting(func() (err error) {
			same, err = c.s.content.Hash(ctx, c.held, f)
			return err
		})
		if err != nil {
			return false, err
		}
		if !same {
			return true, nil
		}
	}
	return false, c.sendFiles(p, f)
}

// header sends the header of p.
func (c *call) header(p reply) {
	h := c.w.Header()
	h["Content-Type"] = typeBlob
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = []string{strconv.FormatInt(p.length, 10)}
	c.deadline()
	if p.partial {
		h["Content-Range"] = []string{fmt.Sprintf("bytes %d-%d/%d", p.start, p.start+p.length-1, p.b.Size)}
		c.status = http.StatusPartialContent
	} else {
		c.status = http.StatusOK
	}
	c.w.WriteHeader(c.status)
}

func (c *call) write(b []byte) error {
	if c.r.Method == http.MethodHead {
		return nil
	}
	n, err := c.w.Write(b)
	c.bytes += int64(n)
	return err
}

// deadline gives the client time for the next chunk.
func (c *call) deadline() {
	// Not supported only where a test has no connection.
	_ = http.NewResponseController(c.w).SetWriteDeadline(now().Add(c.s.opts.WriteTimeout))
}

// waiting has the client wait for us, while do is done: that takes what it takes.
func (c *call) waiting(do func() error) error {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Time{})
	defer c.deadline()
	return do()
}

func (c *call) sendSmall(p reply, f *content.Files) error {
	buf := buffers.Get().(*[]byte) //nolint:errcheck // the pool has nothing else
	defer buffers.Put(buf)
	part := (*buf)[:p.length]
	if _, err := io.ReadFull(f.Section(p.start, p.length), part); err != nil {
		return err
	}
	if err := f.Unchanged(); err != nil {
		return err
	}
	c.header(p)
	return c.write(part)
}

// sendFiles sends p from files that were verified. What is not small the kernel
// copies to the connection. The last chunk goes out only if they are still what was
// verified.
func (c *call) sendFiles(p reply, f *content.Files) error {
	if p.length <= small {
		return c.sendSmall(p, f)
	}
	c.header(p)
	left := p.length
	for _, section := range f.Sections(p.start, p.length) {
		left -= section.Size
		if err := c.sendSection(p, f, section, left == 0); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) sendSection(p reply, f *content.Files, section layout.Piece, last bool) error {
	if _, err := section.File.Seek(section.Off, io.SeekStart); err != nil {
		return err
	}
	for left := section.Size; left > 0; {
		n := min(left, chunk)
		if last && n == left {
			if err := f.Unchanged(); err != nil {
				return err
			}
		}
		c.deadline()
		sent, err := c.copy(section.File, n)
		c.bytes += sent
		left -= sent
		if err != nil {
			return err
		}
		if sent < n {
			return p.b.Error(fmt.Errorf("%w: the file was cut while it was sent", layout.ErrMismatch))
		}
	}
	return nil
}

// stream sends p out of what rc reads from the byte at on, and verifies at its end:
// the last bytes that p has wait until then.
func (c *call) stream(p reply, rc io.Reader, at int64) error {
	one, two := buffers.Get().(*[]byte), buffers.Get().(*[]byte) //nolint:errcheck // the pool has nothing else
	defer buffers.Put(one)
	defer buffers.Put(two)
	read, waiting := *one, *two
	kept := 0 // of waiting
	flush := func() error {
		if c.status == 0 { // else it was begun in another way
			c.header(p)
		}
		c.deadline()
		err := c.write(waiting[:kept])
		kept = 0
		return err
	}
	for {
		n, err := rc.Read(read)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		// What of the piece is in the range?
		from, to := max(p.start-at, 0), min(p.start+p.length-at, int64(n))
		at += int64(n)
		if from < to {
			if kept > 0 {
				if err := flush(); err != nil {
					return err
				}
			}
			read, waiting = waiting, read
			copy(waiting, waiting[from:to])
			kept = int(to - from)
		}
		if err != nil {
			return flush()
		}
	}
}
