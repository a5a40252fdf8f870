package sync_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// TestRequests counts what pushes of large blobs need: a HEAD for each tag,
// manifest, and root that was sent; POST and PUT for each missing blob; a PUT for
// each missing manifest, the root under its tag. That a POST tells of blobs that
// are there is found out once, by a small one.
func TestRequests(t *testing.T) {
	const n = 3
	large := strings.Repeat("x", 4<<20)
	disks := func(n int) func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return func(m pushtest.Maker) map[string]ocispec.Descriptor {
			var all []ocispec.Descriptor
			for i := range n {
				all = append(all, m.Artifact("application/vnd.example.disk", fmt.Sprint(i, large), nil))
			}
			return map[string]ocispec.Descriptor{"disks": m.Index(all...)}
		}
	}
	for _, test := range []struct {
		name          string
		jobs          int
		mounts        bool
		first, change map[string]int
	}{
		{
			"mounts", 0, true,
			map[string]int{"GET ping": 1, "HEAD manifest": 1 + (1 + n) + 1, "POST upload": 1 + n + 1, "PUT upload": 1 + n, "PUT manifest": n + 1},
			// One more disk; its config is there.
			map[string]int{"GET ping": 1, "GET manifest": 1, "HEAD manifest": 1 + (1 + n + 1) + 1, "POST upload": 2, "PUT upload": 1, "PUT manifest": 1 + 1},
		},
		{
			"one job", 1, true,
			map[string]int{"GET ping": 1, "HEAD manifest": 1 + (1 + n) + 1, "POST upload": 1 + n + 1, "PUT upload": 1 + n, "PUT manifest": n + 1},
			map[string]int{"GET ping": 1, "GET manifest": 1, "HEAD manifest": 1 + (1 + n + 1) + 1, "POST upload": 2, "PUT upload": 1, "PUT manifest": 1 + 1},
		},
		{
			"ignores mounts", 0, false,
			map[string]int{"GET ping": 1, "HEAD manifest": 1 + (1 + n) + 1, "POST upload": 1 + n + 1, "HEAD blob": n, "PUT upload": 1 + n, "PUT manifest": n + 1},
			map[string]int{"GET ping": 1, "GET manifest": 1, "HEAD manifest": 1 + (1 + n + 1) + 1, "POST upload": 2, "HEAD blob": 1, "PUT upload": 2, "PUT manifest": 1 + 1},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			reg := regtest.Start(t, nil)
			dest := pushtest.Repository(t, reg, "disks")
			opts := pushtest.Options(t, reg)
			opts.Jobs = test.jobs
			l := pushtest.NewLayout(t, disks(n))
			for i, want := range []map[string]int{test.first, {"GET ping": 1, "HEAD manifest": 1}, test.change} {
				if i == 2 {
					pushtest.Edit(t, l, disks(n+1))
				}
				reg.Reset()
				if !test.mounts {
					reg.Intercept(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
						if r.Method == http.MethodPost {
							r.URL.RawQuery = ""
						}
						return false
					})
				}
				if _, err := layoutsync.Push(t.Context(), l, dest, &layoutsync.PushOptions{Registry: opts}); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, counts(reg)); diff != "" {
					t.Errorf("push %d: requests (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// TestRequestsWithoutSmall: large blobs wait for a small one that tells
// whether mounts tell; here there is none, but for one that is to be had
// elsewhere.
func TestRequestsWithoutSmall(t *testing.T) {
	large := strings.Repeat("x", 4<<20)
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		foreign := ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayer, Size: 2, URLs: []string{"https://example.org/layer"},
			Digest: "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
		}
		raw, err := layout.EncodeManifest(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.disk",
			Config: m.Blob("1"+large, "application/vnd.example.config"),
			Layers: []ocispec.Descriptor{m.Blob("2"+large, "application/vnd.example.disk"), foreign},
		})
		return map[string]ocispec.Descriptor{"disk": m.JSON(raw, err, ocispec.MediaTypeImageManifest)}
	})
	reg := regtest.NewMemory(nil)
	repo, err := layoutsync.ParseRepository(regtest.MemoryHost + "/disks")
	if err != nil {
		t.Fatal(err)
	}
	var heads atomic.Int32
	opts := pushtest.Options(t, nil)
	opts.Transport = reg.Transport()
	opts.Trace = func(e layoutsync.Exchange) {
		if e.Method == http.MethodHead && strings.Contains(e.Path, "/blobs/") {
			heads.Add(1)
		}
	}
	if _, err := layoutsync.Push(t.Context(), l, repo, &layoutsync.PushOptions{Registry: opts}); err != nil {
		t.Fatal(err)
	}
	if n := heads.Load(); n != 2 {
		t.Errorf("%d large blobs were asked for, want 2", n)
	}
}
