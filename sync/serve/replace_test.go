package serve_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// release puts version n into a layout: an index of two images, each of whose
// blobs says which version it is of. The ref name goes to it, in one edit.
func release(t testing.TB, dir string, n int) {
	t.Helper()
	l, err := layout.Create(t.Context(), dir, nil)
	if err != nil {
		if l, err = layout.Open(t.Context(), dir, nil); err != nil {
			t.Fatal(err)
		}
	}
	defer l.Close()
	st, err := l.Stage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	put := func(mediaType, content string) ocispec.Descriptor {
		desc, err := st.AddBytes(t.Context(), []byte(content), mediaType)
		if err != nil {
			t.Fatal(err)
		}
		return desc
	}
	x := layout.NewIndex()
	x.SetAnnotation("version", fmt.Sprint(n))
	for _, arch := range []string{"amd64", "arm64"} {
		m := ocispec.Manifest{
			Config:      put("application/x.config", fmt.Sprintf(`{"arch":%q,"version":"%d"}`, arch, n)),
			Layers:      []ocispec.Descriptor{put("application/x.layer", fmt.Sprintf("version %d %s\n", n, arch)+strings.Repeat("x", 100_000))},
			Annotations: map[string]string{"version": fmt.Sprint(n)},
		}
		raw, err := layout.EncodeManifest(m)
		if err != nil {
			t.Fatal(err)
		}
		desc := put(ocispec.MediaTypeImageManifest, string(raw))
		desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		x.Add(desc)
	}
	err = st.Update(t.Context(), func(tx *layout.Tx) error {
		desc, err := tx.PutDocument(x.Bytes(), ocispec.MediaTypeImageIndex)
		tx.SetRef("app", desc)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

var errStatus = errors.New("not what was asked for")

// pull fetches all that the tag names and returns the version that all of it
// says it is of.
func pull(client *http.Client, url string) (version string, err error) {
	fetch := func(kind, ref string) (string, error) {
		resp, err := client.Get(url + "/v2/garden/" + kind + "/" + ref)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 {
			return "", fmt.Errorf("%s %s: status %d, %.300q: %w", kind, ref, resp.StatusCode, b, errors.Join(err, errStatus))
		}
		if want := resp.Header.Get("Docker-Content-Digest"); digest.FromBytes(b).String() != want || strings.Contains(ref, ":") && ref != want {
			return "", fmt.Errorf("%s %s: wrong bytes", kind, ref)
		}
		return string(b), nil
	}
	raw, err := fetch("manifests", "app")
	if err != nil {
		return "", err
	}
	var x ocispec.Index
	if err := json.Unmarshal([]byte(raw), &x); err != nil {
		return "", err
	}
	version = x.Annotations["version"]
	for _, desc := range x.Manifests {
		raw, err := fetch("manifests", string(desc.Digest))
		if err != nil {
			return "", err
		}
		var m ocispec.Manifest
		if err := json.Unmarshal([]byte(raw), &m); err != nil {
			return "", err
		}
		if m.Annotations["version"] != version {
			return "", fmt.Errorf("a mixture of versions %s and %s", version, m.Annotations["version"])
		}
		for _, b := range append(m.Layers, m.Config) {
			content, err := fetch("blobs", string(b.Digest))
			if err != nil {
				return "", err
			}
			if !strings.Contains(content[:min(40, len(content))], version) {
				return "", fmt.Errorf("version %s has %.40q", version, content)
			}
		}
	}
	return version, nil
}

// While an archive is packed over, and a directory edited, no client sees a
// mixture of versions, a missing or a wrong byte, and none goes back in time.
// GLOCI_BIG=1 pulls 10,000 times.
func TestPullsWhileReplaced(t *testing.T) {
	pulls := int64(120)
	if os.Getenv("GLOCI_BIG") != "" {
		pulls = 5000 // of each
	}
	for _, form := range []string{"archive", "directory"} {
		t.Run(form, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "garden")
			release(t, dir, 1000)
			path := dir
			if form == "archive" {
				path += ".oci"
				pack(t, dir, path)
			}
			s := start(t, serve.Options{Sources: []serve.Source{fromPath("garden", path)}, Poll: 5 * time.Millisecond})
			const clients = 8
			var done [clients]atomic.Int64
			var total, versions atomic.Int64
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					client := &http.Client{Transport: &http.Transport{}}
					defer client.CloseIdleConnections()
					last := ""
					for total.Add(1) <= pulls {
						version, err := pull(client, s.url)
						if err != nil || version < last {
							t.Errorf("after version %s: %s, %v", last, version, err)
							break
						}
						if version != last {
							versions.Add(1)
						}
						last = version
						done[i].Add(1)
					}
					done[i].Store(1 << 40)
				})
			}
			// The next version comes when every client has ended a pull since the
			// last: a client that is slower than many versions is told 404.
			for n := 1001; total.Load() <= pulls; n++ {
				var seen [clients]int64
				for i := range seen {
					seen[i] = done[i].Load()
				}
				if form == "archive" {
					next := filepath.Join(t.TempDir(), "garden")
					release(t, next, n)
					pack(t, next, path)
				} else {
					release(t, dir, n)
				}
				for i := range seen {
					eventually(t, "another pull", func() bool { return done[i].Load() > seen[i] || total.Load() > pulls })
				}
			}
			wg.Wait()
			t.Logf("%d pulls, %d changes of version were seen", pulls, versions.Load())
			if versions.Load() < 2*clients {
				t.Errorf("the clients saw %d changes of version: too few to say anything", versions.Load())
			}
		})
	}
}
