package extract_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	"github.com/gardenlinux/gloci-layout/layout/extract/extracttest"
)

// snapshot describes everything below dir, times and contents too.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%v %d", info.Mode(), info.Size())
		switch {
		case d.Type().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %v %x", info.ModTime(), b)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " " + target
		case d.IsDir():
			text = info.Mode().String() // its time changes with our temporary directory
		}
		m[strings.TrimPrefix(p, dir)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A variant is a way to extract a hostile layer.
type variant struct {
	name string
	opts extract.Options
	// image takes the layer for one of an image
	image bool
}

var variants = []variant{
	{name: "plain"},
	{name: "lenient", opts: extract.Options{Symlinks: extract.SymlinksKeep, Special: extract.SpecialSkip}},
	{name: "skipping", opts: extract.Options{Symlinks: extract.SymlinksSkip, Special: extract.SpecialSkip, Files: true}},
	{name: "rootfs", opts: extract.Options{Mode: extract.Rootfs, Special: extract.SpecialSkip}, image: true},
	{name: "preserve", opts: extract.Options{Preserve: true, Mode: extract.ExtractAll, Symlinks: extract.SymlinksKeep}},
}

// timeLimit is what a hostile layer may take.
const timeLimit = 10 * time.Second

func TestHostileLayers(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, extracttest.Victim)
	for name, body := range map[string]string{extracttest.Victim: "safe", "dir/file": "safe", ".wh.x": "safe"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(body), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, dir)
	corpus := extracttest.HostileLayers(dir)
	if len(corpus) < 90 {
		t.Errorf("%d hostile layers, and there were more", len(corpus))
	}
	seen := map[string]bool{}
	for _, h := range corpus {
		if seen[h.Name] {
			t.Errorf("two hostile layers are named %q", h.Name)
		}
		seen[h.Name] = true
		t.Run(h.Name, func(t *testing.T) {
			if h.Slow && testing.Short() {
				t.Skip("slow")
			}
			layer := h.Layer()
			for i, v := range variants {
				if h.Slow && i > 0 && v.name != "rootfs" {
					continue
				}
				start := time.Now()
				res, err := extractHostile(t, dir, h, layer, v)
				if took := time.Since(start); took > timeLimit {
					t.Errorf("%s: took %v", v.name, took)
				}
				if i == 0 && !errors.Is(err, h.Want) {
					t.Errorf("%s: %v, want %v", v.name, err, h.Want)
				}
				known := err == nil || errors.Is(err, layout.ErrUnsafe) || errors.Is(err, layout.ErrInvalid) || errors.Is(err, layout.ErrMismatch)
				if !known && v.name != "preserve" {
					t.Errorf("%s: %v is not an error of package layout", v.name, err)
				}
				if (err == nil) != (res != nil) {
					t.Errorf("%s: a result and an error: %v", v.name, err)
				}
				out := filepath.Join(dir, "out")
				if err == nil {
					makeReadable(t, out)
					if err := os.RemoveAll(out); err != nil {
						t.Fatal(err)
					}
				}
				if after := snapshot(t, dir); !maps.Equal(before, after) {
					t.Fatalf("%s: ESCAPED: the directory around has changed\n%v\n%v", v.name, before, after)
				}
				if b, err := os.ReadFile(victim); err != nil || !bytes.Equal(b, []byte("safe")) {
					t.Fatalf("%s: ESCAPED: %q, %v", v.name, b, err)
				}
			}
		})
	}
}

func extractHostile(t *testing.T, dir string, h extracttest.Hostile, layer []byte, v variant) (*extract.Result, error) {
	src := extracttest.NewSource()
	mediaType := h.MediaType
	if mediaType == "" {
		mediaType = extracttest.PlainTar
	}
	desc := src.Add(layer, mediaType)
	if h.Damaged != nil {
		damaged := bytes.Clone(layer)
		h.Damaged(damaged)
		src.Replace(desc.Digest, damaged)
	}
	opts := v.opts
	if v.image {
		// A wrong diffID is found only after all was unpacked, so that does
		// not save anybody.
		config := src.Config(layer)
		opts.Config = &config
	}
	return extract.Extract(t.Context(), src, []extract.Layer{{Desc: desc, Name: "layer"}}, filepath.Join(dir, "out"), &opts)
}

// makeReadable lets a plain user remove directories that have no mode bits.
func makeReadable(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			if info, err := d.Info(); err == nil && info.Mode().Perm()&0o700 != 0o700 {
				if err := os.Chmod(p, 0o700); err != nil { //nolint:gosec // so that it can be removed
					return err
				}
				return filepath.WalkDir(p, func(p string, d fs.DirEntry, err error) error { return nil })
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
}
