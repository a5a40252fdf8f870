package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/difftext"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
	"github.com/gardenlinux/gloci-layout/layout/extract/extracttest"
)

// Whatever names and contents hostile layers have, no byte of them can move the
// cursor of a terminal, forge a line or be taken for markup.
func TestDiffHostile(t *testing.T) {
	var dirs [2]string
	for i := range dirs {
		dirs[i] = filepath.Join(t.TempDir(), "layout")
		l, err := layout.Create(t.Context(), dirs[i], nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Stage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m := ocispec.Manifest{ArtifactType: "application/x\x1b[2J", Annotations: map[string]string{"k\x1b]0;title\a": fmt.Sprint("v\r\n\x9b", i)}}
		if m.Config, err = s.AddBytes(t.Context(), []byte("{}"), ocispec.MediaTypeEmptyJSON); err != nil {
			t.Fatal(err)
		}
		for n, h := range extracttest.HostileLayers("/nonexistent") {
			if h.Slow || h.Damaged != nil || strings.Contains(h.Name, "sparse file above") {
				continue
			}
			data := h.Layer()
			if i == 1 {
				data = extracttest.Tar(extracttest.File("etc/motd", "hello"))
			}
			desc, err := s.AddBytes(t.Context(), data, "application/octet-stream")
			if err != nil {
				t.Fatal(err)
			}
			desc.Annotations = map[string]string{ocispec.AnnotationTitle: fmt.Sprintf("%d\u202e\x1b[31m%s", n, h.Name)}
			m.Layers = append(m.Layers, desc)
		}
		m.MediaType, m.SchemaVersion = ocispec.MediaTypeImageManifest, 2
		raw, err := layout.EncodeManifest(m)
		if err != nil {
			t.Fatal(err)
		}
		desc, err := s.AddBytes(t.Context(), raw, ocispec.MediaTypeImageManifest)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), func(tx *layout.Tx) error {
			tx.SetRef("app", desc)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, flags := range [][]string{{}, {"--text"}, {"--stat"}, {"--format", "markdown"}, {"--json", "--text"}} {
		var stdout, stderr bytes.Buffer
		status := run(append([]string{"gloci-layout", "diff", dirs[0], dirs[1]}, flags...), &stdout, &stderr)
		if status != exitNo {
			t.Errorf("%q: status %d, stderr %s", flags, status, stderr.String())
		}
		for i, line := range strings.Split(stdout.String(), "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q, line %d: %q", flags, i+1, line)
			}
			if len(flags) > 0 && flags[0] == "--json" && line != "" && !json.Valid([]byte(line)) {
				t.Errorf("no JSON: %q", line)
			}
		}
		if lines := strings.Count(stdout.String(), "\n"); lines < 50 && flags != nil && len(flags) != 1 {
			t.Errorf("%q: only %d lines", flags, lines)
		}
	}
}

// Every kind of change has a letter of its own, which the legend explains.
func TestDiffLetters(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range []diff.Kind{
		filediff.Added, filediff.Removed, filediff.Changed, filediff.Moved, filediff.Renamed,
		filediff.Reordered, filediff.Recompressed, filediff.Upgraded, filediff.Downgraded,
	} {
		l := difftext.Letter(k)
		if l == "?" || seen[l] {
			t.Errorf("%s has the letter %s", k, l)
		}
		seen[l] = true
	}
	if len(difftext.Legend) != len(seen) {
		t.Errorf("the legend has %d kinds, want %d", len(difftext.Legend), len(seen))
	}
}

func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{
		"usr/bin/[":    "usr/bin/[",
		"größe":        "größe",
		"a b":          `"a b"`,
		"":             `""`,
		"x\x1b[31m":    `"x\x1b[31m"`,
		"a\nA b":       `"a\nA b"`,
		`say "hi"`:     `"say \"hi\""`,
		"\xff":         `"\xff"`,
		"left\u202eto": `"left\u202eto"`,
	} {
		if have := quoted(in); have != want {
			t.Errorf("quoted(%q) = %s, want %s", in, have, want)
		}
	}
}
