package sync_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// nothing is a registry that has nothing, and counts what is written.
type nothing struct{ writes atomic.Int32 }

func (n *nothing) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodHead && req.Method != http.MethodGet {
		n.writes.Add(1)
	}
	return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: req}, nil
}

// TestQuirks refuses nested indexes before anything is sent to a registry that
// is known to refuse them.
func TestQuirks(t *testing.T) {
	l := pushtest.NewLayout(t, everything)
	for domain, refuses := range map[string]bool{"quay.io": true, "gcr.io": true, "eu.gcr.io": true, "ghcr.io": false, "quay.io.example.org": false} {
		repo, err := layoutsync.ParseRepository(domain + "/team/app")
		if err != nil {
			t.Fatal(err)
		}
		registry := pushtest.Options(t, nil)
		answers := &nothing{}
		registry.Transport = answers
		_, err = layoutsync.Push(t.Context(), l, repo, &layoutsync.PushOptions{Registry: registry})
		if got := errors.Is(err, layout.ErrInvalid) && strings.Contains(err.Error(), "takes no index in an index"); got != refuses || err == nil {
			t.Errorf("%s: %v", domain, err)
		}
		if refuses != (answers.writes.Load() == 0) {
			t.Errorf("%s: %d requests that write", domain, answers.writes.Load())
		}
	}
}

// TestRefused adds a hint to what a registry says of a nested index.
func TestRefused(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, everything)
	app := string(digestOf(t, l, "1.0"))
	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, app) {
			w.WriteHeader(http.StatusBadRequest)
			return true
		}
		return false
	})
	_, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)})
	var hint *layout.HintError
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "index flatten") {
		t.Errorf("error %v", err)
	}
}
