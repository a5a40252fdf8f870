package serve_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// A blob in several parts of an archive is hashed once, and again when one of the
// parts has changed, before a byte of it leaves.
func TestPieces(t *testing.T) {
	dir, c := sample(t)
	want := c.Stored[c.Large.Digest]
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(t.TempDir(), "garden.oci")
	if _, err := archive.PackParts(t.Context(), l, file, int64(len(want))/3, nil); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(file + "*")
	if err != nil || len(all) < 4 {
		t.Fatalf("%d files: %v", len(all), err)
	}
	age(t)
	s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", file)}, Poll: -1})
	path := "/v2/garden/blobs/" + string(c.Large.Digest)
	for range 3 {
		if got := s.get(path); got.status != 200 || got.body != want {
			t.Fatalf("status %d, %d bytes, %v", got.status, len(got.body), got.err)
		}
	}
	third := len(want) / 3
	for header, part := range map[string]string{
		"bytes=0-9": want[:10], "bytes=-7": want[len(want)-7:], "bytes=5-5": want[5:6], "bytes=1-": want[1:],
		"bytes=" + strconv.Itoa(third-100) + "-" + strconv.Itoa(2*third+99): want[third-100 : 2*third+100],
	} {
		if got := s.get(path, "Range: "+header); got.status != 206 || got.body != part {
			t.Errorf("%s: status %d, %d bytes, want %d", header, got.status, len(got.body), len(part))
		}
	}
	if got := s.do(http.MethodHead, path); got.status != 200 || got.header.Get("Content-Length") != strconv.Itoa(len(want)) {
		t.Errorf("HEAD: status %d, %v", got.status, got.header)
	}
	if n := s.metric("gloci_serve_verified_blobs_total"); n != 1 {
		t.Errorf("it was hashed %v times", n)
	}

	// Size and mtime stay: the ctime tells.
	middle := all[len(all)/2]
	info, err := os.Stat(middle)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, middle)
	if err := os.Chtimes(middle, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := s.get(path); got.status != 500 {
			t.Errorf("wrong bytes: status %d, %d bytes", got.status, len(got.body))
		}
		age(t)
	}
}
