package filediff_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// A file is a member of an archive.
type file struct {
	name, content string
	header        tar.Header // what is not said is usual
}

func archive(t tb, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.header
		h.Name = f.name
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.content))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, f.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packed(t tb, f compress.Format, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compress.NewWriter(&b, f, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func content(name string, data []byte) filediff.Content {
	return filediff.Content{Name: name, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// lines are changes in short: "kind path fields".
func lines(t testing.TB, a, b filediff.Content, opts *filediff.Options) []string {
	t.Helper()
	var have []string
	for ch, err := range filediff.Compare(t.Context(), a, b, opts, nil) {
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, line(ch))
	}
	return have
}

func line(ch filediff.Change) string {
	s := string(ch.Kind) + " " + strings.Join(ch.Path, "!/")
	for _, f := range ch.Fields {
		switch {
		case f.Name == "content", f.Name == "unreadable", f.Name == "encoding":
			s += " " + f.Name
		default:
			s += fmt.Sprintf(" %s=%s>%s", f.Name, value(f.A), value(f.B))
		}
	}
	for _, r := range ch.Ranges {
		s += fmt.Sprintf(" [%d+%d]", r.Offset, r.Length)
	}
	if p := ch.Package; p != nil {
		s += fmt.Sprintf(" %s %s>%s", p.Name, p.A, p.B)
	}
	return s
}

func value(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

var (
	dir = tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}
	old = []file{
		{name: "./", header: dir},
		{name: "./etc/", header: dir},
		{name: "./etc/gone", content: "x"},
		{name: "./etc/mode", content: "m"},
		{name: "./etc/text", content: "one\ntwo\n"},
		{name: "./link", header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "etc"}},
		{name: "./turned", content: "was a file"},
	}
	young = []file{
		{name: "etc/", header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o700}},
		{name: "etc/mode", content: "m", header: tar.Header{Mode: 0o4755, Uid: 7, Gname: "staff", ModTime: time.Unix(1700000001, 0), PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1"}}},
		{name: "etc/new", content: "n"},
		{name: "etc/text", content: "one\nthree\n"},
		{name: "link", header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "usr"}},
		{name: "turned", header: dir},
	}
)

func TestCompare(t *testing.T) {
	a, b := content("", archive(t, old...)), content("", packed(t, compress.Gzip, 0, archive(t, young...)))
	want := []string{
		"changed ",
		"removed .",
		"changed etc mode=0755>0700",
		"removed etc/gone",
		"changed etc/mode mode=0644>4755 uid=0>7 group=->staff mtime=2023-11-14T22:13:20Z>2023-11-14T22:13:21Z xattr user.x=->1",
		"added etc/new",
		"changed etc/text size=8>10 content [5+3]",
		"changed link link=etc>usr",
		"changed turned type=file>directory mode=0644>0755",
	}
	// The second run has no memory to keep anything in.
	for _, memory := range []int64{0, 1} {
		have := lines(t, a, b, &filediff.Options{Memory: memory, TempDir: t.TempDir()})
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("memory %d (-want +have):\n%s", memory, diff)
		}
	}
	// Nor room on the disk: then there is no more than the digests.
	for i, s := range want {
		want[i], _, _ = strings.Cut(s, " [")
	}
	have := lines(t, a, content("", archive(t, slices.Concat(young[:1], young[3:], young[1:3])...)), &filediff.Options{Memory: 1, MaxSpill: 1, Ignore: filediff.Ignore{Order: true}})
	for i, s := range have {
		have[i], _, _ = strings.Cut(s, " [")
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("no disk (-want +have):\n%s", diff)
	}
	if have := lines(t, a, a, nil); have != nil {
		t.Errorf("a content differs from itself: %q", have)
	}
}

func TestIgnore(t *testing.T) {
	usual := []file{{name: "a", content: "1"}, {name: "b", content: "2"}}
	tarA := archive(t, usual...)
	changed := func(h tar.Header) []byte {
		return archive(t, file{name: "a", content: "1", header: h}, usual[1])
	}
	for _, test := range []struct {
		name    string
		a, b    []byte
		want    []string // what is found, the heading apart
		outcome filediff.Outcome
		ignore  filediff.Ignore
	}{
		{"times", tarA, changed(tar.Header{ModTime: time.Unix(1, 0)}), []string{"changed a mtime=2023-11-14T22:13:20Z>1970-01-01T00:00:01Z"}, filediff.Uncounted, filediff.Ignore{Times: true}},
		{"mode", tarA, changed(tar.Header{Mode: 0o600}), []string{"changed a mode=0644>0600"}, filediff.Uncounted, filediff.Ignore{Mode: true}},
		{"owner", tarA, changed(tar.Header{Uid: 1, Gid: 2}), []string{"changed a uid=0>1 gid=0>2"}, filediff.Uncounted, filediff.Ignore{Owner: true}},
		{"owner names", tarA, changed(tar.Header{Uname: "u"}), []string{"changed a user=->u"}, filediff.Uncounted, filediff.Ignore{OwnerNames: true}},
		{"xattrs", tarA, changed(tar.Header{PAXRecords: map[string]string{"SCHILY.xattr.user.x": "1"}}), []string{"changed a xattr user.x=->1"}, filediff.Uncounted, filediff.Ignore{Xattrs: true}},
		{"order", tarA, archive(t, usual[1], usual[0]), []string{"reordered "}, filediff.Uncounted, filediff.Ignore{Order: true}},
		{"encoding", tarA, changed(tar.Header{Format: tar.FormatPAX, PAXRecords: map[string]string{"VENDOR.x": "y"}}), []string{"encoding"}, filediff.Uncounted, filediff.Ignore{Encoding: true}},
		{"padding", tarA, append(bytes.Clone(tarA), make([]byte, 10240)...), []string{"encoding"}, filediff.Uncounted, filediff.Ignore{Encoding: true}},
		{"compression", packed(t, compress.Gzip, 1, tarA), packed(t, compress.Zstd, 0, tarA), []string{"recompressed"}, filediff.SameContent, filediff.Ignore{Compression: true}},
		{"level of compression", packed(t, compress.Gzip, 1, bytes.Repeat(tarA, 9)), packed(t, compress.Gzip, 9, bytes.Repeat(tarA, 9)), []string{"recompressed"}, filediff.SameContent, filediff.Ignore{Compression: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			have := lines(t, content("", test.a), content("", test.b), nil)
			want := append([]string{"changed "}, test.want...)
			if w := test.want[0]; w == "encoding" {
				want = []string{"changed  encoding"}
			} else if w == "recompressed" {
				want = []string{"recompressed "}
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("-want +have:\n%s", diff)
			}
			var outcome filediff.Outcome
			for ch, err := range filediff.Compare(t.Context(), content("", test.a), content("", test.b), &filediff.Options{Ignore: test.ignore}, &outcome) {
				t.Errorf("ignored, and still there: %s %v", line(ch), err)
			}
			if outcome != test.outcome {
				t.Errorf("outcome %d, want %d", outcome, test.outcome)
			}
		})
	}
}

func TestNested(t *testing.T) {
	status := func(v string) string {
		return "Package: apt\nStatus: install ok installed\nArchitecture: amd64\nVersion: " + v + "\n\nPackage: gone" + v + "\nVersion: 1\n"
	}
	inner := func(v, big string) []byte {
		return packed(t, compress.Gzip, 0, archive(t,
			file{name: "var/lib/dpkg/status", content: status(v)}, file{name: "zz", content: big}))
	}
	nest := func(in []byte) []byte {
		return archive(t, file{name: "a", content: "same"}, file{name: "in.tar.gz", content: string(in)})
	}
	// The inner archive is larger than what is held in memory: noise does not shrink.
	noise := make([]byte, 3<<20)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	for _, big := range []string{"", string(noise)} {
		a, b := content("", nest(inner("1.0", big))), content("", nest(inner("1.0+b1", big)))
		want := []string{
			"changed ",
			"changed in.tar.gz",
			"changed in.tar.gz!/var/lib/dpkg/status",
			"upgraded in.tar.gz!/var/lib/dpkg/status apt 1.0>1.0+b1",
			"removed in.tar.gz!/var/lib/dpkg/status gone1.0 1>",
			"added in.tar.gz!/var/lib/dpkg/status gone1.0+b1 >1",
		}
		short := func(opts *filediff.Options) []string {
			have := lines(t, a, b, opts)
			for i, s := range have {
				for _, cut := range []string{" size=", " content", " ["} {
					s, _, _ = strings.Cut(s, cut)
				}
				have[i] = s
			}
			return have
		}
		if diff := cmp.Diff(want, short(nil)); diff != "" {
			t.Errorf("-want +have:\n%s", diff)
		}
		if diff := cmp.Diff(want[:2], short(&filediff.Options{Depth: 1})); diff != "" {
			t.Errorf("depth 1 (-want +have):\n%s", diff)
		}
		if diff := cmp.Diff(want[:1], short(&filediff.Options{Depth: -1})); diff != "" {
			t.Errorf("no depth (-want +have):\n%s", diff)
		}
		if diff := cmp.Diff(want, short(&filediff.Options{Only: []string{"var/**"}})); diff != "" {
			t.Errorf("only var (-want +have):\n%s", diff)
		}
		for _, globs := range [][]string{{"status"}, {"*.tar.gz"}, {"var/lib"}, {"**/dpkg/*"}} {
			if have := short(&filediff.Options{Exclude: globs}); len(have) != 0 {
				t.Errorf("without %q: %q", globs, have)
			}
		}
		if have := short(&filediff.Options{Only: []string{"etc/**"}}); len(have) != 0 {
			t.Errorf("only etc: %q", have)
		}
	}
	// A member that is compressed in another way.
	a, b := nest(packed(t, compress.Gzip, 0, []byte("hello"))), nest(packed(t, compress.Zstd, 0, []byte("hello")))
	if diff := cmp.Diff([]string{"changed ", "recompressed in.tar.gz"}, lines(t, content("", a), content("", b), nil), cmp.Transformer("", func(s string) string {
		s, _, _ = strings.Cut(s, " size")
		return s
	})); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
	if have := lines(t, content("", a), content("", b), &filediff.Options{Ignore: filediff.Ignore{Compression: true}}); len(have) > 0 {
		t.Errorf("compression ignored: %q", have)
	}
}

func TestBlobs(t *testing.T) {
	a := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	b := bytes.Clone(a)
	b[5], b[6], b[1_000_000] = 'x', 'y', 'z'
	var changes []filediff.Change
	for ch, err := range filediff.Compare(t.Context(), content("", a), content("", append(b, "more"...)), nil, nil) {
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, ch)
	}
	want := []filediff.Change{{
		Kind: filediff.Changed, Differing: 3,
		Ranges: []filediff.Range{
			{Offset: 5, Length: 2, A: []byte("56"), B: []byte("xy")},
			{Offset: 1_000_000, Length: 1, A: []byte("0"), B: []byte("z")},
		},
	}}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

func TestText(t *testing.T) {
	a, b := content("motd", []byte("one\ntwo\n")), content("motd", []byte("one\n2\n"))
	for ch, err := range filediff.Compare(t.Context(), a, b, &filediff.Options{Text: true}, nil) {
		if want := "--- a/motd\n+++ b/motd\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"; err != nil || ch.Text != want {
			t.Errorf("%q, %v, want %q", ch.Text, err, want)
		}
	}
	for _, other := range []string{"bin\x00ary", "\xff\xfe", strings.Repeat("long\n", 300_000)} {
		for ch, err := range filediff.Compare(t.Context(), a, content("motd", []byte(other)), &filediff.Options{Text: true}, nil) {
			if err != nil || ch.Text != "" {
				t.Errorf("%.10q: a diff of %d bytes, %v", other, len(ch.Text), err)
			}
		}
	}
}

// The order of an archive need not be sorted: as long as both have the same, all
// is compared on the way, and what was added does not put them out of step.
func TestUnsorted(t *testing.T) {
	var a, b []file
	for i := range 2000 {
		name := fmt.Sprintf("%x", uint32(i)*2654435761)
		f := file{name: name, content: "content of " + name}
		if i%100 != 0 {
			a = append(a, f)
		}
		if i%77 == 0 {
			f.content += ", changed"
		}
		if i%90 != 0 {
			b = append(b, f)
		}
	}
	// A name behind all others keeps nobody waiting.
	b = slices.Insert(b, 3, file{name: "zzz"})
	want := map[filediff.Kind]int{filediff.Added: 17 + 1, filediff.Removed: 20, filediff.Changed: 25 + 1}
	find := func(memory int64) error {
		kinds := map[filediff.Kind]int{}
		// There is no room on the disk: nothing may need it.
		opts := &filediff.Options{Memory: memory, TempDir: "/nonexistent"}
		for ch, err := range filediff.Compare(t.Context(), content("", archive(t, a...)), content("", archive(t, b...)), opts, nil) {
			if err != nil {
				return err
			}
			kinds[ch.Kind]++
		}
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Errorf("-want +have:\n%s", diff)
		}
		return nil
	}
	if err := find(64 << 10); err != nil {
		t.Error(err)
	}
	if err := find(1 << 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want ErrNotExist: what does not fit in memory goes to the disk", err)
	}
	// Headers need room as well.
	var dirs []file
	for i := range 10 {
		dirs = append(dirs, file{name: fmt.Sprint(i), header: dir})
	}
	all := archive(t, dirs...)
	slices.Reverse(dirs)
	for _, err := range filediff.Compare(t.Context(), content("", all), content("", archive(t, dirs...)), &filediff.Options{Memory: 1 << 10, TempDir: "/nonexistent"}, nil) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("directories: error %v, want ErrNotExist", err)
		}
	}
	byName := func(x, y file) int { return strings.Compare(x.name, y.name) }
	slices.SortFunc(a, byName)
	slices.SortFunc(b, byName)
	// Sorted, and one side has a long run that the other lacks: only that waits.
	for i := range 500 {
		a = append(a, file{name: fmt.Sprintf("zzz%04d", i)})
	}
	want[filediff.Removed] += 500
	if err := find(640 << 10); err != nil {
		t.Error(err)
	}
}

func TestRepeatedNames(t *testing.T) {
	a := archive(t, file{name: "x", content: "1"}, file{name: "y", content: "y"}, file{name: "x", content: "2"})
	b := archive(t, file{name: "x", content: "1"}, file{name: "x", content: "3"}, file{name: "y", content: "y"}, file{name: "x", content: "4"})
	want := []string{"changed ", "reordered ", "changed x content [0+1]", "added x"}
	if diff := cmp.Diff(want, lines(t, content("", a), content("", b), nil)); diff != "" {
		t.Errorf("-want +have:\n%s", diff)
	}
}

func TestSame(t *testing.T) {
	data := archive(t, old...)
	other := archive(t, young...)
	gz := packed(t, compress.Gzip, 0, data)
	for _, test := range []struct {
		a, b []byte
		want bool
	}{
		{gz, packed(t, compress.Zstd, 0, data), true},
		{gz, data, true},
		{gz, packed(t, compress.Gzip, 0, other), false},
		{data, other, false},
		{gz, gz[:len(gz)/2], false},
	} {
		if have, err := filediff.Same(t.Context(), content("", test.a), content("", test.b)); have != test.want || err != nil {
			t.Errorf("%v, %v, want %v", have, err, test.want)
		}
	}
}

// What is whole and makes no sense is a difference; what is damaged or cannot
// be read is an error.
func TestUnreadable(t *testing.T) {
	whole := archive(t, old...)
	for name, bad := range map[string][]byte{
		"cut tar":      whole[:1700],
		"cut gzip":     packed(t, compress.Gzip, 0, whole)[:80],
		"cut zstd":     packed(t, compress.Zstd, 0, whole)[:80],
		"only a magic": []byte("\x1f\x8b\x08"),
		"bad header":   append(bytes.Clone(whole[:512]), bytes.Repeat([]byte("x"), 2048)...),
	} {
		for _, test := range [][2][]byte{{whole, bad}, {bad, whole}, {archive(t, file{name: "in", content: string(bad)}), archive(t, file{name: "in", content: string(whole)})}} {
			n := 0
			for ch, err := range filediff.Compare(t.Context(), content("", test[0]), content("", test[1]), nil, nil) {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if ch.Kind == "" {
					t.Errorf("%s: an empty change", name)
				}
				n++
			}
			if n == 0 {
				t.Errorf("%s: equal", name)
			}
		}
	}
	gone := errors.New("the disk is gone")
	broken := filediff.Content{Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(whole[:1700]), failing{gone})), nil
	}}
	for _, pair := range [][2]filediff.Content{{broken, content("", whole)}, {content("", whole), broken}} {
		var last error
		for _, err := range filediff.Compare(t.Context(), pair[0], pair[1], nil, nil) {
			last = err
		}
		if !errors.Is(last, gone) {
			t.Errorf("error %v, want %v", last, gone)
		}
	}
	// A blob whose digest is wrong fails its reader at the end; that the decoder
	// complains first must not hide it.
	torn := filediff.Content{Open: func(context.Context) (io.ReadCloser, error) {
		// A block of a type that does not exist, at once.
		data := append(packed(t, compress.Gzip, 0, whole)[:10], bytes.Repeat([]byte{0xff}, 1<<20)...)
		return io.NopCloser(io.MultiReader(bytes.NewReader(data), failing{layout.ErrMismatch})), nil
	}}
	var last error
	for _, err := range filediff.Compare(t.Context(), content("", whole), torn, nil, nil) {
		last = err
	}
	if !errors.Is(last, layout.ErrMismatch) {
		t.Errorf("error %v, want %v", last, layout.ErrMismatch)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A sparse member of 1 EiB must not be read for years.
func TestSparseBomb(t *testing.T) {
	// A header block with a type and content that the writer refuses to write.
	block := func(typeflag byte, name, data string) []byte {
		h := archive(t, file{name: name, content: data})[:512]
		h[156] = typeflag
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		return append(h, data+strings.Repeat("\x00", -len(data)&511)...)
	}
	record := func(key, val string) string {
		n := len(key) + len(val) + 3
		for s := ""; ; n++ {
			if s = fmt.Sprintf("%d %s=%s\n", n, key, val); len(s) == n {
				return s
			}
		}
	}
	bomb := func(c string) []byte {
		size := fmt.Sprint(int64(1)<<60 - 1)
		records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "x") + record("GNU.sparse.realsize", size)
		where := "1\n0\n1\n" // one run of one byte, at 0
		where += strings.Repeat("\x00", 512-len(where))
		return slices.Concat(block('x', "PaxHeaders/x", records), block('0', "x", where+c), make([]byte, 1024))
	}
	h, err := tar.NewReader(bytes.NewReader(bomb("a"))).Next()
	if err != nil || h.Size != 1<<60-1 {
		t.Fatalf("the bomb is none: %+v, %v", h, err)
	}
	done := make(chan []string, 1)
	go func() { done <- lines(t, content("", bomb("a")), content("", bomb("b")), nil) }()
	select {
	case have := <-done:
		if len(have) != 1 || !strings.Contains(have[0], "unreadable") {
			t.Errorf("found %q", have)
		}
	case <-time.After(time.Minute):
		t.Fatal("still reading")
	}
}

func TestStop(t *testing.T) {
	a, b := content("", archive(t, old...)), content("", archive(t, young...))
	n := 0
	for _, err := range filediff.Compare(t.Context(), a, b, nil, nil) {
		if n++; n == 3 || err != nil {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d changes", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for _, err := range filediff.Compare(ctx, a, b, nil, nil) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("error %v, want Canceled", last)
	}
}

func TestGlobs(t *testing.T) {
	for _, bad := range []string{"", "/", "a[", "x/[]y"} {
		if err := filediff.CheckGlob(bad); !errors.Is(err, filediff.ErrGlob) {
			t.Errorf("CheckGlob(%q) = %v, want ErrGlob", bad, err)
		}
	}
	if err := filediff.CheckGlob("usr/**/lib*.so.[0-9]"); err != nil {
		t.Error(err)
	}
}

// tb is what testing.TB and rapid's share.
type tb interface {
	Helper()
	Fatal(args ...any)
}
