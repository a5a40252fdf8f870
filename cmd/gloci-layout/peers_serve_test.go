//go:build linux

package main_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// startServe runs the program until the test ends and returns HOST:PORT. It has to
// end well.
func startServe(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := binaryCommand(ctx, t, t.TempDir(), append([]string{"serve", "--quiet", "--addr", "127.0.0.1:0"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	wait, err := regtest.StartChild(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("serve ended with %v\n%s", err, stderr.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on http://")
	if err != nil || !ok {
		t.Fatalf("serve says %q, %v", line, err)
	}
	return address
}

// TestPeersServe lets the tools pull from a served directory and a served .oci
// file, and compares what they got. The engines, which take longest, read the
// directory too if GLOCI_BIG=1.
func TestPeersServe(t *testing.T) {
	r := newRich(t)
	for form, source := range map[string]string{"directory": r.dir, "archive": r.archive} {
		t.Run(form, func(t *testing.T) {
			v := &peerView{r, startServe(t, source+"=gardenlinux/test") + "/gardenlinux/test"}
			t.Run("tools", func(t *testing.T) {
				for name, test := range map[string]func(*testing.T, *peerView){
					"skopeo-umoci": skopeoPulls, "podman": podmanPulls, "buildah": buildahPulls, "crane": cranePulls,
					"regctl": regctlPulls, "oras-go": orasPulls, "containerd": containerdPulls,
				} {
					t.Run(name, func(t *testing.T) {
						if form == "directory" && os.Getenv("GLOCI_BIG") == "" && slices.Contains([]string{"podman", "buildah", "containerd"}, name) {
							t.Skip("without GLOCI_BIG=1 it reads the archive only")
						}
						t.Parallel()
						test(t, v)
					})
				}
			})
		})
	}
}

func (v *peerView) host() string { host, _, _ := strings.Cut(v.repo, "/"); return host }

func skopeoPulls(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	for tag, desc := range v.tags(t) {
		raw := h.run("skopeo", "inspect", "--tls-verify=false", "--raw", "docker://"+v.repo+":"+tag)
		if got := digest.FromString(raw); got != desc.Digest {
			t.Errorf("inspect --raw of %s = %s, want %s", tag, got, desc.Digest)
		}
	}
	out := h.path("copy")
	h.run("skopeo", "copy", "--all", "--src-tls-verify=false", "docker://"+v.repo+":"+refHalf, "oci:"+out+":"+refHalf)
	h.run("skopeo", "copy", "--src-tls-verify=false", "docker://"+v.repo+":"+refApp, "oci:"+out+":"+refApp)
	for _, d := range reachable(t, v.dir, v.refs(t)[refHalf].Digest) {
		blobOf(t, out, d)
	}
	args := []string{"unpack", "--image", out + ":" + refApp, h.path("bundle")}
	if os.Geteuid() != 0 {
		args = slices.Insert(args, 1, "--rootless")
	}
	h.run("umoci", args...)
	if got, want := readPeerFile(t, h.path("bundle/rootfs/etc/os-release")), v.images[runtime.GOARCH].release; got != want {
		t.Errorf("umoci unpack: os-release = %q, want %q", got, want)
	}
}

func podmanPulls(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	h.needEngine("podman")
	// The mirror of the registry that the full ref name names.
	writePeerFile(t, h.path("registries.conf"), mustRun(t, h.dir, "serve", v.dir, "--addr", v.host(), "--print-mirror-config", "podman").stdout)
	for _, at := range []string{v.repo + ":" + refRelease, refFull} {
		image := v.images[runtime.GOARCH]
		id := strings.TrimSpace(h.podman("pull", "--quiet", at))
		if id != image.config.Digest.Encoded() {
			t.Errorf("pull %s = image %s, want %s", at, id, image.config.Digest)
		}
	}
}

func buildahPulls(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	h.needEngine("buildah")
	if os.Geteuid() != 0 {
		cannot(t, "buildah run --isolation chroot needs root here")
	}
	if strings.HasPrefix(string(busybox()), "no busybox") {
		cannot(t, "busybox-static is not installed: there is nothing that could run")
	}
	h.buildah("from", "--pull-always", "--tls-verify=false", "--name", "x", "docker://"+v.repo+":"+refRelease)
	if got, want := h.buildah("run", "--isolation", "chroot", "x", "cat", "/etc/os-release"), v.images[runtime.GOARCH].release; got != want {
		t.Errorf("the container prints %q, want %q", got, want)
	}
	h.buildah("rm", "x")
}

func cranePulls(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	tags := strings.Fields(h.run("crane", "ls", "--insecure", v.repo))
	if want := len(v.tags(t)); len(tags) != want {
		t.Errorf("ls = %q, want %d tags", tags, want)
	}
	if got := h.run("crane", "catalog", "--insecure", v.host()); got != "gardenlinux/app\ngardenlinux/test\n" {
		t.Errorf("catalog = %q", got)
	}
	h.run("crane", "validate", "--insecure", "--remote", v.repo+":"+refApp)
	out := h.path("nested")
	h.run("crane", "pull", "--insecure", "--format", "oci", v.repo+":"+refNested, out)
	for _, d := range reachable(t, v.dir, v.refs(t)[refNested].Digest) {
		blobOf(t, out, d)
	}
}

func regctlPulls(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	plain := []string{"--host", "reg=" + v.host() + ",tls=disabled"}
	out := h.path("copy")
	for _, ref := range []string{refNested, refRelease} {
		h.run("regctl", append(slices.Clone(plain), "image", "copy", v.repo+":"+ref, "ocidir://"+out+":"+ref)...)
		for _, d := range reachable(t, v.dir, v.refs(t)[ref].Digest) {
			blobOf(t, out, d)
		}
	}
	if got := h.run("regctl", append(plain, "artifact", "get", "--file", "notes.md", v.repo+":"+refNotes)...); got != "# Notes\n" {
		t.Errorf("artifact get = %q", got)
	}
}

func orasRepository(t testing.TB, repo string) *remote.Repository {
	t.Helper()
	r, err := remote.NewRepository(repo)
	if err != nil {
		t.Fatal(err)
	}
	r.PlainHTTP = true
	return r
}

func orasPulls(t *testing.T, v *peerView) {
	out := filepath.Join(t.TempDir(), "copy")
	to, err := oci.New(out)
	if err != nil {
		t.Fatal(err)
	}
	from := orasRepository(t, v.repo)
	for tag, want := range v.tags(t) {
		desc, err := oras.Copy(t.Context(), from, tag, to, tag, oras.DefaultCopyOptions)
		if err != nil || desc.Digest != want.Digest {
			t.Errorf("copy of %s = %s, %v, want %s", tag, desc.Digest, err, want.Digest)
			continue
		}
		for _, d := range reachable(t, v.dir, want.Digest) {
			blobOf(t, out, d)
		}
	}
	// 50 at once, each with connections of its own.
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			from := orasRepository(t, v.repo)
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			from.Client = &http.Client{Transport: transport}
			// Its memory checks size and digest of all that it is given.
			desc, err := oras.Copy(t.Context(), from, refRelease, memory.New(), "", oras.DefaultCopyOptions)
			if err != nil || desc.Digest != v.refs(t)[refRelease].Digest {
				t.Errorf("one of 50: %s, %v", desc.Digest, err)
			}
		})
	}
	wg.Wait()
}

func containerdPulls(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	ctr := startContainerd(t, h)
	image := v.images[runtime.GOARCH]
	host, _, _ := strings.Cut(refFull, "/")
	writePeerFile(t, h.path("certs.d/"+host+"/hosts.toml"), mustRun(t, h.dir, "serve", v.dir, "--addr", v.host(), "--print-mirror-config", "containerd").stdout)
	for _, args := range [][]string{
		{"--plain-http", v.repo + ":" + refRelease},
		{"--hosts-dir", h.path("certs.d"), refFull},
	} {
		r := ctr(append([]string{"images", "pull", "--snapshotter", "native", "--print-chainid", "--platform", "linux/" + runtime.GOARCH}, args...)...)
		if r.exit != 0 || !strings.Contains(r.stdout, "image chain ID: "+chainID(&image)) {
			t.Errorf("pull %q: exit %d, want chain ID %s\n%s%s", args, r.exit, chainID(&image), r.stdout, r.stderr)
		}
	}
}

// Clients that were cut off in the middle of a layer come back for the rest of it.
// The skopeo and podman of Debian 12 begin anew.
func TestPeersServeResume(t *testing.T) {
	r := newRawLayout(t, filepath.Join(t.TempDir(), "l"))
	raw := tarOf(t, []member{{name: "big", content: noise(8 << 20), mode: 0o644}})
	layer := r.blob(ocispec.MediaTypeImageLayer, string(raw))
	config := r.blob(testTypeConfig, fmt.Sprintf(`{"architecture":%q,"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, layer.Digest))
	r.index(named(r.manifest(config, layer), "app"))
	to, err := url.Parse("http://" + startServe(t, r.dir+"=app"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	var cut, resumed atomic.Bool
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.StatusCode == http.StatusPartialContent {
			resumed.Store(true)
		} else if resp.ContentLength == layer.Size && resp.Request.Method == http.MethodGet && cut.CompareAndSwap(false, true) {
			resp.Body = io.NopCloser(io.LimitReader(resp.Body, 5<<20))
		}
		return nil
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	at := front.Listener.Addr().String()
	check := func(client string) {
		t.Helper()
		if !cut.Swap(false) || !resumed.Swap(false) {
			t.Errorf("%s was not cut off, or has not gone on", client)
		}
	}
	out := filepath.Join(t.TempDir(), "copy")
	if r := runBinary(t, t.TempDir(), "pull", "--tls-verify=false", "--retry", "3", "docker://"+at+"/app:app", out); r.exit != 0 {
		mustRun(t, t.TempDir(), "pull", "--tls-verify=false", "docker://"+at+"/app:app", out)
	}
	blobOf(t, out, layer.Digest)
	check("pull")

	h := newPeerHome(t)
	file, blob := h.path("layer"), "http://"+at+"/v2/app/blobs/"+string(layer.Digest)
	if r := h.try("curl", "--silent", "--output", file, blob); r.exit != 18 {
		t.Errorf("curl, cut off: exit %d", r.exit)
	}
	h.run("curl", "--silent", "--fail", "--continue-at", "-", "--output", file, blob)
	if got := digest.FromString(readPeerFile(t, file)); got != layer.Digest {
		t.Errorf("curl got %s, want %s", got, layer.Digest)
	}
	check("curl")
}

// noise is text that does not compress and is the same each time.
func noise(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(string(digest.FromString(fmt.Sprint(i))))
	}
	return b.String()[:n]
}
