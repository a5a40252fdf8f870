//go:build linux

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// chainID is how containerd names an unpacked image; see config.md of
// image-spec, "Layer ChainID".
func chainID(im *testImage) string {
	chain := im.diffIDs[0]
	for _, d := range im.diffIDs[1:] {
		chain = digest.FromString(string(chain) + " " + string(d))
	}
	return string(chain)
}

// startContainerd runs a daemon that ends with the test and returns a function
// that runs ctr on it, as [peerHome.try] does.
func startContainerd(t *testing.T, h *peerHome) (ctr func(args ...string) ran) {
	t.Helper()
	daemon := peerTool(t, "containerd")
	peerTool(t, "ctr")
	if !privateMounts() {
		cannot(t, "containerd needs root, and mounts of its own")
	}
	socket := h.path("ctr")
	config := h.path("containerd.toml")
	writePeerFile(t, config, fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.overlayfs",
  "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = %q
[ttrpc]
address = %q
`, h.path("containerd/root"), h.path("containerd/state"), socket, socket+".ttrpc"))
	log, err := os.Create(h.path("containerd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	//nolint:noctx // ended by the cleanup below, after the last client
	cmd := exec.Command("unshare", "--mount", "sh", "-c", hideContainers, "sh", daemon, "--config", config)
	cmd.Env, cmd.Stdout, cmd.Stderr = h.env, log, log
	wait, err := regtest.StartChild(cmd)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = wait() // killed: never a success
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	ctr = func(args ...string) ran {
		t.Helper()
		return h.try("ctr", append([]string{"--address", socket}, args...)...)
	}
	for deadline := time.After(20 * time.Second); ; {
		if r := ctr("version"); r.exit == 0 {
			return ctr
		}
		select {
		case <-ended:
			cannot(t, "containerd does not run here:\n%s", readPeerFile(t, h.path("containerd.log")))
		case <-deadline:
			cannot(t, "containerd does not answer:\n%s", readPeerFile(t, h.path("containerd.log")))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// containerd, and with it docker (its containerd image store) and Kubernetes.
func containerdReads(t *testing.T, v *peerView) {
	h := newPeerHome(t)
	ctr := startContainerd(t, h)
	chains := func() []string {
		var keys []string
		for i, line := range strings.Split(strings.TrimSpace(ctr("snapshots", "--snapshotter", "native", "ls").stdout), "\n") {
			if i > 0 { // the title
				keys = append(keys, strings.Fields(line)[0])
			}
		}
		return keys
	}
	const noMatch = "no match for platform"

	// By .oci file. One ref name each: an archive with an index that has nothing
	// for a platform is refused as a whole.
	for i, c := range v.choices() {
		file := h.path(fmt.Sprintf("%d.oci", i))
		mustRun(t, h.dir, "pack", v.dir+":"+c.ref, file)
		name := fmt.Sprintf("example.org/import%d", i)
		r := ctr("images", "import", "--snapshotter", "native", "--platform", "linux/"+c.arch, "--base-name", name, file)
		if c.image == nil {
			if r.exit == 0 || !strings.Contains(r.stderr, noMatch) {
				t.Errorf("import of %s for %s: exit %d, want %q\n%s%s", c.ref, c.arch, r.exit, noMatch, r.stdout, r.stderr)
			}
			continue
		}
		if r.exit != 0 || !slices.Contains(chains(), chainID(c.image)) {
			t.Errorf("import of %s for %s: exit %d, snapshots %q, want %s among them\n%s", c.ref, c.arch, r.exit, chains(), chainID(c.image), r.stderr)
		}
		images := ctr("images", "ls").stdout
		if want := string(v.refs(t)[c.ref].Digest); !strings.Contains(images, name+":"+c.ref+" ") || !strings.Contains(images, want) {
			t.Errorf("images lack %s:%s with %s:\n%s", name, c.ref, want, images)
		}
	}

	// From a registry.
	for _, c := range v.choices() {
		r := ctr("images", "pull", "--plain-http", "--snapshotter", "native", "--print-chainid", "--platform", "linux/"+c.arch, v.repo+":"+c.ref)
		switch {
		case c.image == nil && (r.exit == 0 || !strings.Contains(r.stderr, noMatch)):
			t.Errorf("pull of %s for %s: exit %d, want %q\n%s%s", c.ref, c.arch, r.exit, noMatch, r.stdout, r.stderr)
		case c.image != nil && (r.exit != 0 || !strings.Contains(r.stdout, "image chain ID: "+chainID(c.image))):
			t.Errorf("pull of %s for %s: exit %d, want chain ID %s\n%s%s", c.ref, c.arch, r.exit, chainID(c.image), r.stdout, r.stderr)
		}
	}
}
