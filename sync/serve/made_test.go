package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/delta"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// A workshop makes large blobs, as patches do: it has no file for them.
type workshop struct {
	mu    sync.Mutex
	made  map[digest.Digest]int
	gate  chan struct{} // if there is one, the second half of a blob waits for it
	wrong bool          // it makes wrong bytes at the end
}

// smallest is the size of the smallest blob that a workshop makes.
const smallest = 64 << 10

// product is a source whose large blobs are made.
type product struct {
	layout.Source
	w *workshop
}

func (p product) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := p.Source.Blob(ctx, desc)
	if err != nil || desc.Size < smallest {
		return rc, err
	}
	w := p.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made[desc.Digest]++
	return layout.VerifyReader(ctx, &work{rc, ctx, desc.Size, desc.Size / 2, w.gate, w.wrong}, desc), nil
}

func (w *workshop) count(d digest.Digest) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[d]
}

func (w *workshop) set(gate chan struct{}, wrong bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate, w.wrong = gate, wrong
}

type work struct {
	io.ReadCloser
	ctx        context.Context
	left, half int64
	gate       chan struct{}
	wrong      bool
}

func (r *work) Read(p []byte) (int, error) {
	if r.left > r.half {
		p = p[:min(int64(len(p)), r.left-r.half)]
	} else if r.gate != nil {
		select {
		case <-r.gate:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	n, err := r.ReadCloser.Read(p)
	if r.left -= int64(n); r.left == 0 && n > 0 && r.wrong {
		p[n-1] ^= 1
	}
	return n, err
}

// startWorkshop serves layers that have to be made.
func startWorkshop(t *testing.T, opts serve.Options, contents ...string) (*server, *workshop, []digest.Digest) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "garden")
	digests := layers(t, dir, contents...)
	w := &workshop{made: map[digest.Digest]int{}}
	src := fromPath("garden", dir)
	open := src.Open
	src.Open = func(ctx context.Context) (layout.Source, error) {
		l, err := open(ctx)
		return product{l, w}, err
	}
	opts.Sources = []serve.Source{src}
	return start(t, opts), w, digests
}

// some returns size bytes, no two lines of 16 the same.
func some(n, size int) string {
	b := make([]byte, 0, size)
	for i := range size / 16 {
		b = fmt.Appendf(b, "%03d %011d\n", n, i)
	}
	return string(b)
}

func blobPath(d digest.Digest) string { return "/v2/garden/blobs/" + string(d) }

// limits are those of Options.VerifyLimit: all is made before the first byte leaves,
// or sent while it is made.
var limits = map[string]int64{"before": 1 << 30, "on the way": 1}

// Whoever asks, at once or later, for all or a part: a blob is made once, and
// temporary files have no names.
func TestMadeOnce(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for name, limit := range limits {
		content := some(1, 1<<20)
		s, w, digests := startWorkshop(t, serve.Options{VerifyLimit: limit}, content)
		path := blobPath(digests[0])
		if got := s.do(http.MethodHead, path); got.status != 200 || w.count(digests[0]) != 0 {
			t.Errorf("%s: HEAD: status %d, made %d times", name, got.status, w.count(digests[0]))
		}
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				if i%3 == 0 {
					if got := s.get(path); got.status != 200 || got.body != content || got.err != nil {
						t.Errorf("%s: status %d, %d bytes, %v", name, got.status, len(got.body), got.err)
					}
				}
				from, to := i*30_000, i*30_000+i*1000
				got := s.get(path, fmt.Sprintf("Range: bytes=%d-%d", from, to))
				if got.status != 206 || got.body != content[from:to+1] || got.err != nil {
					t.Errorf("%s: %d-%d: status %d, %d bytes, %v", name, from, to, got.status, len(got.body), got.err)
				}
			})
		}
		wg.Wait()
		checkRanges(t, s, path, content)
		if n := w.count(digests[0]); n != 1 {
			t.Errorf("%s: it was made %d times", name, n)
		}
		for metric, want := range map[string]int64{"made_blobs_total": 1, "made_files": 1, "made_bytes": 1 << 20, "made_failures_total": 0, "made_evictions_total": 0, "verified_blobs_total": 1} {
			if n := s.metric("gloci_serve_" + metric); n != want {
				t.Errorf("%s: %s is %d, want %d", name, metric, n, want)
			}
		}
		if entries, err := os.ReadDir(temp); err != nil || len(entries) > 0 {
			t.Errorf("%s: in TMPDIR are %v, %v", name, entries, err)
		}
	}
}

// begin reads n bytes of a blob, and returns how to read the rest, and how to go
// away.
func (s *server) begin(path string, n int, headers ...string) (head string, rest func() (string, error), leave func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(resp.Body, b); err != nil {
		s.t.Fatal(err)
	}
	rest = func() (string, error) {
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		return string(b), err
	}
	return string(b), rest, func() { cancel(); resp.Body.Close() }
}

// Those who come while a large blob is made get what is there, and the end when all
// of it was found right; whoever goes away ends nothing for the others.
func TestMadeIsFollowed(t *testing.T) {
	content := some(1, 2<<20)
	s, w, digests := startWorkshop(t, serve.Options{VerifyLimit: 1}, content)
	gate := make(chan struct{})
	w.set(gate, false)
	path := blobPath(digests[0])
	_, _, leave := s.begin(path, 500_000) // who causes it
	head, rest, _ := s.begin(path, 800_000)
	part, restOfPart, _ := s.begin(path, 100_000, "Range: bytes=100000-399999")
	leave()
	ended := make(chan bool)
	go func() {
		defer close(ended)
		more, err := restOfPart()
		if part += more; err != nil || part != content[100_000:400_000] {
			t.Errorf("the part: %d bytes, %v", len(part), err)
		}
	}()
	select {
	case <-ended:
		t.Error("a part came whole before all was found right")
	case <-time.After(100 * time.Millisecond):
	}
	close(gate)
	<-ended
	more, err := rest()
	if head += more; err != nil || head != content {
		t.Errorf("the whole: %d bytes, %v", len(head), err)
	}
	if got := s.get(path); got.body != content || w.count(digests[0]) != 1 {
		t.Errorf("afterwards: status %d, %d bytes, made %d times", got.status, len(got.body), w.count(digests[0]))
	}
}

// A blob is made to its end though the client that caused it is gone; one that
// still waits for its turn is not begun.
func TestMadeForNobody(t *testing.T) {
	jobs := runtime.GOMAXPROCS(0)
	var contents []string
	for i := range jobs + 1 {
		contents = append(contents, some(i, 1<<20))
	}
	s, w, digests := startWorkshop(t, serve.Options{VerifyLimit: 1}, contents...)
	gate := make(chan struct{})
	w.set(gate, false)
	var leave []func()
	for _, d := range digests[:jobs] {
		_, _, left := s.begin(blobPath(d), 100_000)
		leave = append(leave, left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+blobPath(digests[jobs]), nil)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan bool)
	go func() {
		defer close(gone)
		if resp, err := http.DefaultClient.Do(r); err == nil {
			resp.Body.Close()
			t.Errorf("more than %d blobs are made at once", jobs)
		}
	}()
	// They, the one that waits, and the one that asks for the metrics.
	eventually(t, "all ask", func() bool { return s.metric("gloci_serve_requests_in_flight") == int64(jobs)+2 })
	cancel()
	<-gone
	eventually(t, "the client is gone", func() bool { return strings.Contains(s.log.String(), "status=499") })
	for _, left := range leave {
		left()
	}
	close(gate)
	eventually(t, "all are made", func() bool { return s.metric("gloci_serve_made_files") == int64(jobs) })
	if n := w.count(digests[jobs]); n != 0 {
		t.Errorf("what nobody waits for was made %d times", n)
	}
	for i, d := range digests {
		if got := s.get(blobPath(d)); got.body != contents[i] || w.count(d) != 1 {
			t.Errorf("blob %d: status %d, made %d times", i, got.status, w.count(d))
		}
	}
}

// What is made wrong is never a whole response, for nobody who asks for it.
func TestMadeWrong(t *testing.T) {
	for name, limit := range limits {
		content := some(1, 1<<20)
		s, w, digests := startWorkshop(t, serve.Options{VerifyLimit: limit}, content)
		path := blobPath(digests[0])
		gate := make(chan struct{})
		w.set(gate, true)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				var headers []string
				if i%2 == 1 {
					headers = []string{fmt.Sprintf("Range: bytes=%d-", i*100_000)}
				}
				got := s.get(path, headers...)
				if got.status != 500 && (limit > 1 || got.err == nil) {
					t.Errorf("%s: status %d, %d bytes, %v", name, got.status, len(got.body), got.err)
				}
			})
		}
		eventually(t, "all ask", func() bool { return s.metric("gloci_serve_requests_in_flight") >= 9 })
		close(gate)
		wg.Wait()
		if log := s.log.String(); !strings.Contains(log, "does not match its digest") || !strings.Contains(log, string(digests[0])) {
			t.Errorf("%s: no word of it in the log:\n%.2000s", name, log)
		}
		if n, damaged, kept := w.count(digests[0]), s.metric("gloci_serve_damaged_blobs_total"), s.metric("gloci_serve_made_files"); n < 1 || damaged != int64(n) || kept != 0 {
			t.Errorf("%s: made %d times, %d damaged, %d kept", name, n, damaged, kept)
		}
		w.set(nil, false)
		if got := s.get(path); got.status != 200 || got.body != content {
			t.Errorf("%s: made right: status %d, %d bytes, %v", name, got.status, len(got.body), got.err)
		}
	}
}

// Files that nobody uses make way for others; the sum of all is bounded, and what
// finds no room is made for each request.
func TestMadeLimit(t *testing.T) {
	var contents []string
	for i := range 3 {
		contents = append(contents, some(i, 1<<20))
	}
	contents = append(contents, some(9, 4<<20)) // too large
	s, w, digests := startWorkshop(t, serve.Options{VerifyLimit: 1, MadeLimit: 5 << 19}, contents...)
	get := func(i, made int) {
		t.Helper()
		if got := s.get(blobPath(digests[i])); got.status != 200 || got.body != contents[i] || w.count(digests[i]) != made {
			t.Errorf("blob %d: status %d, %d bytes, %v; made %d times, want %d", i, got.status, len(got.body), got.err, w.count(digests[i]), made)
		}
		if n := s.metric("gloci_serve_made_bytes"); n > 5<<19 {
			t.Errorf("the files have %d bytes", n)
		}
	}
	get(0, 1)
	get(1, 1)
	get(0, 1)
	get(2, 1) // in the place of 1
	get(0, 1)
	get(1, 2) // in the place of 2
	get(3, 1)
	get(3, 2)
	if n := s.metric("gloci_serve_made_evictions_total"); n != 2 {
		t.Errorf("%d files made way, want 2", n)
	}

	s, w, digests = startWorkshop(t, serve.Options{VerifyLimit: 1, MadeLimit: 3 << 19}, contents...)
	gate := make(chan struct{})
	w.set(gate, false)
	head, rest, _ := s.begin(blobPath(digests[1]), 300_000)
	w.set(nil, false)
	get(0, 1)
	get(0, 2) // the one file is in use
	close(gate)
	if more, err := rest(); err != nil || head+more != contents[1] {
		t.Errorf("%d bytes, %v", len(head)+len(more), err)
	}
	get(1, 1) // it did not make way
	get(0, 3)
	get(0, 3)

	s, w, digests = startWorkshop(t, serve.Options{MadeLimit: -1}, contents...)
	get(0, 1)
	get(0, 2)
}

// When a source is loaded anew, what was made of the old one is not used for it.
func TestMadeIsDropped(t *testing.T) {
	content := some(1, 1<<20)
	s, w, digests := startWorkshop(t, serve.Options{}, content)
	path := blobPath(digests[0])
	for i := range 3 {
		for range 2 {
			if got := s.get(path); got.body != content || w.count(digests[0]) != i+1 {
				t.Errorf("load %d: status %d, %d bytes; made %d times", i, got.status, len(got.body), w.count(digests[0]))
			}
		}
		if err := s.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if files, bytes := s.metric("gloci_serve_made_files"), s.metric("gloci_serve_made_bytes"); files != 0 || bytes != 0 {
			t.Errorf("%d files, %d bytes are left", files, bytes)
		}
	}
}

// Without room for a temporary file a blob is made for each request, as far as it
// has not come yet, and the log says so once.
func TestMadeWithoutRoom(t *testing.T) {
	check := func(name string) {
		for how, limit := range limits {
			content := some(1, 4<<20)
			s, w, digests := startWorkshop(t, serve.Options{VerifyLimit: limit}, content)
			path := blobPath(digests[0])
			for range 3 {
				if got := s.get(path); got.status != 200 || got.body != content || got.err != nil {
					t.Errorf("%s, %s: status %d, %d bytes, %v", name, how, got.status, len(got.body), got.err)
				}
				if got := s.get(path, "Range: bytes=3000000-3999999"); got.status != 206 || got.body != content[3_000_000:4_000_000] || got.err != nil {
					t.Errorf("%s, %s: range: status %d, %d bytes, %v", name, how, got.status, len(got.body), got.err)
				}
			}
			if n := strings.Count(s.log.String(), "is not kept for now"); n != 1 {
				t.Errorf("%s, %s: %d lines in the log", name, how, n)
			}
			if n := w.count(digests[0]); n < 6 {
				t.Errorf("%s, %s: made %d times", name, how, n)
			}
			if n := s.metric("gloci_serve_made_failures_total"); n != 1 {
				t.Errorf("%s, %s: %d failures", name, how, n)
			}
			if n := s.metric("gloci_serve_made_bytes"); n != 0 {
				t.Errorf("%s, %s: %d bytes are taken", name, how, n)
			}
		}
	}
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	check("no directory")
	full := filepath.Join(t.TempDir(), "full")
	smallDisk(t, full, 3<<20)
	t.Setenv("TMPDIR", full)
	check("a full disk")
	serve.Unreserved(t)
	check("a disk that gets full")
}

// Files that nobody uses make way for others on a small disk, too.
func TestMadeOnASmallDisk(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	smallDisk(t, disk, 5<<19)
	t.Setenv("TMPDIR", disk)
	contents := []string{some(0, 1<<20), some(1, 1<<20), some(2, 1<<20)}
	s, w, digests := startWorkshop(t, serve.Options{}, contents...)
	for _, i := range []int{0, 1, 0, 2, 0} {
		if got := s.get(blobPath(digests[i])); got.body != contents[i] || w.count(digests[i]) != 1 {
			t.Errorf("blob %d: status %d, %d bytes, made %d times", i, got.status, len(got.body), w.count(digests[i]))
		}
	}
	if n := s.metric("gloci_serve_made_evictions_total"); n != 1 {
		t.Errorf("%d files made way, want 1", n)
	}
}

// What patches make of a base, of compressed content too, is what they were made
// of. If the base is damaged, nothing wrong comes; what was made before is right.
func TestMadeOfPatches(t *testing.T) {
	var lines strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&lines, "%x ", i*i*7919)
	}
	was := lines.String()
	is := was[:200_000] + "something else" + was[200_001:]
	base, next := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "next")
	old := layers(t, base, was, gzipped(t, was+"."))
	contents := []string{is, gzipped(t, is+".")}
	digests := layers(t, next, contents...)
	file := filepath.Join(t.TempDir(), "garden.oci")
	packDelta(t, next, base, file)
	src := serve.Source{Name: "garden", Files: []string{file}, Open: func(ctx context.Context) (layout.Source, error) {
		a, err := archive.Open(ctx, file, nil)
		if err != nil {
			return nil, err
		}
		l, err := layout.Open(ctx, base, nil)
		if err != nil {
			return nil, err
		}
		return delta.Open(ctx, a, l)
	}}
	s := start(t, serve.Options{Sources: []serve.Source{src}})
	for range 2 {
		for i, d := range digests {
			if got := s.get(blobPath(d)); got.status != 200 || got.body != contents[i] {
				t.Errorf("blob %d: status %d, %d bytes, %v", i, got.status, len(got.body), got.err)
			}
			checkRanges(t, s, blobPath(d), contents[i])
		}
	}
	if n := s.metric("gloci_serve_made_blobs_total"); n != 2 {
		t.Errorf("%d were made, want 2", n)
	}
	for _, d := range old {
		flip(t, blobFile(base, d))
	}
	for i, d := range digests {
		if got := s.get(blobPath(d)); got.status != 200 || got.body != contents[i] {
			t.Errorf("made before, blob %d: status %d, %d bytes, %v", i, got.status, len(got.body), got.err)
		}
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, d := range digests {
		if got := s.get(blobPath(d)); got.status != 500 {
			t.Errorf("of a damaged base, blob %d: status %d, %d bytes", i, got.status, len(got.body))
		}
	}
	if !strings.Contains(s.log.String(), "level=ERROR") {
		t.Errorf("no word of it in the log:\n%.2000s", s.log)
	}
}

func gzipped(t *testing.T, content string) string {
	t.Helper()
	var b strings.Builder
	w, err := compress.NewWriter(&b, compress.Gzip, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(w, content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// packDelta packs dir as patches of what is in base.
func packDelta(t *testing.T, dir, base, file string) {
	t.Helper()
	var opened []layout.Source
	for _, dir := range []string{dir, base} {
		l, err := layout.Open(t.Context(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		opened = append(opened, l)
	}
	has, err := delta.Take(t.Context(), opened[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.PackFile(t.Context(), opened[0], file, &archive.PackOptions{Base: has, Bases: opened[1:]}); err != nil {
		t.Fatal(err)
	}
}
