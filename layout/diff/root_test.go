//go:build linux

package diff_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout/diff"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// Two root file systems of real packages, of which one was upgraded by dpkg:
// files are what diff --recursive says, packages what dpkg-query says.
func TestRootFileSystems(t *testing.T) {
	need := []string{"dpkg", "dpkg-deb", "dpkg-query", "tar", "diff", "cp"}
	for _, tool := range need {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, tool+" is not installed")
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("dpkg unpacks for root alone")
	}
	dir := t.TempDir()
	path := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	mkdir(t, path("debs"), path("a", "var/lib/dpkg"))
	var debs []string
	for _, name := range []string{"sed", "grep", "dash", "hostname", "debianutils", "gzip", "base-files"} {
		if exec.CommandContext(t.Context(), "dpkg-query", "--show", name).Run() != nil {
			continue // another machine has other packages
		}
		repack(t, name, path("pkg", name), path("debs", name+".deb"))
		debs = append(debs, path("debs", name+".deb"))
	}
	if len(debs) < 4 {
		skip(t, "this machine has too few of the packages")
	}
	upgraded := strings.TrimSuffix(filepath.Base(debs[0]), ".deb")
	dpkg := func(root string, debs ...string) {
		run(t, append([]string{"dpkg", "--root=" + root, "--log=/dev/null", "--force-all", "--unpack"}, debs...)...)
	}
	dpkg(path("a"), debs...)
	run(t, "cp", "--archive", path("a"), path("b"))
	change(t, path("pkg", upgraded))
	run(t, "dpkg-deb", "--build", path("pkg", upgraded), path("debs", "new.deb"))
	dpkg(path("b"), path("debs", "new.deb"))

	side := func(f compress.Format, created string, tarball []byte) diff.Side {
		s := newStore()
		layer := s.put(mediaTypes[f], squeeze(f, tarball))
		conf := s.putJSON(ocispec.MediaTypeImageConfig, map[string]any{
			"os": "linux", "architecture": "amd64", "created": created, "history": []any{map[string]any{"created": created, "created_by": "build at " + created}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []digest.Digest{digest.FromBytes(tarball)}},
		})
		desc := s.putJSON(ocispec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "config": conf, "layers": []ocispec.Descriptor{layer}})
		desc.MediaType = ocispec.MediaTypeImageManifest
		s.entries = []ocispec.Descriptor{named(desc, "root")}
		return diff.Side{Source: s}
	}
	tarOfRoot := func(root string, flags ...string) []byte {
		return run(t, append(append([]string{"tar", "--create", "--directory=" + path(root)}, flags...), ".")...)
	}
	var sides [2]diff.Side
	for i, root := range []string{"a", "b"} {
		sides[i] = side(compress.Gzip, "2025-01-01T00:00:00Z", tarOfRoot(root, "--sort=name", "--numeric-owner"))
	}
	// The same root, built again: other times, order, names of owners, format of
	// the archive and compression.
	again := side(compress.Zstd, "2025-02-02T00:00:00Z", tarOfRoot("a", "--sort=inode", "--format=gnu", "--mtime=@77", "--owner=builder:0", "--group=builder:0"))
	var semantic diff.Options
	if err := semantic.Ignore.ParseIgnore(diff.Semantic...); err != nil {
		t.Fatal(err)
	}
	if all := changes(t, sides[0], again, nil, nil); len(all) < 100 {
		t.Errorf("a rebuild differs in %d things only", len(all))
	}
	for _, ch := range changes(t, sides[0], again, &semantic, nil) {
		t.Errorf("semantic: %s", short(ch))
	}
	if len(changes(t, sides[1], again, &semantic, nil)) == 0 {
		t.Error("semantic: the upgrade is not seen")
	}
	files, packages := []string{}, []string{}
	for _, ch := range changes(t, sides[0], sides[1], nil, nil) {
		switch ch.Level {
		case diff.LevelPackage:
			packages = append(packages, fmt.Sprintf("%s:%s %s>%s", ch.Package.Name, ch.Package.Architecture, ch.Package.A, ch.Package.B))
		case diff.LevelFile:
			// diff has no eye for owners, modes and times.
			if ch.Kind != filediff.Changed || slices.ContainsFunc(ch.Fields, func(f diff.Field) bool { return f.Name == "content" || f.Name == "link" || f.Name == "type" }) {
				files = append(files, string(ch.Kind)+" "+ch.Path[0])
			}
		case diff.LevelDefault, diff.LevelRefs, diff.LevelIndex, diff.LevelManifest, diff.LevelConfig, diff.LevelLayer:
		}
	}
	slices.Sort(files)
	want := diffRecursive(t, path("a"), path("b"))
	if len(want) < 5 {
		t.Errorf("only %d files differ: %q", len(want), want)
	}
	if d := gocmp.Diff(want, files); d != "" {
		t.Errorf("files (-diff --recursive +ours):\n%s", d)
	}
	if d := gocmp.Diff(installed(t, path("a"), path("b")), packages); d != "" {
		t.Errorf("packages (-dpkg-query +ours):\n%s", d)
	}
	t.Logf("%d files, %q", len(files), packages)
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func run(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = append(os.Environ(), "LC_ALL=C"), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, stderr.String())
	}
	return out
}

func mkdir(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// repack makes a package again from what is installed, in tree.
func repack(t *testing.T, name, tree, deb string) {
	t.Helper()
	mkdir(t, filepath.Join(tree, "DEBIAN"))
	for file := range strings.Lines(string(run(t, "dpkg-query", "--listfiles", name))) {
		file = strings.TrimSpace(file)
		st, err := os.Lstat(file)
		if err != nil {
			continue // removed by hand, or diverted
		}
		to := filepath.Join(tree, file)
		followed, err := os.Stat(file)
		switch {
		case err == nil && followed.IsDir(): // /bin may have become a link to usr/bin
			mkdir(t, to)
		case st.Mode().IsRegular(), st.Mode()&fs.ModeSymlink != 0:
			mkdir(t, filepath.Dir(to))
			run(t, "cp", "--archive", "--no-dereference", file, to)
		}
	}
	var control []string
	skipped := false // fields of the status file, with their continuation
	for line := range strings.Lines(string(run(t, "dpkg-query", "--status", name))) {
		if line[0] != ' ' {
			field, _, _ := strings.Cut(line, ":")
			skipped = slices.Contains([]string{"Status", "Conffiles", "Config-Version"}, field)
		}
		if !skipped && strings.TrimSpace(line) != "" {
			control = append(control, line)
		}
	}
	write(t, filepath.Join(tree, "DEBIAN/control"), strings.Join(control, ""))
	run(t, "dpkg-deb", "--build", tree, deb)
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// change makes a new version of the package in tree.
func change(t *testing.T, tree string) {
	t.Helper()
	control := filepath.Join(tree, "DEBIAN/control")
	raw, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "Version:") {
			line = strings.TrimSpace(line) + "+b1\n"
		}
		lines = append(lines, line)
	}
	write(t, control, strings.Join(lines, ""))
	n := 0
	err = filepath.WalkDir(tree, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(file, "DEBIAN") {
			return err
		}
		switch n++; {
		case n == 1:
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			if _, err := f.WriteString("another build\n"); err != nil {
				return err
			}
			return f.Close()
		case n == 2:
			return os.Remove(file)
		}
		return nil
	})
	if err != nil || n < 2 {
		t.Fatalf("%d files: %v", n, err)
	}
	mkdir(t, filepath.Join(tree, "usr/share/brand new dir"))
	write(t, filepath.Join(tree, "usr/share/brand new dir/file"), "new\n")
}

// diffRecursive is what diff says, what is in a directory that one side lacks
// listed too.
func diffRecursive(t *testing.T, a, b string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "diff", "--recursive", "--brief", "--no-dereference", a, b)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, _ := cmd.Output() // status 1: they differ
	var list []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "Only in "); ok {
			dir, name, _ := strings.Cut(rest, ": ")
			root, kind := a, "removed "
			if strings.HasPrefix(dir+"/", b+"/") {
				root, kind = b, "added "
			}
			err := filepath.WalkDir(filepath.Join(dir, name), func(file string, _ fs.DirEntry, err error) error {
				list = append(list, kind+strings.TrimPrefix(file, root+"/"))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		_, rest, _ := strings.Cut(line, " "+b+"/")
		name := strings.TrimSuffix(rest, " differ")
		if rest == "" || !strings.HasPrefix(line, "Files ") && !strings.HasPrefix(line, "Symbolic links ") {
			t.Fatalf("diff says %q", line)
		}
		list = append(list, "changed "+name)
	}
	slices.Sort(list)
	return list
}

// installed is what differs between two databases by dpkg-query.
func installed(t *testing.T, a, b string) []string {
	t.Helper()
	query := func(root string) map[string]string {
		m := map[string]string{}
		for line := range strings.Lines(string(run(t, "dpkg-query", "--admindir="+root+"/var/lib/dpkg", "--show", "--showformat=${Package}:${Architecture} ${Version}\n"))) {
			name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
			m[name] = version
		}
		return m
	}
	ma, mb := query(a), query(b)
	list := []string{}
	for name, version := range ma {
		if mb[name] != version {
			list = append(list, fmt.Sprintf("%s %s>%s", name, version, mb[name]))
		}
	}
	for name, version := range mb {
		if _, ok := ma[name]; !ok {
			list = append(list, fmt.Sprintf("%s >%s", name, version))
		}
	}
	slices.SortFunc(list, func(x, y string) int { return cmp.Compare(x, y) })
	return list
}
