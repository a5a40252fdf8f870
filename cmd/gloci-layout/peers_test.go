//go:build linux

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// The tests in peers_*_test.go run the other tools of the OCI world on what this
// program writes, and this program on what they write. They compare digests and
// contents: a tool that exits with 0 may still have taken the wrong thing.
//
// A tool that is not installed skips its tests, and fails them where the variable
// CI is set. scripts/ci-packages.sh and `make tools` install all of them.

// TestPeers makes one rich layout, shows it to all tools, and reads what they make
// of it. It is one test so that the layout is made once.
func TestPeers(t *testing.T) {
	r := newRich(t)
	before := readPeerFile(t, filepath.Join(r.dir, "index.json"))
	t.Run("old-registry", func(t *testing.T) { takenByOldRegistry(t, r) }) // sets a variable: not beside others

	reg := regtest.Start(t, nil)
	v := &peerView{r, reg.Host + "/gardenlinux/test"}
	mustRun(t, t.TempDir(), "sync", "--tls-verify=false", r.archive, "docker://"+v.repo)
	t.Run("tools", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *peerView){
			"skopeo-reads": skopeoReads, "skopeo-writes": skopeoWrites, "skopeo-signs": skopeoSigns,
			"umoci-reads": umociReads, "umoci-writes": umociWrites,
			"podman-reads": podmanReads, "podman-writes": podmanWrites,
			"buildah-reads": buildahReads, "buildah-writes": buildahWrites,
			"crane-reads": craneReads, "crane-writes": craneWrites,
			"regctl-reads": regctlReads, "regctl-writes": regctlWrites,
			"oras-go-reads": orasReads, "oras-go-writes": orasWrites,
			"containerd-reads":    containerdReads,
			"archives-containers": archivesForContainers, "archives-others": archivesForOthers, "archives-us": archivesForUs,
			"edit-skopeo": editSkopeo, "edit-umoci": editUmoci, "edit-regctl": editRegctl, "edit-nested": editNested, "schema": passesSchema, "edit-into": editInto,
			"registry-as-source": registryAsSource,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, v)
			})
		}
	})

	if after := readPeerFile(t, filepath.Join(r.dir, "index.json")); after != before {
		t.Errorf("a tool that only reads changed index.json: %s", cmp.Diff(before, after))
	}
	mustRun(t, t.TempDir(), "verify", r.dir)
}

// peerTool returns the path of a tool: of .tools/bin here or in a directory
// above, else in PATH.
func peerTool(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".tools", "bin", name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		cannot(t, "%s is not installed: run scripts/ci-packages.sh test and make tools", name)
	}
	return path
}

// cannot skips the test, but fails it in continuous integration, where a green
// run must not mean that nothing ran.
func cannot(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// A peerHome is where the tools of one test keep all their files.
type peerHome struct {
	t   testing.TB
	dir string
	env []string
}

// newPeerHome makes one whose configuration says nothing of the machine's.
func newPeerHome(t testing.TB) *peerHome {
	t.Helper()
	dir := shortDir(t)
	h := &peerHome{t: t, dir: dir}
	for name, content := range map[string]string{
		"home/.config/containers/policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`,
		// crun is not told where cgroups are: nothing is started by it.
		"containers.conf": "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n",
		"storage.conf": "[storage]\ndriver = \"vfs\"\ngraphroot = \"" + dir + "/root\"\nrunroot = \"" + dir + "/run\"\n" +
			"[storage.options]\nadditionalimagestores = []\n",
		"registries.conf":          "unqualified-search-registries = []\nshort-name-mode = \"disabled\"\n",
		"auth.json":                "{}",
		"home/.docker/config.json": "{}",
		"xdg/cache/.keep":          "", "xdg/data/.keep": "", "xdg/runtime/.keep": "", "tmp/.keep": "",
	} {
		writePeerFile(t, filepath.Join(dir, filepath.FromSlash(name)), content)
	}
	h.env = []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "GOMAXPROCS=2",
		"HOME=" + h.path("home"), "TMPDIR=" + h.path("tmp"), "DOCKER_CONFIG=" + h.path("home/.docker"),
		"XDG_CONFIG_HOME=" + h.path("home/.config"), "XDG_CACHE_HOME=" + h.path("xdg/cache"),
		"XDG_DATA_HOME=" + h.path("xdg/data"), "XDG_RUNTIME_DIR=" + h.path("xdg/runtime"),
		"CONTAINERS_CONF=" + h.path("containers.conf"), "CONTAINERS_STORAGE_CONF=" + h.path("storage.conf"),
		"CONTAINERS_REGISTRIES_CONF=" + h.path("registries.conf"), "REGISTRY_AUTH_FILE=" + h.path("auth.json"),
		"STORAGE_DRIVER=vfs", "BUILDAH_ISOLATION=chroot",
	}
	return h
}

// shortDir is t.TempDir with a short path in lower case: podman takes no longer
// one, buildah makes it part of an image's name, and a Unix socket must fit too.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (h *peerHome) path(name string) string { return filepath.Join(h.dir, filepath.FromSlash(name)) }

// privateMounts reports whether tools can be started in a mount namespace of
// their own: what they mount there ends with them, and the files that they keep
// for root outside of all configuration (a cache of blobs below
// /var/lib/containers) are nobody's but theirs.
var privateMounts = sync.OnceValue(func() bool {
	if os.Geteuid() != 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", hideContainers, "sh", "true").Run() == nil
})

const hideContainers = `if test -d /var/lib/containers; then mount -t tmpfs tmpfs /var/lib/containers; fi && exec "$@"`

// try runs a tool and returns what it did.
func (h *peerHome) try(tool string, args ...string) ran {
	h.t.Helper()
	argv := append([]string{peerTool(h.t, tool)}, args...)
	if privateMounts() {
		argv = append([]string{"unshare", "--mount", "sh", "-c", hideContainers, "sh"}, argv...)
	}
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = h.dir, h.env
	cmd.WaitDelay = 10 * time.Second
	return runCommand(h.t, cmd)
}

// run runs a tool that must succeed and returns its stdout.
func (h *peerHome) run(tool string, args ...string) string {
	h.t.Helper()
	r := h.try(tool, args...)
	if r.exit != 0 {
		h.t.Fatalf("%s %s: exit %d\n%s", tool, strings.Join(args, " "), r.exit, r.stderr)
	}
	return r.stdout
}

// fails runs a tool that must not succeed, for a reason that it names with one
// of these words: it could fail for any other reason too.
func (h *peerHome) fails(words []string, tool string, args ...string) {
	h.t.Helper()
	r := h.try(tool, args...)
	if r.exit == 0 {
		h.t.Errorf("%s %s: succeeded, want a failure\n%s", tool, strings.Join(args, " "), r.stdout)
		return
	}
	for _, word := range words {
		if strings.Contains(r.stderr, word) {
			return
		}
	}
	h.t.Errorf("%s %s: failed for another reason than %q:\n%s", tool, strings.Join(args, " "), words, r.stderr)
}

// storage returns the arguments that podman and buildah take before a command;
// they need root, or a user with subordinate ids.
func (h *peerHome) storage(tool string) []string {
	args := []string{"--root", h.path("root"), "--runroot", h.path("run"), "--storage-driver", "vfs"}
	if tool == "podman" {
		args = append(args, "--tmpdir", h.path("podman"), "--cgroup-manager", "cgroupfs")
	}
	return args
}

func (h *peerHome) podman(args ...string) string {
	h.t.Helper()
	return h.run("podman", append(h.storage("podman"), args...)...)
}

// podmanPulls fails unless podman takes the image ref of the layout at dir as what
// it is: podman names images by their config.
func (h *peerHome) podmanPulls(dir, ref string) {
	h.t.Helper()
	config := manifestOf(h.t, dir, ref).Config.Digest.Encoded()
	if got := strings.TrimSpace(h.podman("pull", "--quiet", "oci:"+dir+":"+ref)); got != config {
		h.t.Errorf("podman pull = %s, want %s", got, config)
	}
}

func (h *peerHome) buildah(args ...string) string {
	h.t.Helper()
	return h.run("buildah", append(h.storage("buildah"), args...)...)
}

// needEngine skips the test where podman and buildah cannot work at all.
func (h *peerHome) needEngine(tool string) {
	h.t.Helper()
	peerTool(h.t, tool)
	if os.Geteuid() == 0 {
		return
	}
	if r := h.try(tool, append(h.storage(tool), "images")...); r.exit != 0 {
		cannot(h.t, "%s cannot run as this user: %s", tool, r.stderr)
	}
}

func writePeerFile(t testing.TB, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func readPeerFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// decode parses JSON of which the test knows the form.
func decode[T any](t testing.TB, raw string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		t.Fatalf("%v in %.400q", err, raw)
	}
	return v
}

// decodeLines parses one JSON document per line.
func decodeLines[T any](t testing.TB, raw string) []T {
	t.Helper()
	var out []T
	for line := range bytes.Lines([]byte(raw)) {
		out = append(out, decode[T](t, string(line)))
	}
	return out
}
