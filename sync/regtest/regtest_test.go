package regtest_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// do sends one request and returns its status.
func do(t *testing.T, r *regtest.Registry, method, path, user, password string) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := r.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header
}

func TestStart(t *testing.T) {
	for _, tt := range []struct {
		name           string
		opts           *regtest.Options
		user, password string
		want           int
	}{
		{name: "plain", want: http.StatusOK},
		{name: "tls", opts: &regtest.Options{TLS: true}, want: http.StatusOK},
		{name: "anonymous", opts: &regtest.Options{Users: map[string]string{"u": "p"}}, want: http.StatusUnauthorized},
		{name: "wrong password", opts: &regtest.Options{Users: map[string]string{"u": "p"}}, user: "u", password: "q", want: http.StatusUnauthorized},
		{name: "right password", opts: &regtest.Options{Users: map[string]string{"u": "p"}}, user: "u", password: "p", want: http.StatusOK},
		{name: "bearer", opts: &regtest.Options{Bearer: true, Users: map[string]string{"u": "p"}}, user: "u", password: "p", want: http.StatusUnauthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := regtest.Start(t, tt.opts)
			got, header := do(t, r, http.MethodGet, "/v2/", tt.user, tt.password)
			if got != tt.want {
				t.Errorf("GET /v2/ = %d, want %d", got, tt.want)
			}
			if got == http.StatusUnauthorized && header.Get("WWW-Authenticate") == "" {
				t.Error("401 without a challenge")
			}
			if tt.opts != nil && tt.opts.TLS {
				if _, err := os.Stat(r.CAFile()); err != nil {
					t.Error(err)
				}
			}
			if n := r.Count("GET", "/v2/"); n != 1 {
				t.Errorf("counted %d requests, want 1", n)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	r := regtest.Start(t, nil)
	r.FailAt(2, http.StatusTeapot)
	for i, want := range []int{http.StatusOK, http.StatusTeapot, http.StatusOK} {
		if got, _ := do(t, r, http.MethodGet, "/v2/", "", ""); got != want {
			t.Errorf("request %d = %d, want %d", i+1, got, want)
		}
	}
	var statuses []int
	for _, req := range r.Requests() {
		statuses = append(statuses, req.Status)
	}
	if len(statuses) != 3 || statuses[1] != http.StatusTeapot {
		t.Errorf("recorded %v", statuses)
	}
	r.Reset()
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests after Reset", n)
	}
	if got, _ := do(t, r, http.MethodPost, "/v2/a/b/blobs/uploads/", "", ""); got != http.StatusAccepted {
		t.Errorf("POST = %d, want 202", got)
	}
	if got := r.Requests()[0]; got.Method != http.MethodPost || !strings.HasSuffix(got.Path, "/uploads/") {
		t.Errorf("recorded %+v", got)
	}
}

// Children must live on when threads of this process end, as they do with the
// goroutines that are locked to them.
func TestStartChild(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 { // from more than the first thread, which never ends
		wg.Go(func() {
			cmd := exec.Command("sleep", "60") //nolint:noctx // ended below
			wait, err := regtest.StartChild(cmd)
			if err != nil {
				t.Error(err)
				return
			}
			var threads sync.WaitGroup
			for range 50 {
				threads.Go(runtime.LockOSThread)
			}
			threads.Wait()
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if err := wait(); err == nil || err.Error() != "signal: terminated" {
				t.Errorf("a child ended with %v, want the signal that it got", err)
			}
		})
	}
	wg.Wait()
	if _, err := regtest.StartChild(exec.Command(t.TempDir())); err == nil { //nolint:noctx // does not start
		t.Error("a directory was started")
	}
}
