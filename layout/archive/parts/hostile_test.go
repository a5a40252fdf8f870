package parts_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
)

var epoch = time.Unix(1, 0)

const (
	hexA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	head = `{"schemaVersion":1,"mediaType":"application/vnd.gardenlinux.gloci-layout.parts.v1+json",`
)

func part(name string, size any) string {
	return fmt.Sprintf(`{"name":%q,"digest":"sha256:%s","size":%v}`, name, hexA, size)
}

func manifest(size any, list ...string) string {
	return head + fmt.Sprintf(`"digest":"sha256:%s","size":%v,"parts":[%s]}`, hexA, size, strings.Join(list, ","))
}

var hostile = []struct {
	name, data string
	want       error
}{
	// Names.
	{"parent", manifest(1, part("../x", 1)), layout.ErrUnsafe},
	{"parent alone", manifest(1, part("..", 1)), layout.ErrUnsafe},
	{"the directory", manifest(1, part(".", 1)), layout.ErrUnsafe},
	{"absolute", manifest(1, part("/etc/passwd", 1)), layout.ErrUnsafe},
	{"in a directory", manifest(1, part("d/x", 1)), layout.ErrUnsafe},
	{"backslash", manifest(1, part(`..\x`, 1)), layout.ErrUnsafe},
	{"no name", manifest(1, part("", 1)), layout.ErrInvalid},
	{"name of null", manifest(1, `{"name":null,"digest":"sha256:`+hexA+`","size":1}`), layout.ErrInvalid},
	{"name that is absent", manifest(1, `{"digest":"sha256:`+hexA+`","size":1}`), layout.ErrInvalid},
	{"NUL in a name", manifest(1, `{"name":"x\u0000y","digest":"sha256:`+hexA+`","size":1}`), layout.ErrInvalid},
	{"escape in a name", manifest(1, `{"name":"x\u001b[2J","digest":"sha256:`+hexA+`","size":1}`), layout.ErrInvalid},
	{"newline in a name", manifest(1, part("x\ny", 1)), layout.ErrInvalid},
	{"long name", manifest(1, part(strings.Repeat("x", 256), 1)), layout.ErrInvalid},
	{"name twice", manifest(2, part("x", 1), part("x", 1)), layout.ErrInvalid},

	// Sizes.
	{"sizes that are less", manifest(3, part("x", 1), part("y", 1)), layout.ErrInvalid},
	{"sizes that are more", manifest(1, part("x", 1), part("y", 1)), layout.ErrInvalid},
	{"sizes that overflow", manifest(1, part("x", "9223372036854775807"), part("y", "9223372036854775807"), part("z", 3)), layout.ErrInvalid},
	{"size of 2^63", manifest("9223372036854775808", part("x", 1)), layout.ErrInvalid},
	{"negative size", manifest(-1, part("x", -1)), layout.ErrInvalid},
	{"negative and positive", manifest(1, part("x", -1), part("y", 2)), layout.ErrInvalid},
	{"empty part", manifest(1, part("x", 0), part("y", 1)), layout.ErrInvalid},
	{"no size", manifest(1, `{"name":"x","digest":"sha256:`+hexA+`"}`), layout.ErrInvalid},
	{"no size of the whole", head + `"digest":"sha256:` + hexA + `","parts":[` + part("x", 1) + `]}`, layout.ErrInvalid},
	{"size as a fraction", manifest(1, part("x", "1.5")), layout.ErrInvalid},
	{"size as a power", manifest(1, part("x", "1e3")), layout.ErrInvalid},
	{"size as a string", manifest(1, part("x", `"1"`)), layout.ErrInvalid},

	// Digests.
	{"no digest", manifest(1, `{"name":"x","size":1}`), layout.ErrInvalid},
	{"no digest of the whole", head + `"size":1,"parts":[` + part("x", 1) + `]}`, layout.ErrInvalid},
	{"digest in upper case", strings.Replace(manifest(1, part("x", 1)), hexA+`","size":1}]`, strings.ToUpper(hexA)+`","size":1}]`, 1), layout.ErrInvalid},
	{"digest that is a path", strings.ReplaceAll(manifest(1, part("x", 1)), "sha256:"+hexA, "sha256:../../x"), layout.ErrInvalid},
	{"sha512", strings.ReplaceAll(manifest(1, part("x", 1)), "sha256:"+hexA, "sha512:"+hexA+hexA), layout.ErrInvalid},
	{"md5", strings.ReplaceAll(manifest(1, part("x", 1)), "sha256:"+hexA, "md5:"+hexA[:32]), layout.ErrInvalid},

	// Documents.
	{"nothing", "", layout.ErrInvalid},
	{"no JSON", "x", layout.ErrInvalid},
	{"array", "[]", layout.ErrInvalid},
	{"null", "null", layout.ErrInvalid},
	{"empty", "{}", layout.ErrInvalid},
	{"two values", manifest(1, part("x", 1)) + "{}", layout.ErrInvalid},
	{"no parts", manifest(0), layout.ErrInvalid},
	{"parts that are no array", strings.Replace(manifest(1, part("x", 1)), `"parts":[`, `"parts":{"a":[`, 1) + "}", layout.ErrInvalid},
	{"part that is no object", manifest(1, `"x"`), layout.ErrInvalid},
	{"index.json", `{"schemaVersion":2,"manifests":[]}`, layout.ErrInvalid},
	{"another version", strings.Replace(manifest(1, part("x", 1)), `"schemaVersion":1`, `"schemaVersion":2`, 1), layout.ErrInvalid},
	{"another type", strings.Replace(manifest(1, part("x", 1)), "parts.v1", "parts.v2", 1), layout.ErrInvalid},
	{"name of a member twice", strings.Replace(manifest(1, part("x", 1)), `"size":1,"parts"`, `"size":1,"size":1,"parts"`, 1), layout.ErrInvalid},
	{"member in another case", strings.Replace(manifest(1, part("x", 1)), `"parts"`, `"Parts"`, 1), layout.ErrInvalid},
	{"member of a part in another case", strings.Replace(manifest(1, part("x", 1)), `"name"`, `"Name"`, 1), layout.ErrInvalid},
	{"byte order mark", "\ufeff" + manifest(1, part("x", 1)), layout.ErrInvalid},
	{"no UTF-8", strings.Replace(manifest(1, part("x", 1)), `"x"`, "\"\xff\"", 1), layout.ErrInvalid},
	{"deep", strings.Repeat("[", 100000), layout.ErrInvalid},
}

func many(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = part(fmt.Sprintf("x%d", i), 1)
	}
	return manifest(n, list...)
}

// checkHostile wants the manifest to be refused.
func checkHostile(t *testing.T, name, data string, want error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "x.parts.json")
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := parts.Open(file, nil)
	if !errors.Is(err, want) || errors.Is(err, layout.ErrNotFound) {
		t.Errorf("%s: error %v, want %v", name, err, want)
	}
	if err != nil && strings.ContainsAny(err.Error(), "\x00\x1b") {
		t.Errorf("%s: error %q has control characters", name, err)
	}
}

func TestHostileManifests(t *testing.T) {
	t.Logf("%d cases", len(hostile))
	for _, tt := range hostile {
		checkHostile(t, tt.name, tt.data, tt.want)
	}
	// What is not known is passed over.
	if m, err := parts.Parse([]byte(strings.Replace(manifest(1, part("x", 1)), `"parts"`, `"comment":{"a":[]},"parts"`, 1))); err != nil || len(m.Parts) != 1 {
		t.Errorf("unknown member: %+v, %v", m, err)
	}
}

func TestLargeManifests(t *testing.T) {
	checkHostile(t, "1,000 parts", many(1000), layout.ErrInvalid)
	checkHostile(t, "a million parts", many(1_000_000), layout.ErrInvalid)
	checkHostile(t, "2 MiB of white space", manifest(1, part("x", 1))+strings.Repeat(" ", 2<<20), layout.ErrInvalid)
	if _, err := parts.Parse([]byte(many(parts.MaxParts))); err != nil {
		t.Errorf("%d parts: %v", parts.MaxParts, err)
	}
}

// What stands in place of a manifest, or of a part.
func TestHostileFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.parts.json")
	if _, err := parts.Open(file, nil); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("no manifest: error %v, want ErrNotFound", err)
	}
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parts.Open(file, nil); !errors.Is(err, layout.ErrUnsafe) {
		t.Errorf("FIFO: error %v, want ErrUnsafe", err)
	}
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte(manifest(1, part("p", 1))), 0o644), syscall.Mkfifo(filepath.Join(dir, "p"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := parts.Open(file, nil); !errors.Is(err, layout.ErrUnsafe) {
		t.Errorf("FIFO as a part: error %v, want ErrUnsafe", err)
	}
	// A manifest that names the file of another as a part: never removed.
	if err := errors.Join(os.Remove(filepath.Join(dir, "p")), os.WriteFile(filepath.Join(dir, "p"), []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	split(t, filepath.Join(dir, "x"), []byte("content"), 4)
	if _, err := os.Stat(filepath.Join(dir, "p")); err != nil {
		t.Errorf("a split removed what the manifest before it named: %v", err)
	}
	// A link in the place of the working files is not written through.
	work := filepath.Join(dir, ".y.tmp-split")
	if err := errors.Join(os.Mkdir(work, 0o755), os.Symlink("../p", filepath.Join(work, "001"))); err != nil {
		t.Fatal(err)
	}
	w, err := parts.Create(filepath.Join(dir, "y"), 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("content")); err == nil {
		t.Error("written through a link")
	}
	if err := w.Close(false); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "p")); err != nil || string(b) != "x" {
		t.Errorf("the file behind the link: %q, %v", b, err)
	}
}

// FuzzParse: any bytes are an error with a class, or a manifest that is written
// so that it parses to itself, names only files beside it, and adds up.
func FuzzParse(f *testing.F) {
	for _, tt := range hostile {
		f.Add([]byte(tt.data))
	}
	f.Add([]byte(manifest(1, part("x", 1))))
	f.Add([]byte(many(20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parts.Parse(data)
		if err != nil {
			if !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrUnsafe) {
				t.Fatalf("error %v has no class", err)
			}
			return
		}
		var sum int64
		for _, p := range m.Parts {
			if filepath.Base(p.Name) != p.Name || !filepath.IsLocal(p.Name) || p.Name == "." {
				t.Errorf("name %q", p.Name)
			}
			sum += p.Size
		}
		if sum != m.Size || len(m.Parts) > parts.MaxParts {
			t.Errorf("%d bytes in %d parts, %d in all", sum, len(m.Parts), m.Size)
		}
		again, err := parts.Parse(m.Bytes())
		if err != nil || string(again.Bytes()) != string(m.Bytes()) {
			t.Errorf("%q does not parse to itself: %v", m.Bytes(), err)
		}
	})
}
