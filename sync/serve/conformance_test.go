package serve_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/sync/serve"
)

// conformance returns the conformance suite of the distribution specification,
// of .tools/bin or PATH.
func conformance(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".tools", "bin", "conformance")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	path, err := exec.LookPath("conformance")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the conformance suite is not installed: run make tools")
		}
		t.Skip("the conformance suite is not installed: run make tools")
	}
	return path
}

// The suite, read-only: every case that runs passes. It does not look at the
// bytes: TestContent does. It panics after its report (ReportResultsYAML, with
// HEAD requests in read-only mode), so the report counts, not the exit status.
//
// OCI_API_MANIFESTS_DIGEST_HEADER stays off: the suite takes up the header of a
// response only if it knows the bytes of the manifest (ManifestGetExists and
// ManifestHeadExists in its api.go), which it does of what it has pushed itself,
// and else looks for Docker-Content-Digest in a response that it has made up. No
// registry passes that read-only. TestContent looks at the header.
func TestConformance(t *testing.T) {
	suite := conformance(t)
	line := regexp.MustCompile(`(?m)^ *(OCI Conformance Test[^\n:]*): (.*)$`)
	forms(t, func(t *testing.T, open func(t *testing.T, dir string) serve.Source) {
		dir, c := sample(t)
		s := start(t, serve.Options{Sources: []serve.Source{open(t, dir)}})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, suite)
		cmd.Dir = t.TempDir()
		cmd.Env = append(
			os.Environ(),
			"OCI_REGISTRY="+strings.TrimPrefix(s.url, "http://"), "OCI_TLS=disabled", "OCI_REPO1=garden", "OCI_REPO2=app", "OCI_VERSION=1.1",
			"OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false",
			"OCI_API_BLOBS_DIGEST_HEADER=true",
			"OCI_RO_DATA_TAGS=app 1.0",
			"OCI_RO_DATA_MANIFESTS="+string(c.App.Digest)+" "+string(c.AMD64.Digest)+" "+string(c.Artifact.Digest),
			"OCI_RO_DATA_BLOBS="+string(c.Layer.Digest)+" "+string(c.Large.Digest)+" "+string(c.Long.Digest),
			"OCI_RO_DATA_REFERRERS="+string(c.Artifact.Digest), "OCI_RESULTS_DIR="+cmd.Dir,
		)
		out, err := cmd.Output()
		report, _, _ := strings.Cut(string(out), "Configuration:")
		results := map[string]string{}
		for _, m := range line.FindAllStringSubmatch(report, -1) {
			name, result := m[1], strings.TrimSpace(m[2])
			results[name] = result
			if result != "Pass" && result != "Disabled" {
				t.Errorf("%s: %s", name, result)
			}
		}
		// A run that tested nothing passes too.
		for _, name := range []string{
			"", "/ping", "/empty/tag list", "/empty/referrers", "/read-only/tag-list", "/read-only/head/manifest-head-by-tag",
			"/read-only/head/manifest-head-by-digest", "/read-only/head/blob-head", "/read-only/pull/manifest-by-tag",
			"/read-only/pull/manifest-by-digest", "/read-only/pull/blob-get", "/read-only/referrers", "/missing-manifest/by-digest",
			"/missing-manifest/by-tag", "/invalid-digest-format/manifest-get",
		} {
			if got := results["OCI Conformance Test"+name]; got != "Pass" {
				t.Errorf("%s: %q, want Pass", name, got)
			}
		}
		if t.Failed() {
			t.Logf("%v\n%s", err, report)
		}
		for _, path := range []string{string(c.Large.Digest), string(c.Long.Digest)} {
			if !strings.Contains(s.log.String(), path) {
				t.Errorf("the suite never asked for %s", path)
			}
		}
	})
}
