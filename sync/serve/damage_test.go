package serve_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// Wrong bytes never come as a whole response: small blobs are 500 before a byte
// has left, large ones break the connection, whichever part is asked for, the
// first time and again.
func TestDamage(t *testing.T) {
	forms(t, func(t *testing.T, open func(t *testing.T, dir string) serve.Source) {
		for _, limit := range []int64{1 << 30, 1} { // hashed before, and on the way
			for _, at := range []string{"first", "last"} {
				dir, c := sample(t)
				for _, d := range []digest.Digest{c.Layer.Digest, c.Large.Digest, c.Long.Digest} {
					b := []byte(c.Stored[d])
					b[map[string]int{"first": 0, "last": len(b) - 1}[at]] ^= 1
					writeFile(t, blobFile(dir, d), string(b))
				}
				s := start(t, serve.Options{Sources: []serve.Source{open(t, dir)}, VerifyLimit: limit})
				for range 2 {
					for _, d := range []digest.Digest{c.Layer.Digest, c.Large.Digest, c.Long.Digest} {
						for _, header := range []string{"", "Range: bytes=1-3", "Range: bytes=-2", "Range: bytes=0-"} {
							var headers []string
							if header != "" {
								headers = []string{header}
							}
							got := s.get("/v2/garden/blobs/"+string(d), headers...)
							if got.status < 500 && got.err == nil {
								t.Errorf("limit %d, %s byte of %s, %q: status %d and %d bytes, no error", limit, at, d, header, got.status, len(got.body))
							}
						}
					}
					age(t)
				}
				if log := s.log.String(); !strings.Contains(log, "does not match its digest") || !strings.Contains(log, string(c.Layer.Digest)) {
					t.Errorf("no word of it in the log:\n%.2000s", log)
				}
				if got := s.get("/v2/garden/blobs/" + string(c.Config.Digest)); got.status != 200 {
					t.Errorf("a sound blob beside: status %d", got.status)
				}
			}
			if testing.Short() {
				return
			}
		}
	})
}

// A file that changes after it was verified is verified again; whoever comes for
// the old bytes gets an error, also where size and time stay.
func TestChangedAfterVerified(t *testing.T) {
	dir, c := sample(t)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	path := "/v2/garden/blobs/" + string(c.Large.Digest)
	file := blobFile(dir, c.Large.Digest)
	age(t)
	for range 3 {
		if got := s.get(path); got.status != 200 || got.body != c.Stored[c.Large.Digest] {
			t.Fatalf("status %d, %d bytes", got.status, len(got.body))
		}
	}
	if n := s.metric("gloci_serve_verified_blobs_total"); n != 1 {
		t.Errorf("a blob was hashed %v times, want 1", n)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, file)
	if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil { // the ctime tells
		t.Fatal(err)
	}
	if got := s.get(path); got.status != 500 {
		t.Errorf("changed: status %d, %d bytes", got.status, len(got.body))
	}
	flip(t, file)
	if got := s.get(path); got.status != 200 || got.body != c.Stored[c.Large.Digest] {
		t.Errorf("changed back: status %d, %d bytes", got.status, len(got.body))
	}
}

// Many who ask at once for a blob that was never verified make the server hash
// it once or, at most, as often as it takes to be sure of a new file.
func TestHashedOnce(t *testing.T) {
	dir, c := sample(t)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
	age(t)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			header := fmt.Sprintf("Range: bytes=%d-", i*100)
			if got := s.get("/v2/garden/blobs/"+string(c.Large.Digest), header); got.status != 206 || got.body != c.Stored[c.Large.Digest][i*100:] {
				t.Errorf("%s: status %d, %d bytes, %v", header, got.status, len(got.body), got.err)
			}
		})
	}
	wg.Wait()
	if n := s.metric("gloci_serve_verified_blobs_total"); n != 1 {
		t.Errorf("hashed %d times, want 1", n)
	}
}

// A client that was cut off in the middle of a large blob goes on with a Range.
func TestResume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "garden")
	content := strings.Repeat("0123456789abcdef", 20<<20/16)
	large := bigLayer(t, dir, content)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}, VerifyLimit: 1 << 20})
	path := "/v2/garden/blobs/" + string(large)
	ctx, cut := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5<<20)
	_, err = io.ReadFull(resp.Body, head)
	cut()
	resp.Body.Close()
	if err != nil || string(head) != content[:len(head)] {
		t.Fatalf("the first part: %v", err)
	}
	for range 2 {
		got := s.get(path, fmt.Sprintf("Range: bytes=%d-", len(head)), `If-Range: "`+string(large)+`"`)
		if got.status != 206 || got.body != content[len(head):] {
			t.Fatalf("the rest: status %d, %d bytes, %v", got.status, len(got.body), got.err)
		}
	}
	if got := s.get(path); got.body != content {
		t.Errorf("the whole: status %d, %d bytes, %v", got.status, len(got.body), got.err)
	}
}

// Who is in the middle of a blob gets the rest of it though its file loses its
// name, and nobody takes for whole what was written over meanwhile.
func TestFileGoesWhileSent(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 24<<20/16)
	for name, tt := range map[string]struct {
		disturb func(file string) error
		whole   bool
	}{
		"removed": {os.Remove, true},
		"renamed over": {func(file string) error {
			return errors.Join(os.WriteFile(file+".new", []byte("new"), 0o644), os.Rename(file+".new", file))
		}, true},
		"written": {func(file string) error {
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("X"), int64(len(content)-9))
			return errors.Join(err, f.Close())
		}, false},
	} {
		disturbed := func(t *testing.T, far bool) {
			if far && testing.Short() {
				t.Skip("slow with the race detector, for which the other way is enough")
			}
			dir := filepath.Join(t.TempDir(), "garden")
			large := bigLayer(t, dir, content)
			s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
			if far {
				s.Far()
			}
			age(t)
			path := "/v2/garden/blobs/" + string(large)
			if got := s.get(path); got.body != content {
				t.Fatalf("status %d, %d bytes", got.status, len(got.body))
			}
			conn := s.dial("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			head := make([]byte, 1<<20)
			if _, err := io.ReadFull(resp.Body, head); err != nil {
				t.Fatal(err)
			}
			if err := tt.disturb(blobFile(dir, large)); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(resp.Body)
			got := string(head) + string(rest)
			if tt.whole != (err == nil && got == content) || err == nil && got != content {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
		t.Run(name, func(t *testing.T) { disturbed(t, false) })
		t.Run(name+", client elsewhere", func(t *testing.T) { disturbed(t, true) })
	}
}

// Clients on this machine get copies, as many at once as there are buffers; the
// others, and those elsewhere, what the kernel sends. The bytes are the same.
func TestNearAndFar(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "garden")
	content := strings.Repeat("0123456789abcdef", 3<<20/16) + "the end"
	large := bigLayer(t, dir, content)
	for _, far := range []bool{false, true} {
		s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", dir)}})
		if far {
			s.Far()
		}
		path := "/v2/garden/blobs/" + string(large)
		var wg sync.WaitGroup
		for i := range 2 * serve.Near {
			wg.Go(func() {
				if got := s.get(path); got.status != 200 || got.body != content {
					t.Errorf("far %v: status %d, %d bytes, %v", far, got.status, len(got.body), got.err)
				}
				from, to := 100_000*(i%8), len(content)-1-i
				if got := s.get(path, fmt.Sprintf("Range: bytes=%d-%d", from, to)); got.status != 206 || got.body != content[from:to+1] {
					t.Errorf("far %v: range: status %d, %d bytes, %v", far, got.status, len(got.body), got.err)
				}
			})
		}
		wg.Wait()
	}
}
