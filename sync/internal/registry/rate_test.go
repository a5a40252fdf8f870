package registry

import (
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
