package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// fromPath serves a directory or an archive.
func fromPath(name, path string) serve.Source {
	src := serve.Source{Name: name, Files: []string{path}}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		src.Files[0] = filepath.Join(path, "index.json")
		src.Open = func(ctx context.Context) (layout.Source, error) { return layout.Open(ctx, path, nil) }
	} else {
		src.Open = func(ctx context.Context) (layout.Source, error) { return archive.Open(ctx, path, nil) }
	}
	return src
}

// plain hides that the blobs of a source are parts of files.
type plain struct{ layout.Source }

// pack makes an archive of the layout in dir.
func pack(t testing.TB, dir, file string) {
	t.Helper()
	l, err := layout.Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := archive.PackFile(t.Context(), l, file, nil); err != nil {
		t.Fatal(err)
	}
}

// A running server.
type server struct {
	*serve.Server
	t   testing.TB
	url string
	log *logBuffer

	client *http.Client // nil: the default one
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start serves until the test ends. The sources are looked at only when the test
// calls for it, unless opts says otherwise.
func start(t testing.TB, opts serve.Options) *server {
	t.Helper()
	s := &server{t: t, log: &logBuffer{}}
	logger := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opts.Log, opts.Access = logger, logger
	if opts.Poll == 0 {
		opts.Poll = -1
	}
	var err error
	if s.Server, err = serve.New(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("Serve does not end")
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// An answer is a response whose body was read.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// do sends a request; headers are "Name: value".
func (s *server) do(method, path string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	client := s.client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

func (s *server) get(path string, headers ...string) answer {
	s.t.Helper()
	return s.do(http.MethodGet, path, headers...)
}

// forms are the ways in which one layout can be served.
func forms(t *testing.T, run func(t *testing.T, open func(t *testing.T, dir string) serve.Source)) {
	t.Run("directory", func(t *testing.T) {
		run(t, func(_ *testing.T, dir string) serve.Source { return fromPath("garden", dir) })
	})
	t.Run("archive", func(t *testing.T) {
		run(t, func(t *testing.T, dir string) serve.Source {
			file := filepath.Join(t.TempDir(), "garden.oci")
			tarFile(t, dir, file)
			return fromPath("garden", file)
		})
	})
	t.Run("no files", func(t *testing.T) {
		run(t, func(_ *testing.T, dir string) serve.Source {
			src := fromPath("garden", dir)
			open := src.Open
			src.Open = func(ctx context.Context) (layout.Source, error) {
				l, err := open(ctx)
				return plain{l}, err
			}
			return src
		})
	})
}

// sample writes the layout of package sourcetest.
func sample(t testing.TB) (dir string, c *sourcetest.Content) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "garden")
	return dir, sourcetest.Write(t, dir)
}

func blobFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, filepath.FromSlash(layout.BlobPath(d)))
}

// age waits until what was written is settled.
func age(t testing.TB) {
	t.Helper()
	time.Sleep(2 * serve.Settle)
}

func writeFile(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// counted knows whether it was closed.
type counted struct {
	layout.Source
	mu     sync.Mutex
	closed bool
}

func (c *counted) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.Source.Close()
}

func (c *counted) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// metric reads one number from /metrics.
func (s *server) metric(name string) (n int64) {
	s.t.Helper()
	for line := range strings.Lines(s.get("/metrics").body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("no metric %s", name)
	return 0
}

// bigLayer makes a layout of one artifact with one layer.
func bigLayer(t testing.TB, dir, content string) digest.Digest {
	t.Helper()
	return layers(t, dir, content)[0]
}

// layers makes a layout of one artifact with these layers.
func layers(t testing.TB, dir string, contents ...string) (digests []digest.Digest) {
	t.Helper()
	l, err := layout.Create(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	st, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var descs []ocispec.Descriptor
	for _, content := range contents {
		layer, err := st.Add(t.Context(), strings.NewReader(content), "application/x.layer")
		if err != nil {
			t.Fatal(err)
		}
		descs, digests = append(descs, layer), append(digests, layer.Digest)
	}
	config, err := st.AddBytes(t.Context(), []byte("{}"), "application/x.config")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := layout.EncodeManifest(ocispec.Manifest{Config: config, Layers: descs})
	if err != nil {
		t.Fatal(err)
	}
	err = st.Update(t.Context(), func(tx *layout.Tx) error {
		desc, err := tx.PutDocument(raw, ocispec.MediaTypeImageManifest)
		tx.SetRef("app", desc)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return digests
}
