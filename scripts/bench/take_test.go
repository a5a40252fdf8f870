package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Both clients count what they get, and neither takes what is cut short, or what
// is no blob at all; one finds wrong bytes.
func TestTake(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 100_000)
	path := "/v2/bench/blobs/" + digest.FromString(content).String()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := content
		switch r.URL.Query().Get("is") {
		case "wrong":
			body = "X" + content[1:]
		case "cut":
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			body = content[:len(content)/2]
		case "none":
			w.WriteHeader(http.StatusNotFound)
		}
		if w.Header().Get("Content-Length") == "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		_, _ = w.Write([]byte(body)) // a client that is done hangs up
	}))
	defer server.Close()
	run := func(how, is string) (int64, error) {
		var out strings.Builder
		err := runPeer(t.Context(), []string{"take", how, "60ms", "2", server.URL + path + "?is=" + is}, nil, &out)
		var sum, ns int64
		if err == nil {
			if _, err := fmt.Sscan(out.String(), &sum, &ns); err != nil || ns < 60e6 {
				t.Errorf("%s: %q: %v", how, &out, err)
			}
		}
		return sum, err
	}
	for _, how := range []string{takeDiscard, takeHash} {
		if sum, err := run(how, "right"); err != nil || sum == 0 {
			t.Errorf("%s: %d bytes, %v", how, sum, err)
		}
		for _, is := range []string{"cut", "none"} {
			if sum, err := run(how, is); err == nil {
				t.Errorf("%s, %s: %d bytes and no error", how, is, sum)
			}
		}
	}
	if _, err := run(takeHash, "wrong"); err == nil || !strings.Contains(err.Error(), "wrong bytes") {
		t.Errorf("wrong bytes: %v", err)
	}
	for is, good := range map[string]bool{"right": true, "wrong": false, "none": false, "cut": false} {
		if err := whole(t.Context(), server.URL+path+"?is="+is, digest.FromString(content).Encoded()); good != (err == nil) {
			t.Errorf("whole, %s: %v", is, err)
		}
	}
}
