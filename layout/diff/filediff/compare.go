package filediff

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"hash"
	"hash/maphash"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/diff/internal/explain"
)

// An Outcome says how two contents that are not the same bytes relate.
type Outcome int

// The outcomes of a comparison.
const (
	Different   Outcome = iota // in something that counts
	Uncounted                  // only in what is ignored or left out
	SameContent                // the same bytes once decompressed
)

// sortLimit is how many changes are sorted. More come in the order in which they
// are found.
const sortLimit = 10_000

// Compare yields the differences of two contents. The first change has no Path:
// it is the content as a whole, and what is found in it follows, sorted by path
// unless there are more than 10,000 changes. If nothing counts, there is
// no change. outcome, which may be nil, is set when the sequence ends.
//
// An error ends the sequence: content that could not be read, or is not what its
// digest says. Content that is whole but no good archive is a change with the
// field "unreadable".
func Compare(ctx context.Context, a, b Content, opts *Options, outcome *Outcome) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		c := newComparer(opts)
		out := sorter{yield: func(ch Change) bool { return yield(ch, nil) }}
		c.out = explain.New(out.add)
		o, err := c.whole(ctx, a, b)
		err = errors.Join(err, c.spill.close())
		if !out.flush() {
			return
		}
		if outcome != nil {
			*outcome = o
		}
		if err != nil && !errors.Is(err, errEnded) {
			yield(Change{}, err)
		}
	}
}

// Same tells whether two contents are the same bytes once decompressed. It reads
// no further than the first difference. What cannot be decompressed is not the
// same.
func Same(ctx context.Context, a, b Content) (bool, error) {
	c := newComparer(nil)
	sa, sb, err := c.openBoth(ctx, a, b, true)
	if malformed(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer sa.close()
	defer sb.close()
	if sa.format == 0 && sb.format == 0 {
		return false, nil // both are stored as they are, and differ
	}
	l := lockstep{first: true}
	equal, err := l.run(sa, sb)
	if err != nil {
		if err = errors.Join(sa.explain(err), sb.explain(err)); malformed(err) {
			return false, nil
		}
	}
	return equal, err
}

var errEnded = errors.New("nobody listens")

// A sorter holds changes back so that they can be sorted.
type sorter struct {
	yield   func(Change) bool
	held    []Change
	through bool // there are too many
	ended   bool
}

func (s *sorter) add(ch *Change) bool {
	if s.through {
		s.ended = s.ended || !s.yield(*ch)
		return !s.ended
	}
	if s.held = append(s.held, *ch); len(s.held) > sortLimit {
		s.through = true
		for _, h := range s.held { // as they were found
			if s.ended = s.ended || !s.yield(h); s.ended {
				break
			}
		}
		s.held = nil
	}
	return !s.ended
}

func (s *sorter) flush() bool {
	slices.SortStableFunc(s.held, func(x, y Change) int {
		for i := range min(len(x.Path), len(y.Path)) {
			if c := comparePaths(x.Path[i], y.Path[i]); c != 0 {
				return c
			}
		}
		return cmp.Compare(len(x.Path), len(y.Path))
	})
	for _, h := range s.held {
		if s.ended = s.ended || !s.yield(h); s.ended {
			break
		}
	}
	return !s.ended
}

// A comparer does one [Compare].
type comparer struct {
	opts  Options
	top   []string // the names of the contents as a whole
	out   *explain.Stack[*Change]
	seed  maphash.Seed
	spill spill
	held  int64 // bytes that wait in memory
	bufA  []byte
	bufB  []byte
}

func newComparer(opts *Options) *comparer {
	c := &comparer{seed: maphash.MakeSeed()}
	if opts != nil {
		c.opts = *opts
	}
	c.opts.MaxText = cmp.Or(c.opts.MaxText, 1<<20)
	c.opts.Depth = cmp.Or(c.opts.Depth, 4)
	c.opts.Memory = cmp.Or(c.opts.Memory, 32<<20)
	c.opts.MaxSpill = cmp.Or(c.opts.MaxSpill, 4<<30)
	c.spill.dir = c.opts.TempDir
	return c
}

func (c *comparer) whole(ctx context.Context, a, b Content) (Outcome, error) {
	for _, name := range []string{a.Name, b.Name} {
		if name != "" {
			c.top = append(c.top, name)
		}
	}
	top := &Change{Kind: Changed}
	c.out.Push(top)
	defer c.out.Pop()
	sa, sb, err := c.openBoth(ctx, a, b, true)
	if err != nil {
		if malformed(err) {
			return c.unreadable(top, err), nil
		}
		return Different, err
	}
	defer sa.close()
	defer sb.close()
	return c.content(ctx, top, sa, sb, 0)
}

func (c *comparer) openBoth(ctx context.Context, a, b Content, parallel bool) (sa, sb *stream, err error) {
	if sa, err = open(ctx, a, c.seed, parallel); err != nil {
		return nil, nil, err
	}
	if sb, err = open(ctx, b, c.seed, parallel); err != nil {
		sa.close()
		return nil, nil, err
	}
	return sa, sb, nil
}

func (c *comparer) unreadable(ch *Change, err error) Outcome {
	text := err.Error()
	ch.Fields = append(ch.Fields, Field{Name: "unreadable", A: &text, B: &text})
	c.out.Say()
	return Different
}

// content compares two contents, of which ch, the last heading, is the change.
// They are known to differ as they are stored.
func (c *comparer) content(ctx context.Context, ch *Change, a, b *stream, depth int) (Outcome, error) {
	o, err := c.decompressed(ctx, ch, a, b, depth)
	if err == nil {
		err = errors.Join(a.finish(), b.finish())
	}
	if err != nil {
		if !malformed(err) {
			return o, err
		}
		a.stop()
		b.stop()
		if err := errors.Join(hard(a.explain(err)), hard(b.explain(err))); err != nil {
			return o, err
		}
		return c.unreadable(ch, err), nil
	}
	if o == Different {
		return o, nil
	}
	filtered := len(c.opts.Only)+len(c.opts.Exclude) > 0 // then nobody knows what else differs
	if o == Uncounted && a.format != b.format && !c.opts.Ignore.Compression && !filtered {
		ch.Kind = Recompressed
		c.out.Say()
		return Different, nil
	}
	if same(a, b) {
		if a.format == b.format && a.format == 0 {
			return SameContent, nil // stored contents that are equal: nothing to tell
		}
		if !c.opts.Ignore.Compression && c.counts(ch.Path) {
			ch.Kind = Recompressed
			c.out.Say()
		}
		return SameContent, nil
	}
	if o == Uncounted || c.opts.Ignore.Encoding || !c.counts(ch.Path) {
		return Uncounted, nil
	}
	// The same files, and other bytes around them.
	text := "other bytes of the archive itself"
	ch.Fields = append(ch.Fields, Field{Name: "encoding", A: &text, B: &text})
	c.out.Say()
	return Different, nil
}

func hard(err error) error {
	if malformed(err) {
		return nil
	}
	return err
}

// nothing is the outcome where no difference was found at all.
const nothing Outcome = -1

func (c *comparer) decompressed(ctx context.Context, ch *Change, a, b *stream, depth int) (Outcome, error) {
	tarA, tarB := a.isTar(), b.isTar()
	if c.opts.Depth > depth && (tarA && tarB || tarA && b.isEmpty() || a.isEmpty() && tarB) {
		return c.archives(ctx, ch.Path, a, b, depth)
	}
	return c.blobs(ch, a, b)
}

// A lockstep reads two streams side by side.
type lockstep struct {
	rangeFinder
	keepA, keepB     []byte // the beginnings
	keep             int
	sizeA, sizeB     int64
	first            bool      // stop at the first difference
	hash             hash.Hash // of what both have in common; nil if nobody asks
	hashA, hashB     hash.Hash // once they differ
	digestA, digestB digest.Digest
}

// run reads both to the end and tells whether they are equal.
func (l *lockstep) run(a, b io.Reader) (bool, error) {
	const size = 128 << 10
	bufA, bufB := make([]byte, size), make([]byte, size)
	equal := true
	for {
		na, errA := fill(a, bufA)
		nb, errB := fill(b, bufB)
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
		l.sizeA, l.sizeB = l.sizeA+int64(na), l.sizeB+int64(nb)
		chunkA, chunkB := bufA[:na], bufB[:nb]
		l.keepA = appendUpTo(l.keepA, chunkA, l.keep)
		l.keepB = appendUpTo(l.keepB, chunkB, l.keep)
		if equal && !bytes.Equal(chunkA, chunkB) {
			equal = false
			if l.first {
				return false, nil
			}
			if l.hash != nil {
				var err error
				if l.hashA, l.hashB, err = fork(l.hash); err != nil {
					return false, err
				}
			}
		}
		n := min(na, nb)
		l.compare(chunkA[:n], chunkB[:n])
		switch {
		case l.hash == nil:
		case equal:
			_, _ = l.hash.Write(chunkA) // never fails
		default:
			_, _ = l.hashA.Write(chunkA)
			_, _ = l.hashB.Write(chunkB)
		}
		if na < size && nb < size {
			break
		}
	}
	if l.hash != nil && !equal {
		l.digestA, l.digestB = digest.NewDigest(digest.SHA256, l.hashA), digest.NewDigest(digest.SHA256, l.hashB)
	}
	return equal, nil
}

// fork returns two hashes that go on where h is.
func fork(h hash.Hash) (a, b hash.Hash, err error) {
	cloner, ok := h.(hash.Cloner)
	if !ok {
		return nil, nil, errors.New("a hash that cannot be cloned")
	}
	clone, err := cloner.Clone()
	return h, clone, err
}

// fill reads until buf is full or r ends.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	if err == io.EOF { // a wrapped one is no end
		err = nil
	}
	return n, err
}

func appendUpTo(kept, data []byte, limit int) []byte {
	return append(kept, data[:min(len(data), max(limit-len(kept), 0))]...)
}

// blobs compares two streams byte by byte.
func (c *comparer) blobs(ch *Change, a, b *stream) (Outcome, error) {
	l := lockstep{keep: max(headBytes, c.keepFor(ch.Path, a.name, b.name))}
	equal, err := l.run(a, b)
	if err != nil {
		return Different, err
	}
	if equal {
		return nothing, nil
	}
	return c.differing(ch, &l, a.name, b.name)
}

// keepFor is how much of a content has to be at hand when it differs.
func (c *comparer) keepFor(path []string, names ...string) int {
	keep := 0
	if c.opts.Text {
		keep = int(c.opts.MaxText) + 1
	}
	for _, name := range append(names, lastOf(path)) {
		if packageFormat(name) != "" {
			keep = maxPackageList + 1
		}
	}
	return keep
}

func lastOf(path []string) string {
	if len(path) == 0 {
		return ""
	}
	return path[len(path)-1]
}

// differing says how two contents that were compared byte by byte differ.
func (c *comparer) differing(ch *Change, l *lockstep, nameA, nameB string) (Outcome, error) {
	if !c.counts(ch.Path) {
		return Uncounted, nil
	}
	locate(l.ranges, l.keepA[:min(len(l.keepA), headBytes)], l.keepB[:min(len(l.keepB), headBytes)])
	if l.sizeA == l.sizeB && l.onlyTimeStamp() {
		if c.opts.Ignore.Times {
			return Uncounted, nil
		}
	}
	ch.Ranges, ch.Differing = l.ranges, l.differing
	if c.opts.Text {
		ch.Text = unified(ch.Path, nameA, nameB, l, int(c.opts.MaxText))
	}
	c.out.Say()
	c.packages(ch.Path, l, nameA, nameB)
	if c.out.Ended() {
		return Different, errEnded
	}
	return Different, nil
}

// counts tells whether the globs let the file at the end of path count. The
// content as a whole stands above it, under both of its names.
func (c *comparer) counts(path []string) bool {
	if len(c.opts.Only)+len(c.opts.Exclude) == 0 {
		return true
	}
	return c.opts.counts(append(slices.Clone(c.top), path...))
}

func isText(data []byte) bool {
	return !bytes.ContainsFunc(data, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\n\r\f\b\x1b", r) || r == '�' })
}
