package filediff

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout/internal/readahead"
)

// A Content is what can be compared.
type Content struct {
	Name string // a path or title, which may tell what it is; "" if there is none
	// Open opens the stored bytes. Whoever reads to the end has read the right
	// ones, or gets an error.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// headBytes is how much of the beginning of content is looked at.
const headBytes = 64 << 10 // 64 KiB

// aheadChunks are read ahead of a stream that has a processor of its own: 2 MiB.
const aheadChunks = 8

// A stream is content, decompressed.
type stream struct {
	*bufio.Reader
	format compress.Format
	name   string
	seed   maphash.Seed

	stored io.ReadCloser // as it was opened
	zr     io.ReadCloser // the decoder
	ahead  *readahead.Reader
	given  *noting // what Reader reads
	n      int64   // decompressed bytes that were taken
	hash   maphash.Hash
}

// open opens content. A parallel stream decompresses in a goroutine of its own
// until it is closed.
func open(ctx context.Context, c Content, seed maphash.Seed, parallel bool) (*stream, error) {
	stored, err := c.Open(ctx)
	if err != nil {
		return nil, err
	}
	s := &stream{stored: stored, name: c.Name, seed: seed}
	s.hash.SetSeed(seed)
	raw := bufio.NewReaderSize(stored, headBytes)
	head, err := raw.Peek(compress.DetectLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, stored.Close())
	}
	if s.format = compress.Detect(head); s.format == compress.Xz || s.format == compress.Bzip2 {
		s.format = compress.None // not read: compared byte by byte
	}
	if s.zr, err = compress.NewReader(raw, s.format); err != nil {
		return nil, errors.Join(s.explain(err), stored.Close())
	}
	var r io.Reader = hashing{s}
	if parallel {
		s.ahead = readahead.New(r, aheadChunks)
		r = s.ahead
	}
	s.given = &noting{r: r}
	s.Reader = bufio.NewReaderSize(s.given, headBytes)
	return s, nil
}

// A noting remembers how a reader failed, so that what an archive reader
// complains about is not taken for it.
type noting struct {
	r   io.Reader
	err error
}

func (n *noting) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return k, err
}

// hashing counts and hashes the decompressed bytes.
type hashing struct{ s *stream }

func (h hashing) Read(p []byte) (int, error) {
	n, err := h.s.zr.Read(p)
	h.s.n += int64(n)
	_, _ = h.s.hash.Write(p[:n]) // never fails
	return n, err
}

// explain tells damage of the blob, which ends everything, from a blob that is
// whole and makes no sense: a decoder complains about both.
func (s *stream) explain(err error) error {
	s.stop()
	if malformed(err) {
		if _, drain := io.Copy(io.Discard, s.stored); drain != nil {
			return drain
		}
	}
	return err
}

// finish reads to the end, so that the digest of the blob is verified, and the
// sum covers everything.
func (s *stream) finish() error {
	_, err := io.Copy(io.Discard, s.Reader)
	return err
}

// stop ends the goroutine. After it, explain may be called.
func (s *stream) stop() {
	if s.ahead != nil {
		s.ahead.Close()
		s.ahead = nil
	}
}

// close frees everything.
func (s *stream) close() {
	s.stop()
	_ = s.zr.Close() // nothing was written
	_ = s.stored.Close()
}

// same tells whether two streams that were finished gave the same bytes. The
// seed of the sums is random: nobody can make two contents with one sum.
func same(a, b *stream) bool { return a.n == b.n && a.hash.Sum64() == b.hash.Sum64() }

// isTar tells whether the stream looks like a tar archive.
func (s *stream) isTar() bool {
	head, _ := s.Peek(512) // a shorter one is none
	return looksLikeTar(head)
}

// isEmpty tells whether the stream may be an archive without members.
func (s *stream) isEmpty() bool {
	head, _ := s.Peek(512) // as above
	return len(head) == 0 || bytes.Count(head, []byte{0}) == 512
}

func looksLikeTar(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	if string(head[257:262]) == "ustar" {
		return true
	}
	// Archives of before 1988 have no magic number but the same checksum.
	var sum, want int64
	for i, c := range head[:512] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	digits := 0
	for _, c := range head[148:156] {
		switch {
		case c >= '0' && c <= '7':
			want = want<<3 | int64(c-'0')
			digits++
		case c != ' ' && c != 0:
			return false
		}
	}
	return digits > 0 && head[0] != 0 && sum == want
}

// malformed tells whether err says that content is not what it looks like, or
// passes a limit. All other errors end the comparison.
func malformed(err error) bool {
	return errors.Is(err, compress.ErrCorrupt) || errors.Is(err, compress.ErrLimit) || errors.Is(err, compress.ErrUnsupported) ||
		errors.Is(err, errArchive)
}

// Limits of one archive.
const (
	maxMembers  = 8 << 20
	sparseRatio = 1000    // content may be so many times larger than the archive
	sparseFloor = 1 << 30 // beyond its first 1 GiB
)

var errArchive = errors.New("bad archive")

// A tarStream reads members within limits.
type tarStream struct {
	s       *stream
	tr      *tar.Reader
	members int
	content int64 // bytes of content that were read
}

func newTarStream(s *stream) *tarStream { return &tarStream{s: s, tr: tar.NewReader(s)} }

// next returns the next member, or io.EOF.
func (t *tarStream) next() (*tar.Header, error) {
	for {
		h, err := t.tr.Next()
		if err != nil {
			return nil, t.explain(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if t.members++; t.members > maxMembers {
			return nil, fmt.Errorf("%w: more than %d members", errArchive, maxMembers)
		}
		return h, nil
	}
}

// Read reads the content of the member that next has returned. A sparse one may
// be said to hold 8 EiB of zeros.
func (t *tarStream) Read(p []byte) (int, error) {
	n, err := t.tr.Read(p)
	t.content += int64(n)
	if t.content > sparseFloor && t.content/sparseRatio > t.s.taken() {
		return n, fmt.Errorf("%w: sparse members give more than %d times its size", errArchive, sparseRatio)
	}
	return n, t.explain(err)
}

// explain says whose fault err is: that of the archive, unless reading failed.
func (t *tarStream) explain(err error) error {
	if err == nil || err == io.EOF || t.s.given.err != nil { //nolint:errorlint // the end of an archive or member is io.EOF itself
		return err
	}
	return fmt.Errorf("%w: %w", errArchive, err)
}

// taken is how many decompressed bytes were taken from the stream, or a few more.
func (s *stream) taken() int64 {
	if s.ahead != nil {
		return s.ahead.Taken()
	}
	return s.n
}
