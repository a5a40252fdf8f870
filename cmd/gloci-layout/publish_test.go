package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

const (
	publishVersion  = "2150.1.0"
	publishMachines = 8
)

// publishLayouts makes one layout for each machine, with one flavor.
func publishLayouts(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	layouts := make([]string, publishMachines)
	for i := range layouts {
		base := fmt.Sprintf("flavor%d-amd64-%s-abc12345", i, publishVersion)
		build := filepath.Join(dir, base)
		if err := os.Mkdir(build, 0o700); err != nil {
			t.Fatal(err)
		}
		for suffix, content := range map[string]string{
			"vmlinuz": fmt.Sprint("kernel ", i),
			"release": fmt.Sprintf("GARDENLINUX_CNAME=flavor%d-amd64-%s\nGARDENLINUX_VERSION=%s\nGARDENLINUX_COMMIT_ID=abc12345\n", i, publishVersion, publishVersion),
		} {
			if err := os.WriteFile(filepath.Join(build, base+"."+suffix), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		layouts[i] = filepath.Join(dir, fmt.Sprint("layout", i))
		mustRun(t, dir, "init", layouts[i])
		mustRun(t, dir, "add", "flavor", layouts[i], "--ref", publishVersion, build, "--no-default-require")
	}
	return layouts
}

// publishArgs is the command line that publishes a layout, or with "" nothing.
func publishArgs(l, repo string, more ...string) []string {
	args := []string{"publish", "docker://" + repo, "--version", publishVersion, "--tls-verify=false", "--lag=0s", "--jobs=4"}
	if l != "" {
		args = slices.Insert(args, 1, l)
	}
	return append(args, more...)
}

// indexAt returns the entries of the index of the version, by cname or platform,
// as the registry gives them out.
func indexAt(t *testing.T, reg *regtest.Registry, repo string) map[string]ocispec.Descriptor {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, reg.URL()+"/v2/"+repo+"/manifests/"+publishVersion, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex)
	resp, err := reg.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	found := map[string]ocispec.Descriptor{}
	if resp.StatusCode == http.StatusNotFound {
		return found
	}
	var x ocispec.Index
	if err := json.NewDecoder(resp.Body).Decode(&x); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	for _, e := range x.Manifests {
		name, _, _ := strings.Cut(e.Annotations["cname"], "-")
		if name == "" && e.Platform != nil {
			name = e.Platform.OS + "/" + e.Platform.Architecture
		}
		found[name] = e
	}
	return found
}

// tagged tells whether the flavour of machine i has a tag.
func tagged(t *testing.T, reg *regtest.Registry, repo string, i int) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, fmt.Sprintf("%s/v2/%s/manifests/%s-flavor%d-amd64", reg.URL(), repo, publishVersion, i), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	resp, err := reg.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// publishRounds is how often the machines start together.
func publishRounds() int {
	if testing.Short() {
		return 2
	}
	return 20
}

// Eight processes publish eight flavours of one version to the reference
// registry at the same time, round after round: every index is complete.
func TestPublishProcesses(t *testing.T) {
	t.Parallel()
	layouts := publishLayouts(t)
	reg := regtest.Start(t, nil)
	for round := range publishRounds() {
		repo := fmt.Sprintf("gardenlinux/round%d", round)
		var wg sync.WaitGroup
		results := make([]ran, len(layouts))
		for i, l := range layouts {
			wg.Go(func() {
				results[i] = runBinary(t, t.TempDir(), publishArgs(l, reg.Host+"/"+repo)...)
			})
		}
		wg.Wait()
		for i, r := range results {
			if r.exit != 0 {
				t.Errorf("round %d: machine %d: exit %d: %s", round, i, r.exit, r.stderr)
			}
		}
		if got := indexAt(t, reg, repo); len(got) != publishMachines {
			t.Errorf("round %d: the index has %d of %d flavours: %v", round, len(got), publishMachines, got)
		}
		mustRun(t, t.TempDir(), "verify", "docker://"+reg.Host+"/"+repo+":"+publishVersion, "--tls-verify=false")
		if t.Failed() {
			return
		}
	}
}

// The same, but some processes are killed. After one reindex, the index has every
// flavour that has a tag, and every tag names something whole.
func TestPublishProcessesKilled(t *testing.T) {
	t.Parallel()
	layouts := publishLayouts(t)
	reg := regtest.Start(t, nil)
	killed, torn := 0, 0
	for round := range publishRounds() {
		repo := fmt.Sprintf("gardenlinux/killed%d", round)
		random := rand.New(rand.NewPCG(2, uint64(round)))
		// A process dies at a request, not after a time: how fast the machine is
		// must not decide what is tested.
		deaths, all := map[int]bool{}, round%2 == 1
		if all { // at once, so that nobody is left who puts things right
			deaths[150+random.IntN(200)] = true
		} else {
			for range 4 {
				deaths[10+random.IntN(200)] = true
			}
		}
		commands := make([]*exec.Cmd, len(layouts))
		kill := make(chan struct{}, len(deaths))
		reg.Reset()
		reg.Intercept(func(n int, _ http.ResponseWriter, _ *http.Request) bool {
			if deaths[n] {
				kill <- struct{}{}
				time.Sleep(5 * time.Millisecond) // so that it dies in the middle of things
			}
			return false
		})
		var wg sync.WaitGroup
		for i, l := range layouts {
			commands[i] = binaryCommand(t.Context(), t, t.TempDir(), publishArgs(l, reg.Host+"/"+repo)...)
			if err := commands[i].Start(); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() { _ = commands[i].Wait() })
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
	killing:
		for victim := 0; ; victim++ {
			select {
			case <-kill:
				for i, c := range commands {
					if all || i == victim%len(commands) {
						_ = c.Process.Kill() // it may have ended
					}
				}
			case <-done:
				break killing
			}
		}
		reg.Intercept(nil)
		for _, c := range commands {
			if c.ProcessState.ExitCode() < 0 {
				killed++
			}
		}
		before := len(indexAt(t, reg, repo))
		mustRun(t, t.TempDir(), publishArgs("", reg.Host+"/"+repo, "--reindex")...)
		got, want := indexAt(t, reg, repo), 0
		for i := range layouts {
			name := fmt.Sprint("flavor", i)
			_, have := got[name]
			if is := tagged(t, reg, repo, i); is != have {
				t.Errorf("round %d: %s: has a tag: %t, in the index: %t", round, name, is, have)
			} else if is {
				want++
			}
			if commands[i].ProcessState.ExitCode() == 0 && !have {
				t.Errorf("round %d: %s was published, and is lost", round, name)
			}
		}
		if before < want {
			torn++
		}
		if len(got) > 0 {
			mustRun(t, t.TempDir(), "verify", "docker://"+reg.Host+"/"+repo, "--tls-verify=false")
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d processes killed in %d rounds; %d indexes needed the reindex", killed, publishRounds(), torn)
	if killed == 0 || torn == 0 && !testing.Short() {
		t.Error("nothing was broken: the test does not test")
	}
}
