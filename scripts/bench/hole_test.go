package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// startHole serves a hole and what counts before it.
func startHole(t *testing.T, dir string) (*hole, *meter, string) {
	t.Helper()
	h, err := newHole(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{next: h, forget: h.reset, latency: time.Millisecond}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	return h, m, server.Listener.Addr().String()
}

// What is pushed is known by digest and size, and what a layout has can be
// pulled, byte for byte.
func TestHole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	if err := makeFlavours(dir, 5, 0); err != nil {
		t.Fatal(err)
	}
	h, m, address := startHole(t, "")
	if err := orasSend(t.Context(), dir, address+"/some/repo", []string{"all"}); err != nil {
		t.Fatal(err)
	}
	repo := h.repos["some/repo"]
	if len(repo.blobs) != 10 || len(repo.manifests) != 6 || len(repo.tags) != 1 || len(repo.uploads) != 0 {
		t.Errorf("%d blobs, %d manifests, %d tags, %d uploads, want 10, 6, 1, 0", len(repo.blobs), len(repo.manifests), len(repo.tags), len(repo.uploads))
	}
	var sent int64
	for d, size := range repo.blobs {
		raw, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		if err != nil || int64(len(raw)) != size {
			t.Errorf("%s has %d bytes, want %d (%v)", d, size, len(raw), err)
		}
		sent += size
	}
	for _, found := range repo.manifests {
		sent += int64(len(found.raw))
	}
	if m.seen.In != sent || m.seen.Kinds["PUT upload"] != 10 || m.seen.Kinds["PUT manifest"] != 5 || m.seen.Kinds["PUT tag"] != 1 {
		t.Errorf("%d bytes in %v, want %d", m.seen.In, m.seen.Kinds, sent)
	}
	total := 0
	for _, n := range m.seen.Kinds {
		total += n
	}
	if total != m.seen.Requests {
		t.Errorf("%d requests, %d by kind", m.seen.Requests, total)
	}

	_, _, address = startHole(t, dir)
	copied := filepath.Join(t.TempDir(), "copy")
	if err := orasFetch(t.Context(), copied, address+"/any", []string{"all"}); err != nil {
		t.Fatal(err)
	}
	l, err := layout.Open(t.Context(), copied, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := layout.Verify(t.Context(), l, nil)
	if err != nil || len(r.Findings) > 0 || r.Documents != 6 || r.Blobs != 16 {
		t.Errorf("%+v %v", r, err)
	}
}

// A hole refuses what a registry refuses.
func TestHoleRefuses(t *testing.T) {
	_, _, address := startHole(t, "")
	base := "http://" + address + "/v2/a/"
	missing := string(digest.FromString("missing"))
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodGet, "tags/list", "", http.StatusNotFound},
		{http.MethodHead, "manifests/" + missing, "", http.StatusNotFound},
		{http.MethodGet, "manifests/none", "", http.StatusNotFound},
		{http.MethodHead, "blobs/" + missing, "", http.StatusNotFound},
		{http.MethodGet, "blobs/" + missing, "", http.StatusNotFound},
		{http.MethodGet, "referrers/" + missing, "", http.StatusNotFound},
		{http.MethodPut, "manifests/" + missing, "other", http.StatusBadRequest},
		{http.MethodPut, "blobs/uploads/9?digest=" + missing, "x", http.StatusNotFound},
		{http.MethodPost, "blobs/uploads/?mount=" + missing + "&from=b", "", http.StatusAccepted},
		{http.MethodPut, "blobs/uploads/1?digest=" + missing, "other", http.StatusBadRequest},
		{http.MethodPost, "blobs/uploads/", "", http.StatusAccepted},
		{http.MethodPatch, "blobs/uploads/2", "miss", http.StatusAccepted},
		{http.MethodPut, "blobs/uploads/2?digest=" + missing, "ing", http.StatusCreated},
		{http.MethodHead, "blobs/" + missing, "", http.StatusOK},
		{http.MethodPost, "blobs/uploads/?mount=" + missing + "&from=a", "", http.StatusCreated},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, base+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.want {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, resp.StatusCode, test.want)
		}
	}
}

// A server tells what it saw, and lasts as long as its stdin.
func TestServe(t *testing.T) {
	stdin, end := io.Pipe()
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- serve([]string{"-latency", "1ms"}, stdin, write) }()
	line := make([]byte, 64)
	n, err := read.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: string(bytes.TrimSpace(line[:n]))}
	resp, err := http.Get("http://" + s.address + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, want := range []int{1, 0} {
		seen, err := s.traffic(t.Context())
		if err != nil || seen.Requests != want {
			t.Errorf("%+v %v, want %d requests", seen, err, want)
		}
	}
	if err := s.forget(t.Context()); err != nil {
		t.Error(err)
	}
	end.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Each state of the flavours is another, in one flavour only.
func TestFlavours(t *testing.T) {
	var before map[digest.Digest]bool
	for state := range 3 {
		dir := t.TempDir()
		if err := makeFlavours(dir, 4, state); err != nil {
			t.Fatal(err)
		}
		now := map[digest.Digest]bool{}
		h, err := newHole(dir)
		if err != nil {
			t.Fatal(err)
		}
		for d, kind := range h.kinds {
			if kind == ocispec.MediaTypeImageManifest {
				now[d] = true
			}
		}
		same := 0
		for d := range now {
			if before[d] {
				same++
			}
		}
		if len(now) != 4 || state > 0 && same != 3 {
			t.Errorf("state %d: %d manifests, %d of them as before", state, len(now), same)
		}
		before = now
	}
}

// TestNeed counts by hand: a push of two tags, whose manifests share one of
// three blobs.
func TestNeed(t *testing.T) {
	n := need{tags: 2, documents: 2, blobs: 3}
	if got := n.push(2); got != 1+2+2+6+2+2+2 {
		t.Errorf("push: %d", got)
	}
	if got := (need{tags: 1, documents: 3, blobs: 2}).push(1); got != 1+1+3+4+1+3 {
		t.Errorf("push of one root: %d", got)
	}
	if got := n.pull(); got != 1+1+2+2+3+1 {
		t.Errorf("pull: %d", got)
	}
}
