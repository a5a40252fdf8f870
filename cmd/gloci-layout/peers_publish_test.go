//go:build linux

package main_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// podman pushes its own index to the tag of the version while eight machines
// publish their flavours to it, and may win. After one reindex all is there:
// what podman has tagged by architecture always, as does the release pipeline.
// An index that was there before, with nothing tagged, is kept by the first who
// publishes.
func TestPublishBesidePodman(t *testing.T) {
	h := newPeerHome(t)
	h.needEngine("podman")
	layouts := publishLayouts(t)
	reg := regtest.Start(t, nil)
	id := strings.TrimSpace(h.podman("pull", "--quiet", "oci:"+newRich(t).dir+":"+refApp))
	platform := "linux/" + runtime.GOARCH

	lost := 0
	for round := range min(publishRounds(), 6) {
		repo := fmt.Sprintf("gardenlinux/podman%d", round)
		target := reg.Host + "/" + repo
		list := fmt.Sprintf("localhost/list%d", round)
		h.podman("manifest", "create", list)
		tagged := round%2 == 0
		if tagged {
			h.podman("push", "--quiet", "--tls-verify=false", id, target+":"+runtime.GOARCH+"-"+publishVersion)
			h.podman("manifest", "add", "--tls-verify=false", list, "docker://"+target+":"+runtime.GOARCH+"-"+publishVersion)
		} else {
			h.podman("push", "--quiet", "--tls-verify=false", id, target+":scratch")
			h.podman("manifest", "add", "--tls-verify=false", list, "docker://"+target+":scratch")
			h.podman("manifest", "push", "--all", "--tls-verify=false", list, "docker://"+target+":"+publishVersion)
		}
		var wg sync.WaitGroup
		for _, l := range layouts {
			wg.Go(func() {
				if r := runBinary(t, t.TempDir(), publishArgs(l, target)...); r.exit != 0 {
					t.Errorf("round %d: exit %d: %s", round, r.exit, r.stderr)
				}
			})
		}
		var podman sync.WaitGroup
		ended := make(chan struct{})
		if tagged {
			if round%4 == 0 { // its last request comes after all others
				reg.Intercept(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
					if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/"+publishVersion) && strings.Contains(r.UserAgent(), "containers") {
						<-ended
					}
					return false
				})
			}
			podman.Go(func() {
				h.podman("manifest", "push", "--all", "--tls-verify=false", list, "docker://"+target+":"+publishVersion)
			})
		}
		wg.Wait()
		close(ended)
		podman.Wait()
		reg.Intercept(nil)
		if len(indexAt(t, reg, repo)) <= publishMachines {
			lost++
		}
		mustRun(t, h.dir, publishArgs("", target, "--reindex")...)
		got := indexAt(t, reg, repo)
		if len(got) != publishMachines+1 || got[platform].Digest == "" {
			t.Errorf("round %d (tagged: %t): the index has %d entries, want %d: %v", round, tagged, len(got), publishMachines+1, got)
		}
		if pulled := strings.TrimSpace(h.podman("pull", "--quiet", "--tls-verify=false", target+":"+publishVersion)); pulled != id {
			t.Errorf("round %d: podman pulls %s, has pushed %s", round, pulled, id)
		}
	}
	t.Logf("%d indexes were incomplete before the reindex", lost)
	if lost == 0 {
		t.Error("podman has overwritten nothing: the test does not test")
	}
}
