package delta_test

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/delta"
)

// compressed returns content as package compress writes it.
func compressed(t rapid.TB, f compress.Format, content string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := compress.NewWriter(&b, f, 0)
	must(t, err)
	_, err = io.WriteString(w, content)
	must(t, errors.Join(err, w.Close()))
	return b.String()
}

// foreign returns content as gzip that nothing here can write again.
func foreign(t rapid.TB, content string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&b, stdgzip.HuffmanOnly)
	must(t, err)
	_, err = io.WriteString(w, content)
	must(t, errors.Join(err, w.Close()))
	return b.String()
}

// flushed returns content as gzip of which the last part was written after a flush:
// it begins as this program would write it, and does not go on so.
func flushed(t rapid.TB, content string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&b, 1)
	must(t, err)
	_, err = io.WriteString(w, content[:len(content)-50_000])
	must(t, errors.Join(err, w.Flush()))
	_, err = io.WriteString(w, content[len(content)-50_000:])
	must(t, errors.Join(err, w.Close()))
	return b.String()
}

// inside packs next as a delta to old that looks into blobs.
func inside(t *testing.T, next, old layout.Source) []byte {
	t.Helper()
	v, err := delta.Take(t.Context(), old)
	must(t, err)
	return packed(t.Context(), t, next, &archive.PackOptions{Base: v, Bases: []layout.Source{old}}).Bytes()
}

func openDelta(t *testing.T, raw []byte) *archive.Archive {
	t.Helper()
	a, err := archive.OpenReader(t.Context(), bytes.NewReader(raw), "delta.oci", nil)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// Compressed layers are compared uncompressed where their bytes can be made again,
// however their predecessor is stored.
func TestPatchOfContent(t *testing.T) {
	gz, zst := func(s string) string { return compressed(t, compress.Gzip, s) }, func(s string) string { return compressed(t, compress.Zstd, s) }
	was, is := large(0)+large(5), large(1)+large(6)
	long := strings.Repeat(was, 60)
	for name, test := range map[string]struct {
		old, next []string
		recipes   int
		contents  int // pieces of which the content is taken
		most      int // bytes of all patches; 0: there is none
	}{
		"gzip":                   {[]string{gz(was)}, []string{gz(is)}, 1, 1, 500},
		"zstd":                   {[]string{zst(was)}, []string{zst(is)}, 1, 1, 500},
		"gzip becomes zstd":      {[]string{gz(was)}, []string{zst(is)}, 1, 1, 500},
		"the same content":       {[]string{gz(was)}, []string{zst(was)}, 1, 1, 100},
		"of another program":     {[]string{foreign(t, was)}, []string{zst(is)}, 1, 1, 500},
		"plain becomes gzip":     {[]string{was}, []string{gz(is)}, 1, 0, 500},
		"gzip becomes plain":     {[]string{gz(was)}, []string{is}, 0, 1, 500},
		"by another program":     {[]string{gz(was)}, []string{foreign(t, is)}, 0, 0, 0},
		"nothing in common":      {[]string{gz(news(1) + news(2))}, []string{gz(news(3) + news(4))}, 0, 0, 0},
		"only in the bytes":      {[]string{foreign(t, was) + "1"}, []string{foreign(t, was) + "2"}, 0, 0, 100},
		"the same, twice":        {[]string{"x", gz(was)}, []string{"y", gz(is), zst(is)}, 2, 2, 600},
		"of what is a patch too": {[]string{gz(was)}, []string{zst(is), is + large(9)[:50], gz(is)}, 2, 3, 1500},
		"another way at the end": {[]string{gz(long)}, []string{flushed(t, is+long)}, 0, 0, 0},
		"of several members":     {[]string{gz(was)}, []string{gz(is) + gz(is)}, 0, 0, 15_000},
		"in both forms":          {[]string{gz(was)}, []string{was + gz(was)}, 0, 1, 15_000},
		"of one that is whole":   {[]string{"x"}, []string{"y", foreign(t, is), is + is[:50]}, 0, 1, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			old := newLayout(t, filepath.Join(t.TempDir(), "old"), test.old)
			next := newLayout(t, filepath.Join(t.TempDir(), "next"), test.next)
			d := openDelta(t, inside(t, next, old))
			var recipes, contents, size int
			for _, p := range d.Delta().Patches {
				if p.Recipe != nil {
					recipes++
				}
				contents += len(p.Uncompressed)
				size += int(p.Patch.Size)
			}
			if recipes != test.recipes || contents != test.contents || size > test.most || (size == 0) != (test.most == 0) {
				t.Errorf("%d recipes, %d contents, patches of %d bytes; want %d, %d, at most %d", recipes, contents, size, test.recipes, test.contents, test.most)
			}
			if v3 := strings.Contains(string(d.Delta().Bytes()), "delta.v3+json"); v3 != (recipes > 0 || contents > 0) {
				t.Errorf("version 3: %v", v3)
			}
			src, err := delta.Open(ctx, d, old)
			must(t, err)
			defer func() { must(t, src.Release()) }()
			for range 2 { // what is needed twice is kept
				if res, err := layout.Verify(ctx, src, nil); err != nil || len(res.Findings) > 0 {
					t.Errorf("Verify: %v, %v", res, err)
				}
			}
			must(t, archive.Unpack(ctx, d, old.Dir(), nil))
			for _, content := range test.next {
				if got := files(t, old.Dir())[layout.BlobPath(info(content).Digest)]; got != content {
					t.Errorf("unpacked are %d bytes, want %d others", len(got), len(content))
				}
			}
		})
	}
}

// Every flipped bit and every truncation is found where content is made, too.
func TestEveryDamageOfRecipesIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a delta thousands of times")
	}
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{compressed(t, compress.Gzip, large(0))})
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), []string{compressed(t, compress.Gzip, large(1))})
	raw := inside(t, next, old)
	if !bytes.Contains(raw, []byte(`"recipe":{`)) || !bytes.Contains(raw, []byte(`"uncompressed":[{`)) {
		t.Fatal("the delta has no recipe")
	}
	checkDamage(t, raw)
}

// The delta is the same for any number of processors, and so is what it makes.
func TestRecipesOnAnyMachine(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	body := strings.Repeat(large(3), 50) // more than a piece of gzip
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{compressed(t, compress.Gzip, large(0)+body), compressed(t, compress.Zstd, body+large(0))})
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), []string{compressed(t, compress.Gzip, large(1)+body), compressed(t, compress.Zstd, body+large(1))})
	var first []byte
	for _, n := range []int{1, 2, 16} {
		runtime.GOMAXPROCS(n)
		raw := inside(t, next, old)
		if first == nil {
			first = raw
		}
		if !bytes.Equal(raw, first) {
			t.Errorf("other bytes with %d processors", n)
		}
		d := openDelta(t, raw)
		if n := len(d.Delta().Patches); n != 2 || d.Delta().Patches[0].Recipe == nil || d.Delta().Patches[1].Recipe == nil {
			t.Fatalf("%d patches, want 2 with recipes", n)
		}
		src, err := delta.Open(t.Context(), d, old)
		must(t, err)
		if res, err := layout.Verify(t.Context(), src, nil); err != nil || len(res.Findings) > 0 {
			t.Errorf("%d processors: Verify: %v, %v", n, res, err)
		}
		must(t, src.Release())
	}
}

// rewrite returns the delta with a description that change has changed.
func rewrite(t *testing.T, raw []byte, change func(d *delta.Description)) []byte {
	t.Helper()
	var out bytes.Buffer
	tr, tw := tar.NewReader(bytes.NewReader(raw)), tar.NewWriter(&out)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		content, err := io.ReadAll(tr)
		must(t, err)
		if strings.HasPrefix(h.Name, "gloci-delta/") && strings.HasSuffix(h.Name, ".json") {
			d, err := delta.Parse(content)
			must(t, err)
			change(d)
			content = d.Bytes()
			h.Name, h.Size = "gloci-delta/"+digest.FromBytes(content).Encoded()+".json", int64(len(content))
		}
		must(t, tw.WriteHeader(h))
		_, err = tw.Write(content)
		must(t, err)
	}
	must(t, tw.Close())
	return out.Bytes()
}

// A compressor that makes other bytes is told from a wrong base and from a delta
// that lies; none of them leaves anything behind.
func TestWrongRecipes(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx := t.Context()
	was, is := compressed(t, compress.Gzip, large(0)), compressed(t, compress.Gzip, large(1))
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), []string{is})
	base := newLayout(t, filepath.Join(t.TempDir(), "base"), []string{was})
	raw := inside(t, next, base)
	recipe := func(change func(r *delta.Recipe)) func(d *delta.Description) {
		return func(d *delta.Description) { change(d.Patches[0].Recipe) }
	}
	zstd := compressed(t, compress.Zstd, strings.ToUpper(large(0)))
	for name, test := range map[string]struct {
		change func(d *delta.Description)
		base   string // the layer at the base, if it is another
		want   error
		hint   bool
	}{
		"as it is":                 {change: func(*delta.Description) {}},
		"another library":          {change: recipe(func(r *delta.Recipe) { r.Library = "another" })},
		"another level":            {change: recipe(func(r *delta.Recipe) { r.Level = 1 }), want: compress.ErrUnsupported, hint: true},
		"another writer":           {change: recipe(func(r *delta.Recipe) { r.Writer, r.Block = "go", 0 }), want: compress.ErrUnsupported, hint: true},
		"another header":           {change: recipe(func(r *delta.Recipe) { r.Header = []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03") }), want: compress.ErrUnsupported, hint: true},
		"a longer header":          {change: recipe(func(r *delta.Recipe) { r.Header = []byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xffname\x00") }), want: compress.ErrUnsupported, hint: true},
		"zstd":                     {change: recipe(func(r *delta.Recipe) { r.Format, r.Writer, r.Block, r.Header = compress.Zstd, "stream", 0, nil }), want: compress.ErrUnsupported, hint: true},
		"another content":          {change: recipe(func(r *delta.Recipe) { r.Content.Digest = info("x").Digest }), want: layout.ErrMismatch},
		"a content of more bytes":  {change: recipe(func(r *delta.Recipe) { r.Content.Size++ }), want: layout.ErrInvalid},
		"a content of fewer bytes": {change: recipe(func(r *delta.Recipe) { r.Content.Size-- }), want: layout.ErrInvalid},
		"a piece of more bytes":    {change: func(d *delta.Description) { d.Patches[0].Uncompressed[0].Size++ }, want: layout.ErrInvalid},
		"a piece of few bytes":     {change: func(d *delta.Description) { d.Patches[0].Uncompressed[0].Size = 10 }, want: layout.ErrInvalid},
		"a piece that is none":     {change: func(d *delta.Description) { d.Patches[0].Uncompressed = nil }, want: layout.ErrInvalid},
		"no recipe":                {change: func(d *delta.Description) { d.Patches[0].Recipe = nil }, want: layout.ErrInvalid},
		"another base":             {base: foreign(t, large(2)), change: func(*delta.Description) {}, want: layout.ErrNotFound},
		"a base that is plain": {base: large(0), change: func(d *delta.Description) {
			d.Patches[0].Base[0] = info(large(0))
			d.Patches[0].Uncompressed[0].Digest = info(large(0)).Digest
		}, want: layout.ErrInvalid},
		"other content at the base": {base: zstd, change: func(d *delta.Description) {
			d.Patches[0].Base[0] = info(zstd)
			d.Patches[0].Uncompressed[0].Digest = info(zstd).Digest
		}, want: layout.ErrMismatch},
	} {
		site := base
		if test.base != "" {
			site = newLayout(t, filepath.Join(t.TempDir(), "site"), []string{test.base})
		}
		before := files(t, site.Dir())
		d := openDelta(t, rewrite(t, raw, test.change))
		out := filepath.Join(t.TempDir(), "out")
		src, err := delta.Open(ctx, d, site)
		if err == nil {
			err = archive.Unpack(ctx, src, out, nil)
			must(t, src.Release())
		}
		hint := new(layout.HintError)
		if !errors.Is(err, test.want) || errors.As(err, &hint) != test.hint {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if _, serr := os.Lstat(out); (serr == nil) != (test.want == nil) {
			t.Errorf("%s: %v", name, serr)
		}
		if test.want != nil && test.base == "" {
			if err := archive.Unpack(ctx, d, site.Dir(), nil); !errors.Is(err, test.want) {
				t.Errorf("%s, over its base: %v, want %v", name, err, test.want)
			}
			after := files(t, site.Dir())
			if len(before) != len(after) || before["index.json"] != after["index.json"] {
				t.Errorf("%s: the site has %d files, and had %d", name, len(after), len(before))
			}
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A damaged base is reported as that, not as a wrong delta.
func TestDamagedBaseOfRecipe(t *testing.T) {
	body := ""
	for i := range byte(20) { // more than is read at once
		body += news(i)
	}
	was := compressed(t, compress.Gzip, large(0)+body)
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{was})
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), []string{compressed(t, compress.Gzip, large(1)+body)})
	d := openDelta(t, inside(t, next, old))
	bad := []byte(was)
	copy(bad[10:], "\xff\xff\xff\xff") // no block of deflate, long before the end
	must(t, os.WriteFile(filepath.Join(old.Dir(), layout.BlobPath(info(was).Digest)), bad, 0o644))
	src, err := delta.Open(t.Context(), d, old)
	must(t, err)
	p := d.Delta().Patches[0]
	rc, err := src.Blob(t.Context(), ocispec.Descriptor{Digest: p.Digest, Size: p.Size})
	if err == nil {
		_, err = io.Copy(io.Discard, rc)
		must(t, rc.Close())
	}
	be := new(layout.BlobError)
	if !errors.Is(err, layout.ErrMismatch) || !errors.As(err, &be) || !strings.Contains(err.Error(), string(info(was).Digest)) {
		t.Errorf("%v, want ErrMismatch of %s", err, info(was).Digest)
	}
}

// A description that no writer makes is refused before anything is made of it.
func TestHostileRecipes(t *testing.T) {
	blob, piece, how := layout.BlobInfo{Digest: info("a").Digest, Size: 1 << 20}, layout.BlobInfo{Digest: info("b").Digest, Size: 1 << 20}, info("how")
	good := func() *delta.Description {
		return &delta.Description{Index: how, Patches: []delta.Patch{{
			BlobInfo: blob, Base: []layout.BlobInfo{piece}, Patch: how,
			Uncompressed: []layout.BlobInfo{{Digest: piece.Digest, Size: 5 << 20}},
			Recipe: &delta.Recipe{
				Recipe:  compress.Recipe{Format: compress.Zstd, Writer: "stream", Level: 3, Library: "some"},
				Content: layout.BlobInfo{Digest: info("content").Digest, Size: 1 << 20},
			},
		}}}
	}
	_, err := delta.Parse(good().Bytes())
	must(t, err)
	for name, change := range map[string]func(p *delta.Patch){
		"a content of nothing":            func(p *delta.Patch) { p.Recipe.Content.Size = 0 },
		"a content of less":               func(p *delta.Patch) { p.Recipe.Content.Size = -1 },
		"a content of 2^62 bytes":         func(p *delta.Patch) { p.Recipe.Content.Size = 1 << 62 },
		"a content of 65 GiB":             func(p *delta.Patch) { p.Size, p.Recipe.Content.Size = 1<<40, 65<<30 },
		"a content of 1,100 times":        func(p *delta.Patch) { p.Recipe.Content.Size = 1100 << 20 },
		"a content without a digest":      func(p *delta.Patch) { p.Recipe.Content.Digest = "" },
		"a piece of nothing":              func(p *delta.Patch) { p.Uncompressed[0].Size = 0 },
		"a piece of 2^62 bytes":           func(p *delta.Patch) { p.Uncompressed[0].Size = 1 << 62 },
		"a piece of 1,100 times":          func(p *delta.Patch) { p.Uncompressed[0].Size = 1100 << 20 },
		"a piece that it is not made of":  func(p *delta.Patch) { p.Uncompressed[0].Digest = info("c").Digest },
		"a piece twice":                   func(p *delta.Patch) { p.Uncompressed = append(p.Uncompressed, p.Uncompressed[0]) },
		"a format that is not written":    func(p *delta.Patch) { p.Recipe.Format = compress.Xz },
		"no format":                       func(p *delta.Patch) { p.Recipe.Format = compress.None },
		"an unknown writer":               func(p *delta.Patch) { p.Recipe.Writer = "zopfli" },
		"a level out of range":            func(p *delta.Patch) { p.Recipe.Level = 1 << 30 },
		"a level below zero":              func(p *delta.Patch) { p.Recipe.Level = -3 },
		"pieces of 2^40 bytes":            func(p *delta.Patch) { p.Recipe.Writer, p.Recipe.Block = "blocks", 1<<40 },
		"a header":                        func(p *delta.Patch) { p.Recipe.Header = []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff") },
		"a library of a novel's length":   func(p *delta.Patch) { p.Recipe.Library = strings.Repeat("x", 2000) },
		"gzip, and a header that is none": func(p *delta.Patch) { p.Recipe.Format, p.Recipe.Header = compress.Gzip, []byte("0123456789") },
	} {
		d := good()
		change(&d.Patches[0])
		if _, err := delta.Parse(d.Bytes()); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	text := string(good().Bytes())
	for _, edit := range [][2]string{
		{"delta.v3+json", "delta.v2+json"},
		{"delta.v3+json", "delta.v4+json"},
		{`"library":"some"`, `"library":"some","x":1`},
		{`"level":3`, `"level":3.0`},
		{`,"library":"some"`, ``},
		{`"format":"zstd"`, `"format":"zst"`},
		{`"level":3`, `"Level":3`},
		{`"block":0,`, `"block":0,"header":"",`},
	} {
		bad := strings.Replace(text, edit[0], edit[1], 1)
		if bad == text {
			t.Errorf("%q is not there", edit[0])
		}
		if _, err := delta.Parse([]byte(bad)); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%q for %q: %v, want ErrInvalid", edit[1], edit[0], err)
		}
	}
	// Two patches that say different things of one content.
	d := good()
	of := layout.BlobInfo{Digest: info("made").Digest, Size: 1 << 20}
	d.Patches = append(d.Patches, delta.Patch{BlobInfo: of, Own: []layout.BlobInfo{blob}, Patch: how, Uncompressed: []layout.BlobInfo{{Digest: blob.Digest, Size: 1 << 20}}})
	slices.SortFunc(d.Patches, func(a, b delta.Patch) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	_, err = delta.Parse(d.Bytes())
	must(t, err)
	for i := range d.Patches {
		if d.Patches[i].Recipe == nil {
			d.Patches[i].Uncompressed[0].Size++
		}
	}
	if _, err := delta.Parse(d.Bytes()); !errors.Is(err, layout.ErrInvalid) {
		t.Errorf("two sizes of one content: %v, want ErrInvalid", err)
	}
}

// A piece that is larger than the delta says is not read further than that.
func TestContentBomb(t *testing.T) {
	bomb := compressed(t, compress.Gzip, strings.Repeat("\x00", 8<<20))
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{bomb})
	rc, err := delta.OpenContent(t.Context(), old, ocispec.Descriptor{Digest: info(bomb).Digest, Size: int64(len(bomb))}, 1<<20)
	must(t, err)
	n, err := io.Copy(io.Discard, rc)
	must(t, rc.Close())
	if !errors.Is(err, layout.ErrInvalid) || n > 1<<20 {
		t.Errorf("%d bytes and %v, want at most 1 MiB and ErrInvalid", n, err)
	}
}

// What is parsed is written again as it was.
func FuzzDescription(f *testing.F) {
	piece, how := info("b"), info("how")
	f.Add((&delta.Description{Index: how, Bases: []layout.BlobInfo{how}, Expected: []layout.BlobInfo{piece}}).Bytes())
	f.Add((&delta.Description{Index: how, Patches: []delta.Patch{{
		BlobInfo: info("a"), Base: []layout.BlobInfo{piece}, Patch: how, Uncompressed: []layout.BlobInfo{{Digest: piece.Digest, Size: 7}},
		Recipe: &delta.Recipe{
			Recipe:  compress.Recipe{Format: compress.Gzip, Writer: "go", Level: 6, Header: []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), Library: "some"},
			Content: info("content"),
		},
	}}}).Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := delta.Parse(raw)
		if err != nil {
			if !errors.Is(err, layout.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(d.Bytes(), raw) {
			t.Fatalf("%q became %q", raw, d.Bytes())
		}
		for _, p := range d.Patches {
			if p.Recipe == nil {
				continue
			}
			if err := p.Recipe.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A compressor that makes more than the blob has bytes is stopped there, and the
// content is still made to its end, to tell whose fault it is.
func TestRecipeMakesMore(t *testing.T) {
	content := func(n int) string { return large(n) + strings.Repeat(large(3)+large(4), 15) }
	old := newLayout(t, filepath.Join(t.TempDir(), "old"), []string{compressed(t, compress.Gzip, content(0))})
	next := newLayout(t, filepath.Join(t.TempDir(), "next"), []string{compressed(t, compress.Gzip, content(1))})
	raw := inside(t, next, old)
	for name, test := range map[string]struct {
		change func(r *delta.Recipe)
		want   error
	}{
		"other bytes":   {func(*delta.Recipe) {}, compress.ErrUnsupported},
		"wrong content": {func(r *delta.Recipe) { r.Content.Digest = info("x").Digest }, layout.ErrMismatch},
	} {
		d := openDelta(t, rewrite(t, raw, func(d *delta.Description) {
			r := d.Patches[0].Recipe
			r.Writer, r.Level, r.Block = "go", 1, 0
			test.change(r)
		}))
		src, err := delta.Open(t.Context(), d, old)
		must(t, err)
		p := d.Delta().Patches[0]
		rc, err := src.Blob(t.Context(), ocispec.Descriptor{Digest: p.Digest, Size: p.Size})
		must(t, err)
		n, err := io.Copy(io.Discard, rc)
		must(t, rc.Close())
		if !errors.Is(err, test.want) || n > p.Size {
			t.Errorf("%s: %d bytes and %v, want at most %d and %v", name, n, err, p.Size, test.want)
		}
	}
}
