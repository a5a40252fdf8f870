package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		walls []time.Duration
		want  time.Duration
	}{
		{nil, 0},
		{[]time.Duration{7}, 7},
		{[]time.Duration{9, 1, 4}, 4},
		{[]time.Duration{8, 2, 100, 4}, 6},
	} {
		c := &contender{}
		for _, w := range test.walls {
			c.samples = append(c.samples, sample{wall: w})
		}
		if got := c.median(); got != test.want {
			t.Errorf("median of %v = %v, want %v", test.walls, got, test.want)
		}
	}
}

func TestVenues(t *testing.T) {
	for pattern, want := range map[string][]venue{
		"":                     {realAtOnce, realLate, holeAtOnce, holeLate},
		"^reference registry$": {realAtOnce},
		"forgets":              {holeAtOnce, holeLate},
		"20 ms":                {realLate, holeLate},
	} {
		b := &bench{at: regexp.MustCompile(pattern)}
		if got := b.venues([]venue{realAtOnce, realLate, holeAtOnce, holeLate}); !slices.Equal(got, want) {
			t.Errorf("-at %q takes %v, want %v", pattern, got, want)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1500 * time.Microsecond:   "1.5 ms",
		999400 * time.Microsecond: "999 ms",
		999600 * time.Microsecond: "1 s",
		12340 * time.Millisecond:  "12.3 s",
		123456 * time.Millisecond: "123 s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestGoal(t *testing.T) {
	b := &bench{out: io.Discard}
	a := &contender{samples: []sample{{wall: 120}}}
	b.goalRatio("a / c", a, &contender{samples: []sample{{wall: 100}}}, 1.2)
	b.goalRatio("a / d", a, &contender{samples: []sample{{wall: 90}}}, 1.2)
	b.goalRatio("a / e", a, &contender{missing: "e is not installed"}, 1.2)
	want := "a / c at most 1.2: held (1.20)\na / d at most 1.2: missed (1.33)\na / e at most 1.2: not measured (-)"
	if got := strings.Join(b.goals, "\n"); got != want {
		t.Errorf("goals:\n%s\nwant:\n%s", got, want)
	}
	if b.missed != 1 {
		t.Errorf("%d missed, want 1", b.missed)
	}
}

// What is measured must be what it says: every layout is sound, and has no
// blob that nothing names.
func TestLayouts(t *testing.T) {
	s := sizes{blob: 1000, blobs: 3, big: 1 << 20, tags: 4, shared: 2000, ownLayer: 500}
	for name, test := range map[string]struct {
		build  func(dir string) error
		images int
		blobs  int
	}{
		"blobs":  {func(dir string) error { _, err := makeBlobs(dir, s.blobs, s.blob); return err }, 1, 5},
		"images": {func(dir string) error { return makeImages(dir, 7, 1000) }, 7, 21},
		"shared": {func(dir string) error { return makeShared(dir, s) }, 4, 13},
		"root":   {func(dir string) error { _, err := makeRoot(dir, 50); return err }, 1, 3},
		"sparse": {func(dir string) error { return makeSparse(dir, s.big) }, 1, 3},
		"job":    {func(dir string) error { return makeJob(dir, 3, 5000) }, 2, 11},
		"tagged again": {func(dir string) error {
			if err := makeImages(dir, 60, 1000); err != nil {
				return err
			}
			prepare, err := restore(dir, "image-00050", "bench", true)
			if err != nil {
				return err
			}
			return prepare(context.Background())
		}, 60, 190},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := test.build(dir); err != nil {
				t.Fatal(err)
			}
			l, err := layout.Open(t.Context(), dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			r, err := layout.Verify(t.Context(), l, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range r.Findings {
				if f.Kind != "stray" {
					t.Errorf("%+v", f)
				}
			}
			if r.Documents != test.images || r.Blobs != test.blobs {
				t.Errorf("%d documents, %d blobs, want %d and %d", r.Documents, r.Blobs, test.images, test.blobs)
			}
		})
	}
}

func TestPeers(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "file"), filepath.Join(dir, "out")
	if err := writeNoise(file, 1, 3<<20+5); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"hash", file}, {"hash-all", file, file}, {"hash-write", file, out}, {"write", file, out}, {"hash-stdin", out}} {
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
		if err := runPeer(t.Context(), args, bytes.NewReader(want), io.Discard); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		got, err := os.ReadFile(out)
		if writes := args[len(args)-1] == out; writes != bytes.Equal(got, want) {
			t.Errorf("%v: wrote %d bytes, %v", args, len(got), err)
		}
	}
	if err := runPeer(t.Context(), []string{"hash", filepath.Join(dir, "none")}, nil, io.Discard); err == nil {
		t.Error("a hash of nothing")
	}
	if err := runPeer(t.Context(), nil, nil, io.Discard); err == nil {
		t.Error("a peer without a name")
	}
}

// The tar of the machine's files is one, and another variant has the same files
// with other content.
func TestReal(t *testing.T) {
	read := func(variant int) (names []string, content []byte) {
		var b bytes.Buffer
		if err := writeReal(&b, 3<<20, variant); err != nil {
			t.Fatal(err)
		}
		tr := tar.NewReader(bytes.NewReader(b.Bytes()))
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return names, b.Bytes()
			}
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, h.Name)
		}
	}
	names, a := read(0)
	again, b := read(1)
	if len(names) < 20 {
		t.Skipf("SKIPPED: %d files below %s", len(names), realFiles)
	}
	if !slices.Equal(names, again) || len(a) != len(b) || bytes.Equal(a, b) {
		t.Errorf("%d files in %d bytes, and %d in %d; equal: %v", len(names), len(a), len(again), len(b), bytes.Equal(a, b))
	}
}
