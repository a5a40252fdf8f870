package archive_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/archive"
)

// Another program, in another language, that follows docs/format.md alone writes
// the same tarball, the same parts and the same manifest.
func TestSecondImplementation(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: python3 is not installed: run scripts/ci-packages.sh test")
	}
	h := newHandMade(t)
	wide := digest.SHA512.FromString("wide") // a name that is too long for a header
	h.file("blobs/sha512/"+wide.Encoded(), "wide")
	l := h.open(h.list(withName(h.image("amd64", layerTar, "base", "top"), "x"), h.image("arm64", layerTar, "", fmt.Sprintf("%2000d", 1))+"}")+"}",
		fmt.Sprintf(`{"mediaType":"text/plain","digest":%q,"size":4}`, wide))
	for _, seconds := range []int64{0, 1751328000} {
		theirs, ours := t.TempDir(), t.TempDir()
		const size = 3000
		cmd := exec.CommandContext(t.Context(), python, "testdata/second.py", h.dir, filepath.Join(theirs, "x.oci"), fmt.Sprint(size), fmt.Sprint(seconds))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		opts := &archive.PackOptions{Time: time.Unix(seconds, 0)}
		if _, err := archive.PackParts(t.Context(), l, filepath.Join(ours, "x.oci"), size, opts); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.PackFile(t.Context(), l, filepath.Join(ours, "x.oci"), opts); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(files(t, theirs), files(t, ours)); diff != "" {
			t.Errorf("at %d: they (-) and we (+) differ: %.2000s", seconds, diff)
		}
	}
}
