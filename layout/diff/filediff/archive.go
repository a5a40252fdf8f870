package filediff

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/compress"
)

// smallFile is the size up to which files are compared in memory.
const smallFile = 1 << 20 // 1 MiB

// A member is one of an archive: in turn, with its content still to be read from
// the archive, or one that was kept.
type member struct {
	name    string
	seq     int // counted from 0
	h       *tar.Header
	content io.Reader
	digest  digest.Digest // of the content of one that was kept
	lost    bool          // there is but the digest
}

// A half is one side of a merge.
type half struct {
	ts      *tarStream
	now     *member // nil at the end
	pending pending
	last    string
	sorted  bool // so far
}

func (h *half) advance() error {
	header, err := h.ts.next()
	if errors.Is(err, io.EOF) {
		h.now = nil
		return nil
	}
	if err != nil {
		return err
	}
	m := &member{name: cleanName(header.Name), h: header, content: h.ts}
	if h.now != nil {
		m.seq = h.now.seq + 1
		h.sorted = h.sorted && comparePaths(h.last, m.name) <= 0
	}
	h.now, h.last = m, m.name
	return nil
}

// keep puts the member in turn aside until its counterpart comes.
func (h *half) keep(c *comparer) error {
	if err := h.pending.put(c, h.now); err != nil {
		return err
	}
	return h.advance()
}

// A merge compares two archives member by member.
type merge struct {
	c       *comparer
	path    []string // of the archives
	depth   int
	a, b    half
	order   orderCheck
	ignored bool // something differs that does not count
	differs bool // something differs that does
}

// archives compares two archives. Members are matched by name; where a name
// stands more than once, the first with the first.
//
// While both lists are sorted, the lesser name of the two in turn cannot come on
// the other side any more. If they are not, both are kept aside: so two lists
// in one order, with members added to one, are in step again after those.
func (c *comparer) archives(ctx context.Context, path []string, a, b *stream, depth int) (Outcome, error) {
	m := &merge{c: c, path: path, depth: depth}
	m.a, m.b = half{ts: newTarStream(a), sorted: true}, half{ts: newTarStream(b), sorted: true}
	defer m.a.pending.free(c)
	defer m.b.pending.free(c)
	if err := errors.Join(m.a.advance(), m.b.advance()); err != nil {
		return Different, err
	}
	for m.a.now != nil || m.b.now != nil {
		if err := m.step(ctx); err != nil {
			return Different, err
		}
		if ctx.Err() != nil {
			return Different, context.Cause(ctx)
		}
		if c.out.Ended() {
			return Different, errEnded
		}
	}
	if err := m.rest(); err != nil {
		return Different, err
	}
	if m.order.broken() {
		if c.opts.Ignore.Order || !c.counts(path) {
			m.ignored = true
		} else {
			m.emit(&Change{Kind: Reordered, Path: path})
		}
	}
	switch {
	case m.differs:
		return Different, nil
	case m.ignored:
		return Uncounted, nil
	}
	return nothing, nil
}

func (m *merge) step(ctx context.Context) error {
	a, b := &m.a, &m.b
	switch {
	case a.now != nil && b.now != nil && a.now.name == b.now.name && !a.pending.has(a.now.name) && !b.pending.has(b.now.name):
		if err := m.pair(ctx, a.now, b.now); err != nil {
			return err
		}
		return errors.Join(a.advance(), b.advance())
	case a.now != nil && b.pending.has(a.now.name):
		other, err := b.pending.take(m.c, a.now.name)
		if err == nil {
			err = m.pair(ctx, a.now, other)
		}
		return errors.Join(err, a.advance())
	case b.now != nil && a.pending.has(b.now.name):
		other, err := a.pending.take(m.c, b.now.name)
		if err == nil {
			err = m.pair(ctx, other, b.now)
		}
		return errors.Join(err, b.advance())
	case b.now == nil:
		return a.keep(m.c)
	case a.now == nil:
		return b.keep(m.c)
	case !a.sorted || !b.sorted:
		return errors.Join(a.keep(m.c), b.keep(m.c))
	case comparePaths(a.now.name, b.now.name) < 0:
		return a.keep(m.c)
	}
	return b.keep(m.c)
}

// rest reports what has no counterpart.
func (m *merge) rest() error {
	for _, side := range []struct {
		h    *half
		kind Kind
	}{{&m.a, Removed}, {&m.b, Added}} {
		for x, err := range side.h.pending.all() {
			if err != nil {
				return err
			}
			ch := &Change{Kind: side.kind, Path: m.child(x.name)}
			if !m.c.counts(ch.Path) {
				m.ignored = true
				continue
			}
			f := fileOf(x.h)
			f.Digest = x.digest
			if side.kind == Removed {
				ch.A = f
			} else {
				ch.B = f
			}
			m.emit(ch)
			if m.c.out.Ended() {
				return errEnded
			}
		}
	}
	return nil
}

func (m *merge) emit(ch *Change) {
	m.differs = true
	m.c.out.Emit(ch)
}

func (m *merge) child(name string) []string { return append(slices.Clone(m.path), name) }

// pair compares two members of one name.
func (m *merge) pair(ctx context.Context, a, b *member) error {
	m.order.matched(a.seq, b.seq)
	ign := &m.c.opts.Ignore
	fields, ignored := metaFields(a.h, b.h, ign)
	m.ignored = m.ignored || ignored
	files := typeOf(a.h) == TypeFile && typeOf(b.h) == TypeFile
	if len(fields) == 0 && !files {
		return nil
	}
	path := m.child(a.name)
	if !m.c.counts(path) && !files {
		m.ignored = true
		return nil
	}
	ch := &Change{Kind: Changed, Path: path, A: fileOf(a.h), B: fileOf(b.h), Fields: fields}
	if !files {
		m.emit(ch)
		return nil
	}
	if len(fields) > 0 && !m.c.counts(path) {
		m.ignored = true
		fields, ch.Fields = nil, nil
	}
	m.c.out.Push(ch)
	o, err := m.files(ctx, ch, a, b)
	if err == nil && len(fields) > 0 {
		if o == Uncounted {
			ch.Fields = fields // the content does not count
		}
		m.c.out.Say()
	}
	said := m.c.out.Pop()
	m.differs = m.differs || said
	m.ignored = m.ignored || o == Uncounted || o == SameContent && !said
	return err
}

// files compares the content of two regular files, of which ch is the change.
func (m *merge) files(ctx context.Context, ch *Change, a, b *member) (Outcome, error) {
	c := m.c
	sizeA, sizeB := a.h.Size, b.h.Size
	if a.lost || b.lost {
		return m.byDigest(ch, a, b)
	}
	if sizeA <= smallFile && sizeB <= smallFile {
		bufA, bufB := grow(c.bufA, sizeA), grow(c.bufB, sizeB)
		_, errA := io.ReadFull(a.content, bufA)
		_, errB := io.ReadFull(b.content, bufB)
		if err := errors.Join(errA, errB); err != nil {
			return Different, err
		}
		c.bufA, c.bufB = bufA, bufB
		if bytes.Equal(bufA, bufB) {
			return nothing, nil
		}
		c.bufA, c.bufB = nil, nil // they are in use below
		defer func() { c.bufA, c.bufB = bufA, bufB }()
		ch.A.Digest, ch.B.Digest = digest.FromBytes(bufA), digest.FromBytes(bufB)
		contentField(ch)
		return c.stored(ctx, ch, part{data: bufA}, part{data: bufB}, m.depth+1)
	}
	return m.large(ctx, ch, a, b)
}

// byDigest compares files of which one could not be kept.
func (m *merge) byDigest(ch *Change, a, b *member) (Outcome, error) {
	for _, side := range []struct {
		f *File
		m *member
	}{{ch.A, a}, {ch.B, b}} {
		if side.f.Digest = side.m.digest; side.f.Digest == "" {
			h := sha256.New()
			if _, err := io.Copy(h, side.m.content); err != nil {
				return Different, err
			}
			side.f.Digest = digest.NewDigest(digest.SHA256, h)
		}
	}
	if ch.A.Digest == ch.B.Digest {
		return nothing, nil
	}
	if !m.c.counts(ch.Path) {
		return Uncounted, nil
	}
	contentField(ch)
	m.c.out.Say()
	return Different, nil
}

// large compares files that do not fit in memory: on the way, unless they are
// archives, which can be opened only when they are known to differ.
func (m *merge) large(ctx context.Context, ch *Change, a, b *member) (Outcome, error) {
	c := m.c
	headA, errA := readHead(a.content)
	headB, errB := readHead(b.content)
	if err := errors.Join(errA, errB); err != nil {
		return Different, err
	}
	ra, rb := io.MultiReader(bytes.NewReader(headA), a.content), io.MultiReader(bytes.NewReader(headB), b.content)
	if c.opts.Depth <= m.depth+1 || !nests(headA) || !nests(headB) || c.spill.size+a.h.Size+b.h.Size > c.opts.MaxSpill {
		l := lockstep{keep: max(headBytes, c.keepFor(ch.Path)), hash: sha256.New()}
		equal, err := l.run(ra, rb)
		if err != nil || equal {
			return nothing, err
		}
		ch.A.Digest, ch.B.Digest = l.digestA, l.digestB
		contentField(ch)
		return c.differing(ch, &l, "", "")
	}
	mark := c.spill.size
	hashA, hashB := sha256.New(), sha256.New()
	pa, errA := c.spill.write(io.TeeReader(ra, hashA))
	pb, errB := c.spill.write(io.TeeReader(rb, hashB))
	if err := errors.Join(errA, errB); err != nil {
		return Different, err
	}
	ch.A.Digest, ch.B.Digest = digest.NewDigest(digest.SHA256, hashA), digest.NewDigest(digest.SHA256, hashB)
	o := nothing
	var err error
	if ch.A.Digest != ch.B.Digest {
		contentField(ch)
		o, err = c.stored(ctx, ch, pa, pb, m.depth+1)
	}
	return o, errors.Join(err, c.spill.cut(mark))
}

// stored compares content that is at hand.
func (c *comparer) stored(ctx context.Context, ch *Change, a, b part, depth int) (Outcome, error) {
	name := lastOf(ch.Path)
	plain := func(p part) Content {
		return Content{Name: name, Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(p.reader()), nil }}
	}
	if depth >= c.opts.Depth { // compared as they are
		var l lockstep
		l.keep = max(headBytes, c.keepFor(ch.Path))
		if _, err := l.run(a.reader(), b.reader()); err != nil {
			return Different, err
		}
		return c.differing(ch, &l, name, name)
	}
	sa, sb, err := c.openBoth(ctx, plain(a), plain(b), false)
	if err != nil {
		if !malformed(err) {
			return Different, err
		}
		var l lockstep // it only began like something compressed
		l.keep = max(headBytes, c.keepFor(ch.Path))
		if _, err := l.run(a.reader(), b.reader()); err != nil {
			return Different, err
		}
		return c.differing(ch, &l, name, name)
	}
	defer sa.close()
	defer sb.close()
	return c.content(ctx, ch, sa, sb, depth)
}

// contentField says that the content differs.
func contentField(ch *Change) {
	if ch.A.Size != ch.B.Size {
		a, b := strconv.FormatInt(ch.A.Size, 10), strconv.FormatInt(ch.B.Size, 10)
		ch.Fields = append(ch.Fields, Field{Name: "size", A: &a, B: &b})
	}
	a, b := string(ch.A.Digest), string(ch.B.Digest)
	ch.Fields = append(ch.Fields, Field{Name: "content", A: &a, B: &b})
}

func readHead(r io.Reader) ([]byte, error) {
	head := make([]byte, 512)
	n, err := fill(r, head)
	return head[:n], err
}

// nests tells whether content that begins so may hold files.
func nests(head []byte) bool {
	f := compress.Detect(head)
	return f == compress.Gzip || f == compress.Zstd || looksLikeTar(head)
}

func grow(buf []byte, size int64) []byte {
	if int64(cap(buf)) < size {
		return make([]byte, size)
	}
	return buf[:size]
}

// An orderCheck finds out whether what both sides have stands in one order.
type orderCheck struct {
	pairs [][2]int32
}

// matched notes that member a of A is member b of B.
func (o *orderCheck) matched(a, b int) {
	o.pairs = append(o.pairs, [2]int32{int32(a), int32(b)}) //nolint:gosec // maxMembers
}

func (o *orderCheck) broken() bool {
	slices.SortFunc(o.pairs, func(x, y [2]int32) int { return int(x[0]) - int(y[0]) })
	return !slices.IsSortedFunc(o.pairs, func(x, y [2]int32) int { return int(x[1]) - int(y[1]) })
}
