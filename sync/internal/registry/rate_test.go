package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type echo struct{}

func (echo) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if req.Body != nil {
		if _, err := io.Copy(rec, req.Body); err != nil {
			return nil, err
		}
	}
	return rec.Result(), nil
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, size = 100 << 10, 1 << 20
		rt := (&Options{Rate: rate}).limit(echo{})[0]
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://example.org/", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil || n != size {
			t.Fatalf("%d bytes, %v", n, err)
		}
		// There and back.
		want := 2 * size * time.Second / rate
		if took := time.Since(begin); took < want-time.Second || took > want+time.Second {
			t.Errorf("took %v, want %v", took, want)
		}
		if same := (&Options{}).limit(echo{})[0]; same != (echo{}) {
			t.Errorf("without a rate: %T", same)
		}
	})
}

// trickle gives one byte at a time.
type trickle struct{ wait time.Duration }

func (r trickle) RoundTrip(req *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	go func() {
		for {
			select {
			case <-req.Context().Done():
				_ = pw.CloseWithError(context.Cause(req.Context()))
				return
			case <-time.After(r.wait):
				if _, err := pw.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: pr, Request: req}, nil
}

// TestPace ends a body that moves too slowly to stall.
func TestPace(t *testing.T) {
	for name, tt := range map[string]struct {
		wait time.Duration
		slow bool
		want time.Duration // until the end; 0 is never
	}{
		"trickles":  {wait: time.Second, want: paceTime},
		"stalls":    {wait: time.Hour, want: 30 * time.Second},
		"fast":      {wait: time.Second / (2 * pace)},
		"permitted": {wait: time.Second, slow: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*paceTime)
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://example.org/", nil)
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				resp, err := (&watcher{base: trickle{tt.wait}, stall: 30 * time.Second, slow: tt.slow}).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				took := time.Since(begin)
				if tt.want == 0 {
					if errors.Is(err, ErrStalled) || took < 5*paceTime {
						t.Errorf("ended after %v: %v", took, err)
					}
				} else if !errors.Is(err, ErrStalled) || took < tt.want || took > tt.want+2*time.Second {
					t.Errorf("ended after %v: %v", took, err)
				}
				synctest.Wait()
			})
		})
	}
}
