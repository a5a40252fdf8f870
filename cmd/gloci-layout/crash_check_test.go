//go:build linux && (amd64 || arm64)

package main_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/killpoint"
)

// A state is every file below a directory: its mode and the digest of its bytes.
type state map[string]string

func readState(dir string) (state, error) {
	s := state{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			text += " " + hex.EncodeToString(sum[:])
		}
		s[filepath.ToSlash(rel)] = text
		return nil
	})
	return s, err
}

// below returns what lies at and below name.
func (s state) below(name string) state {
	out := state{}
	for p, text := range s {
		if p == name || strings.HasPrefix(p, name+"/") {
			out[p] = text
		}
	}
	return out
}

// scratch is where temporary files are that have to do with no output.
const scratch = "scratch"

// isTemp tells whether name, of the first level, is a temporary file or
// directory that stands beside an output and is named after it; or one in scratch,
// which a kill may leave there only before its name is taken away.
func isTemp(name, output string) bool {
	first, _, _ := strings.Cut(name, "/")
	if first == scratch && name != scratch {
		return true
	}
	return output != "" && (strings.HasPrefix(first, "."+output+".tmp") || strings.HasPrefix(first, "."+output+".parts.json.tmp") || strings.HasPrefix(first, "."+output+".extract-"))
}

// owns tells whether p is, or is part of, what the command makes.
func (c *crashCase) owns(p string) bool {
	return c.output != "" && (p == c.output || strings.HasPrefix(p, c.output+"/") || c.split && strings.HasPrefix(p, c.output+"."))
}

// checkCrash holds the promise of docs/design.md against what a killed or failed
// command has left in now: old or new, nothing between.
func (c *crashCase) checkCrash(now state) (isNew bool, err error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for p := range c.after {
		if _, ok := now[p]; !ok && c.before[p] != "" && c.after[p] == c.before[p] {
			bad("%s, which nothing should change, is gone", p)
		}
	}
	for p, text := range now {
		switch {
		case text == c.before[p] && text == c.after[p]:
		case p == ".": // its mode and times are not ours
		case c.owns(p):
		case isTemp(p, c.output):
		case c.output != "":
			bad("%s: %q, was %q", p, text, c.before[p])
		case p == c.layout+"/index.json" && (text == c.before[p] || text == c.after[p]):
		case strings.HasPrefix(p, c.layout+"/.gloci"):
		case p == c.layout+"/blobs/sha256":
		case strings.HasPrefix(p, c.layout+"/blobs/sha256/"):
			// A blob may be there early or late, but only whole.
			if !strings.HasSuffix(text, " "+path.Base(p)) {
				bad("%s holds other bytes: %s", p, text)
			}
			if !strings.HasPrefix(text, "-rw-r--r--") {
				bad("%s has the mode %s", p, text)
			}
		default:
			bad("%s: %q, was %q, becomes %q", p, text, c.before[p], c.after[p])
		}
	}
	if c.split {
		// The manifest is the old or the new one, and has all its parts.
		manifest := c.output + ".parts.json"
		isNew = now[manifest] == c.after[manifest]
		whole := c.after
		if !isNew {
			whole = c.before
			if now[manifest] != c.before[manifest] {
				bad("%s is neither the old nor the new one", manifest)
			}
		}
		for p, text := range whole {
			if c.owns(p) && now[p] != text {
				bad("%s: %q, was %q", p, now[p], text)
			}
		}
		return isNew, errors.Join(errs...)
	}
	if c.output != "" {
		got := now.below(c.output)
		isNew = maps.Equal(got, c.after.below(c.output))
		if !isNew && !maps.Equal(got, c.before.below(c.output)) {
			bad("%s is neither the old nor the new one: %v", c.output, slices.Sorted(maps.Keys(got)))
		}
		return isNew, errors.Join(errs...)
	}
	x := c.layout + "/index.json"
	isNew = now[x] == c.after[x]
	if c.gc {
		isNew = maps.Equal(now.below(c.layout+"/blobs"), c.after.below(c.layout+"/blobs"))
	}
	return isNew, errors.Join(errs...)
}

// checkFinal demands the state that the command reaches undisturbed. Temporary
// files beside an output may be left by a kill.
func (c *crashCase) checkFinal(now state, killed bool) error {
	var errs []error
	for p, text := range now {
		if killed && isTemp(p, c.output) {
			continue
		}
		if text != c.after[p] && p != "." {
			errs = append(errs, fmt.Errorf("%s: %q, want %q", p, text, c.after[p]))
		}
	}
	for p := range c.after {
		if _, ok := now[p]; !ok {
			errs = append(errs, fmt.Errorf("%s is missing", p))
		}
	}
	return errors.Join(errs...)
}

// A disk is a model of what a power cut takes: bytes of files that were not
// synced since they were written, and names that were not synced with their
// directory. It is fed with traces, also of several runs one after another.
type disk struct {
	exists map[string]bool
	bytes  map[string]bool // written and not synced
	names  map[string]bool // created or renamed, and the directory not synced
	errs   []error
}

func newDisk(dir string, s state) *disk {
	d := &disk{exists: map[string]bool{}, bytes: map[string]bool{}, names: map[string]bool{}}
	for p := range s {
		d.exists[path.Join(dir, p)] = true
	}
	return d
}

// run applies a trace. At the moment when index.json of a layout that was there
// before is replaced, what it may name has to be durable.
func (d *disk) run(trace []killpoint.Call) {
	for _, c := range trace {
		if !c.Done || c.Result < 0 {
			continue
		}
		switch c.Name {
		case "openat", "openat2", "open", "creat", "mkdirat", "mkdir", "mknodat":
			if !d.exists[c.Path] {
				d.exists[c.Path], d.names[c.Path] = true, true
			}
		case "write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range", "sendfile", "splice", "ioctl", "ftruncate", "truncate":
			d.bytes[c.Path] = true
		case "fsync", "fdatasync":
			delete(d.bytes, c.Path)
			for p := range d.names {
				if path.Dir(p) == c.Path {
					delete(d.names, p)
				}
			}
		case "syncfs": // all of these tests lie on one file system
			clear(d.bytes)
			clear(d.names)
		case "renameat", "renameat2", "rename":
			if path.Base(c.To) == "index.json" && d.exists[c.To] {
				d.checkBelow(path.Join(path.Dir(c.To), "blobs"), "index.json is replaced before")
				if d.bytes[c.Path] {
					d.errs = append(d.errs, errors.New("index.json is renamed before its bytes are synced"))
				}
			}
			if file, ok := strings.CutSuffix(c.To, "parts.json"); ok {
				d.check(func(p string) bool { return strings.HasPrefix(p, file) || p == c.Path && d.bytes[p] }, "the manifest of parts is renamed before")
			}
			d.rename(c.Path, c.To)
		case "linkat", "link":
			d.exists[c.To], d.names[c.To] = true, true
			if d.bytes[c.Path] {
				d.bytes[c.To] = true
			}
		case "unlinkat", "unlink", "rmdir":
			delete(d.exists, c.Path)
			delete(d.bytes, c.Path)
			delete(d.names, c.Path)
		}
	}
}

func (d *disk) rename(from, to string) {
	for _, m := range []map[string]bool{d.exists, d.bytes, d.names} {
		for p := range maps.Clone(m) {
			if p == to || strings.HasPrefix(p, to+"/") {
				delete(m, p)
			}
		}
		for p := range maps.Clone(m) {
			if p == from || strings.HasPrefix(p, from+"/") {
				delete(m, p)
				m[to+p[len(from):]] = true
			}
		}
	}
	d.names[to] = true
}

// checkBelow reports what a power cut could take from dir.
func (d *disk) checkBelow(dir, what string) {
	d.check(func(p string) bool {
		return (p == dir || strings.HasPrefix(p, dir+"/")) && !strings.Contains(p, "/.gloci")
	}, what)
}

// check reports what a power cut could take of the files that inside knows.
func (d *disk) check(inside func(p string) bool, what string) {
	for _, p := range slices.Sorted(maps.Keys(d.bytes)) {
		if inside(p) {
			d.errs = append(d.errs, fmt.Errorf("%s the bytes of %s are synced", what, p))
		}
	}
	for _, p := range slices.Sorted(maps.Keys(d.names)) {
		if inside(p) {
			d.errs = append(d.errs, fmt.Errorf("%s the name %s is synced", what, p))
		}
	}
}

// done returns all that is wrong once the command has said that it is done.
// Temporary files of killed runs do not count.
func (d *disk) done(dir, output string) error {
	for _, m := range []map[string]bool{d.bytes, d.names} {
		for p := range maps.Clone(m) {
			if rel, err := filepath.Rel(dir, p); err == nil && isTemp(rel, output) {
				delete(m, p)
			}
		}
	}
	d.checkBelow(dir, "the command ends before")
	if n := len(d.errs); n > 3 {
		d.errs = append(d.errs[:3], fmt.Errorf("and %d more", n-3))
	}
	return errors.Join(d.errs...)
}
