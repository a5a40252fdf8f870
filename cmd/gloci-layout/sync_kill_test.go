package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A syncWorld is a registry that has one version of three images, and a layout
// with the next.
type syncWorld struct {
	dir  string
	reg  *regtest.Memory
	host string
	old  map[string]digest.Digest // tags
}

func newSyncWorld(t *testing.T, dir string) *syncWorld {
	t.Helper()
	w := &syncWorld{dir: dir, reg: regtest.NewMemory(&regtest.MemoryOptions{Delete: true})}
	w.host = w.reg.Serve(t)
	mustRun(t, dir, w.args("old")...)
	w.old = w.reg.Tags("app")
	w.reg.Reset()
	w.reg.AfterEach(func(m regtest.Mutation) {
		if m.Kind == "tag" {
			if err := w.reg.Complete(m.Repo, m.Digest); err != nil {
				t.Errorf("request %d: tag %s: %v", m.Request, m.Tag, err)
			}
		}
	})
	return w
}

func (w *syncWorld) args(layout string) []string {
	return []string{"sync", layout, "docker://" + w.host + "/app", "--tls-verify=false", "--replace", "--jobs", "2", "--json"}
}

// syncLayouts makes the layouts old and new in a directory.
func syncLayouts(t *testing.T) string {
	t.Helper()
	dir := fastDir(t)
	for _, version := range []string{"old", "new"} {
		l := newRawLayout(t, filepath.Join(dir, version))
		var entries []ocispec.Descriptor
		for _, arch := range []string{"amd64", "arm64"} {
			image := l.image(version + " for " + arch)
			image.Platform = platform("linux", arch)
			entries = append(entries, image)
		}
		index := l.nested(entries...)
		l.index(named(index, "1.0"), named(index, "latest"), named(l.image("other "+version), "other"))
	}
	return dir
}

// signalAt runs sync and sends it a signal when request k comes, which is
// carried out before if late. It returns the exit status.
func (w *syncWorld) signalAt(t *testing.T, k int, sig syscall.Signal, late bool) (status int, stdout, stderr string) {
	t.Helper()
	cmd := binaryCommand(context.Background(), t, w.dir, w.args("new")...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	started, dead := make(chan struct{}), make(chan struct{})
	w.reg.Inject(func(n int, _ *http.Request) *regtest.Fault {
		if n != k {
			return nil
		}
		<-started
		_ = cmd.Process.Signal(sig) // it may have ended
		switch {
		case sig == syscall.SIGINT:
			return nil
		case late:
			return &regtest.Fault{Kind: regtest.Lost}
		}
		<-dead
		return &regtest.Fault{Kind: regtest.Drop}
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	close(started)
	err := cmd.Wait()
	close(dead)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestSyncSignals kills and interrupts sync at each request. No tag ever names
// what is not all there; after an interrupt the tags are the old ones, and that
// is said; another run ends in the state of an undisturbed one.
func TestSyncSignals(t *testing.T) {
	t.Parallel()
	dir := syncLayouts(t)
	w := newSyncWorld(t, dir)
	mustRun(t, dir, w.args("new")...)
	want, requests := w.reg.Tags("app"), len(w.reg.Requests())
	if requests < 20 || maps.Equal(want, w.old) {
		t.Fatalf("%d requests, tags %v", requests, want)
	}
	var killed, interrupted, done atomic.Int32
	for _, mode := range []string{"kill", "kill late", "interrupt"} {
		for k := 1; k <= requests; k++ {
			if testing.Short() && k%5 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s at %d", mode, k), func(t *testing.T) {
				w := newSyncWorld(t, dir)
				sig := syscall.SIGKILL
				if mode == "interrupt" {
					sig = syscall.SIGINT
				}
				status, stdout, stderr := w.signalAt(t, k, sig, mode == "kill late")
				tags := w.reg.Tags("app")
				switch {
				case sig == syscall.SIGKILL:
					killed.Add(1)
				case status == 0:
					done.Add(1)
					if !maps.Equal(tags, want) {
						t.Errorf("exit status 0, and the tags are %v", tags)
					}
				default:
					interrupted.Add(1)
					if status != 130 || !strings.Contains(stderr, "interrupted") {
						t.Errorf("exit status %d\n%s", status, stderr)
					}
					if !maps.Equal(tags, w.old) {
						t.Errorf("the tags are %v, were %v", tags, w.old)
					}
					moved := slices.ContainsFunc(w.reg.History(), func(m regtest.Mutation) bool {
						return m.Kind == "tag" && m.Request > 0 && m.Digest == want[m.Tag]
					})
					if moved && !strings.Contains(stdout, `"state":"restored"`) {
						t.Errorf("tags were put back, and the report is\n%s", stdout)
					}
					if moved != strings.Contains(stderr, "\n  all tags are as before: ") || strings.Contains(stderr, "could be put back") {
						t.Errorf("tags were put back: %v, and the last line is\n%s", moved, stderr)
					}
				}
				w.reg.Reset()
				mustRun(t, dir, w.args("new")...)
				if tags := w.reg.Tags("app"); !maps.Equal(tags, want) {
					t.Errorf("after another run the tags are %v, want %v", tags, want)
				}
			})
		}
	}
	t.Logf("%d requests: %d runs killed, %d interrupted, %d done in spite of it", requests, killed.Load(), interrupted.Load(), done.Load())
}

// TestSyncManyTags has a registry fail at the 137th of 200 tags: the 136 that
// were moved are put back, and the report says so.
func TestSyncManyTags(t *testing.T) {
	dir := fastDir(t)
	const tags, fails = 200, 137
	for _, version := range []string{"old", "new"} {
		l := newRawLayout(t, filepath.Join(dir, version))
		var entries []ocispec.Descriptor
		for i := range tags {
			entries = append(entries, named(l.image(fmt.Sprintf("%s %d", version, i)), fmt.Sprintf("tag-%03d", i)))
		}
		l.index(entries...)
	}
	w := newSyncWorld(t, dir)
	var puts atomic.Int32
	w.reg.Inject(func(_ int, r *http.Request) *regtest.Fault {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/tag-") && puts.Add(1) == fails {
			return &regtest.Fault{Kind: regtest.Answer, Status: http.StatusForbidden}
		}
		return nil
	})
	args := w.args("new")
	args[slices.Index(args, "2")] = "1"
	res := runBinary(t, dir, args...)
	if res.exit != 2 {
		t.Errorf("exit status %d, want 2\n%s", res.exit, res.stderr)
	}
	if got := w.reg.Tags("app"); !maps.Equal(got, w.old) {
		t.Error("the tags are not the old ones")
	}
	if n := strings.Count(res.stdout, `"state":"restored"`); n != fails-1 {
		t.Errorf("%d tags are reported as put back, want %d", n, fails-1)
	}
	for _, bad := range []string{`"state":"moved"`, `"state":"left"`, `"state":"unknown"`, `"state":"created"`} {
		if strings.Contains(res.stdout, bad) {
			t.Errorf("the report has %s", bad)
		}
	}
	if !strings.Contains(res.stderr, "403") || !strings.HasSuffix(res.stderr, "\n  all tags are as before: 136 tags put back\n") {
		t.Errorf("stderr: %s", res.stderr)
	}
}
