package layout_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// readSeeds returns the files that pattern names; none is fatal.
func readSeeds(f *testing.F, pattern string) [][]byte {
	f.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds in %s: %v", pattern, err)
	}
	var seeds [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	return seeds
}

// What ParseIndex accepts, encoding/json accepts too and reads alike; its bytes
// are kept; and after an edit it is an index with the same entries again.
func FuzzParseIndex(f *testing.F) {
	for _, seed := range readSeeds(f, "testdata/index/*.json") {
		f.Add(seed)
	}
	for _, tt := range hostileJSON {
		if len(tt.raw) < 4096 {
			f.Add([]byte(tt.raw))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := layout.ParseIndex(data)
		if err != nil {
			if !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrMismatch) {
				t.Fatalf("ParseIndex = %v, want ErrInvalid or ErrMismatch", err)
			}
			return
		}
		var want ocispec.Index
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("encoding/json refuses what ParseIndex accepts: %v", err)
		}
		same := func(what string, x *layout.Index) {
			if diff := cmp.Diff(want.Manifests, x.Entries(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: entries (-encoding/json +ours):\n%s", what, diff)
			}
			if diff := cmp.Diff(want.Annotations, x.Annotations(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: annotations (-encoding/json +ours):\n%s", what, diff)
			}
			if diff := cmp.Diff(want.Subject, x.Subject(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: subject (-encoding/json +ours):\n%s", what, diff)
			}
			if want.ArtifactType != x.ArtifactType() {
				t.Errorf("%s: artifactType %q, encoding/json reads %q", what, x.ArtifactType(), want.ArtifactType)
			}
		}
		same("parsed", x)
		if string(x.Bytes()) != string(data) {
			t.Errorf("bytes changed without an edit: %q", x.Bytes())
		}
		x.Add(ocispec.Descriptor{MediaType: "a/b", Digest: "sha256:" + hexE})
		x.Remove(x.Len() - 1)
		once := x.Bytes()
		if again, err := layout.ParseIndex(once); err != nil {
			// An entry fewer than the limit may still be written in more bytes.
			if len(once) <= layout.MaxDocument {
				t.Errorf("what an edit wrote is refused: %v\n%s", err, once)
			}
		} else {
			same("edited", again)
		}
	})
}

var digestGrammar = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// A digest is what the grammar says and nothing else, and its path stays in blobs/.
func FuzzParseDigest(f *testing.F) {
	for _, seed := range readSeeds(f, "testdata/digest/*.txt") {
		f.Add(string(seed))
	}
	for _, tt := range hostileDigests {
		f.Add(tt.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := layout.ParseDigest(s)
		// $ also fits before a final newline in other engines, not in RE2.
		if want := digestGrammar.MatchString(s); (err == nil) != want {
			t.Fatalf("ParseDigest(%q) = %v, %v", s, d, err)
		}
		if err != nil {
			if !errors.Is(err, layout.ErrInvalid) || d != "" {
				t.Errorf("ParseDigest(%q) = %q, %v", s, d, err)
			}
			return
		}
		p := layout.BlobPath(d)
		back, ok := layout.ParseBlobPath(p)
		if !ok || back != d || !filepath.IsLocal(p) || filepath.Dir(p) != "blobs/"+string(d.Algorithm()) {
			t.Errorf("BlobPath(%s) = %q, and back %q, %v", d, p, back, ok)
		}
	})
}
