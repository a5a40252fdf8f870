package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

// raw makes a header by hand, so that it may say what no library would write.
type raw struct {
	name, link string
	kind       byte // 0 means '0'
	size       int64
	sizeField  string // instead of size, as it is
	magic      string // "" means ustar
	prefix     string
	sum        int // added to the checksum
	body       string
}

func (r raw) bytes() []byte {
	b := make([]byte, 512)
	copy(b[0:100], r.name)
	copy(b[100:], "0000644\x00")
	copy(b[108:], "0000000\x00")
	copy(b[116:], "0000000\x00")
	if r.size == 0 {
		r.size = int64(len(r.body))
	}
	if r.sizeField == "" {
		r.sizeField = fmt.Sprintf("%011o\x00", r.size)
	}
	copy(b[124:136], r.sizeField)
	copy(b[136:], "00000000000\x00")
	if r.kind == 0 {
		r.kind = '0'
	}
	b[156] = r.kind
	copy(b[157:257], r.link)
	if r.magic == "" {
		r.magic = "ustar\x0000"
	}
	copy(b[257:265], r.magic)
	copy(b[345:500], r.prefix)
	copy(b[148:156], "        ")
	sum := r.sum
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(b, r.body...), make([]byte, -len(r.body)&511)...)
}

func record(key, value string) string {
	n := len(key) + len(value) + 3
	for n != len(fmt.Sprint(n))+len(key)+len(value)+3 {
		n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

const (
	markerJSON = `{"imageLayoutVersion":"1.0.0"}`
	emptyIndex = `{"schemaVersion":2,"manifests":[]}`
)

var (
	marker  = raw{name: "oci-layout", body: markerJSON}
	index   = raw{name: "index.json", body: emptyIndex}
	blobHex = fmt.Sprintf("%x", sha256.Sum256([]byte("content")))
	blob    = raw{name: "blobs/sha256/" + blobHex, body: "content"}
	trailer = make([]byte, 1024)
)

// join makes an archive of raw headers, other bytes and strings.
func join(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case raw:
			b = append(b, p.bytes()...)
		case []byte:
			b = append(b, p...)
		case string:
			b = append(b, p...)
		}
	}
	return b
}

// with makes a layout archive that is good but for the parts.
func with(parts ...any) []byte {
	return join(append(append([]any{marker, index}, parts...), trailer)...)
}

func gz(t testing.TB, f compress.Format, parts ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := compress.NewWriter(&out, f, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type hostileCase struct {
	name string
	data []byte
	want error
}

// hostile returns the archives that must be refused, each good but for one
// thing.
func hostile(t testing.TB) []hostileCase {
	pax := func(kind byte, records ...string) raw {
		return raw{name: "PaxHeaders/x", kind: kind, body: strings.Join(records, "")}
	}
	gnuLong := func(name string) raw { return raw{name: "././@LongLink", kind: 'L', body: name + "\x00"} }
	sha512Name := "blobs/sha512/" + strings.Repeat("ab", 64)
	longRecord := pax('x', record("comment", strings.Repeat("x", 1<<20)))
	bigBlob := raw{name: blob.name, size: 1 << 40, body: "content"}
	bigIndex := raw{name: "index.json", body: `{"schemaVersion":2,"manifests":[` + strings.Repeat(" ", layout.MaxDocument) + "]}"}
	good := with(blob)

	return []hostileCase{
		// Names.
		{"parent", with(raw{name: "../evil", body: "x"}), layout.ErrUnsafe},
		{"parent below blobs", with(raw{name: "blobs/sha256/../../../evil", body: "x"}), layout.ErrUnsafe},
		{"parent behind dot", with(raw{name: "./../evil", body: "x"}), layout.ErrUnsafe},
		{"parent in the prefix", with(raw{name: "evil", prefix: "blobs/..", body: "x"}), layout.ErrUnsafe},
		{"parent in a PAX path", with(pax('x', record("path", "../"+strings.Repeat("a", 200))), raw{name: "a", body: "x"}), layout.ErrUnsafe},
		{"parent in a GNU long name", with(gnuLong("../"+strings.Repeat("a", 200)), raw{name: "a", body: "x"}), layout.ErrUnsafe},
		{"parent directory", with(raw{name: "..", kind: '5'}), layout.ErrUnsafe},
		{"absolute", with(raw{name: "/etc/passwd", body: "x"}), layout.ErrUnsafe},
		{"absolute directory", with(raw{name: "/", kind: '5'}), layout.ErrUnsafe},
		{"no name", with(raw{body: "x"}), layout.ErrInvalid},
		{"name of dots", with(raw{name: "././index.json", body: "x"}), layout.ErrInvalid},
		{"two slashes", with(raw{name: "blobs//sha256/" + blobHex, body: "content"}), layout.ErrInvalid},
		{"backslashes", with(raw{name: `..\..\evil`, body: "x"}), layout.ErrInvalid},
		{"unknown file", with(raw{name: "evil.sh", body: "x"}), layout.ErrInvalid},
		{"unknown directory", with(raw{name: "etc/", kind: '5'}), layout.ErrInvalid},
		{"file below ingest", with(raw{name: "ingest/x", body: "x"}), layout.ErrInvalid},
		{"other case", with(raw{name: "INDEX.JSON", body: emptyIndex}), layout.ErrInvalid},
		{"blob of another algorithm", with(raw{name: "blobs/md5/" + blobHex[:32], body: "x"}), layout.ErrInvalid},
		{"blob with an upper-case digest", with(raw{name: "blobs/sha256/" + strings.ToUpper(blobHex), body: "content"}), layout.ErrInvalid},
		{"blob with a short digest", with(raw{name: "blobs/sha256/" + blobHex[1:], body: "content"}), layout.ErrInvalid},
		{"blob one deeper", with(raw{name: "blobs/sha256/" + blobHex + "/x", body: "content"}), layout.ErrInvalid},
		{"blob with a colon", with(raw{name: "blobs/sha256:" + blobHex, body: "content"}), layout.ErrInvalid},
		{"file below blobs", with(raw{name: "blobs/x", body: "x"}), layout.ErrInvalid},
		{"long name", with(gnuLong(strings.Repeat("a", 5000)), raw{name: "a", body: "x"}), layout.ErrInvalid},

		// Types.
		{"symbolic link", with(raw{name: "blobs/sha256/" + blobHex, kind: '2', link: "/etc/passwd"}), layout.ErrUnsafe},
		{"symbolic link as blobs", with(raw{name: "blobs", kind: '2', link: "/etc"}), layout.ErrUnsafe},
		{"hard link", with(raw{name: "blobs/sha256/" + blobHex, kind: '1', link: "oci-layout"}), layout.ErrUnsafe},
		{"character device", with(raw{name: "blobs/sha256/" + blobHex, kind: '3'}), layout.ErrUnsafe},
		{"block device", with(raw{name: "blobs/sha256/" + blobHex, kind: '4'}), layout.ErrUnsafe},
		{"FIFO", with(raw{name: "blobs/sha256/" + blobHex, kind: '6'}), layout.ErrUnsafe},
		{"GNU long link", with(raw{name: "././@LongLink", kind: 'K', body: "/etc/passwd\x00"}), layout.ErrUnsafe},
		{"PAX linkpath", with(pax('x', record("linkpath", "/etc/passwd")), blob), layout.ErrUnsafe},
		{"link in the working files", with(raw{name: ".gloci/lock", kind: '2', link: "/etc/passwd"}), layout.ErrUnsafe},
		{"sparse file of GNU tar", with(raw{name: "blobs/sha256/" + blobHex, kind: 'S', magic: "ustar  \x00", body: "content"}), layout.ErrInvalid},
		{"sparse file in PAX", with(pax('x', record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0")), blob), layout.ErrInvalid},
		{"sparse for all members", with(pax('g', record("GNU.sparse.size", "1")), blob), layout.ErrInvalid},
		{"contiguous file", with(raw{name: blob.name, kind: '7', body: "content"}), layout.ErrInvalid},
		{"unknown type", with(raw{name: blob.name, kind: 'Z', body: "content"}), layout.ErrInvalid},
		{"multi-volume", with(raw{name: blob.name, kind: 'M', body: "content"}), layout.ErrInvalid},
		{"directory as a blob", with(raw{name: blob.name, kind: '5'}), layout.ErrInvalid},
		{"directory as index.json", join(marker, raw{name: "index.json", kind: '5'}, trailer), layout.ErrInvalid},
		{"directory with content", with(raw{name: "blobs/", kind: '5', body: "content"}), layout.ErrInvalid},
		{"file as blobs", with(raw{name: "blobs", body: "x"}), layout.ErrInvalid},
		{"file with the name of a directory", with(raw{name: "blobs/sha256/", body: "x"}), layout.ErrInvalid},
		{"file as the working files", with(raw{name: ".gloci", body: "x"}), layout.ErrInvalid},

		// Twice.
		{"blob twice", with(blob, blob), layout.ErrInvalid},
		{"blob twice, once with a dot", with(blob, raw{name: "./" + blob.name, body: "content"}), layout.ErrInvalid},
		{"index.json twice", with(index), layout.ErrInvalid},
		{"oci-layout twice", with(marker), layout.ErrInvalid},
		{"manifest.json twice", with(raw{name: "manifest.json", body: "[]"}, raw{name: "./manifest.json", body: "[]"}), layout.ErrInvalid},

		// Headers that contradict themselves.
		{"PAX path over a good name", with(pax('x', record("path", "repositories")), blob), layout.ErrInvalid},
		{"PAX path over an unknown name", with(pax('x', record("path", blob.name)), raw{name: "hidden", body: "content"}), layout.ErrInvalid},
		{"long PAX path over a good name", with(pax('x', record("path", sha512Name)), blob), layout.ErrInvalid},
		{"GNU long name over a good name", with(gnuLong(sha512Name), blob), layout.ErrInvalid},
		{"GNU long name over another", with(gnuLong(blob.name), raw{name: "hidden", body: "content"}), layout.ErrInvalid},
		{"two names", with(gnuLong(sha512Name), pax('x', record("path", sha512Name)), raw{name: sha512Name[:100], body: "x"}), layout.ErrInvalid},
		{"path twice", with(pax('x', record("path", sha512Name), record("path", sha512Name)), raw{name: sha512Name[:100], body: "x"}), layout.ErrInvalid},
		{"path for all members", with(pax('g', record("path", blob.name)), blob), layout.ErrInvalid},
		{"size for all members", with(pax('g', record("size", "7")), blob), layout.ErrInvalid},
		{"PAX size that lies", with(pax('x', record("size", "3")), blob), layout.ErrInvalid},
		{"PAX size of nothing", with(pax('x', record("size", "0")), blob), layout.ErrInvalid},
		{"PAX size beyond the file", with(pax('x', record("size", "9999999999")), blob), layout.ErrInvalid},
		{"PAX size negative", with(pax('x', record("size", "-7")), blob), layout.ErrInvalid},
		{"PAX size of 2^63", with(pax('x', record("size", "9223372036854775808")), blob), layout.ErrInvalid},
		{"PAX size with a sign", with(pax('x', record("size", "+7")), blob), layout.ErrInvalid},
		{"PAX size empty", with(pax('x', record("size", "")), blob), layout.ErrInvalid},
		{"size twice", with(pax('x', record("size", "7"), record("size", "7")), blob), layout.ErrInvalid},
		{"PAX path with a NUL", with(pax('x', record("path", blob.name+"\x00x")), blob), layout.ErrInvalid},
		{"GNU long name with a NUL", with(gnuLong(sha512Name+"\x00/../../x"), raw{name: sha512Name[:100], body: "x"}), layout.ErrInvalid},
		{"PAX record without a length", with(pax('x', "path=x\n"), blob), layout.ErrInvalid},
		{"PAX record too long", with(pax('x', "99 path=x\n"), blob), layout.ErrInvalid},
		{"PAX record too short", with(pax('x', "3 path=x\n"), blob), layout.ErrInvalid},
		{"PAX record of length 0", with(pax('x', "0 path=x\n"), blob), layout.ErrInvalid},
		{"PAX record negative", with(pax('x', "-9 path=x\n"), blob), layout.ErrInvalid},
		{"PAX record without an end", with(pax('x', "9 path=xy"), blob), layout.ErrInvalid},
		{"PAX record without a key", with(pax('x', "5 =x\n"), blob), layout.ErrInvalid},
		{"PAX record of zeros", with(pax('x', strings.Repeat("\x00", 100)), blob), layout.ErrInvalid},
		{"PAX header and no member", with(pax('x', record("path", sha512Name))), layout.ErrInvalid},
		{"PAX header over 1 MiB", with(longRecord, blob), layout.ErrInvalid},
		{"PAX header that is not there", with(raw{name: "x", kind: 'x', size: 1 << 19}), layout.ErrInvalid},
		{"GNU long name over 1 MiB", with(gnuLong(strings.Repeat("a", 1<<20)), blob), layout.ErrInvalid},
		{"checksum", with(raw{name: blob.name, body: "content", sum: 1}), layout.ErrInvalid},
		{"magic", with(raw{name: blob.name, body: "content", magic: "ustaR\x0000"}), layout.ErrInvalid},
		{"size negative", with(raw{name: blob.name, sizeField: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xf9", body: "content"}), layout.ErrInvalid},
		{"size of 2^95", with(raw{name: blob.name, sizeField: "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", body: "content"}), layout.ErrInvalid},
		{"size of 2^62", with(raw{name: blob.name, sizeField: "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00", body: "content"}), layout.ErrInvalid},
		{"size not octal", with(raw{name: blob.name, sizeField: "00000000009\x00", body: "content"}), layout.ErrInvalid},
		{"size with junk", with(raw{name: blob.name, sizeField: "7\x00evil\x00", body: "content"}), layout.ErrInvalid},

		// Sizes and ends.
		{"member beyond the file", with(bigBlob), layout.ErrInvalid},
		{"cut in a header", good[:len(good)-1024-512-512+100], layout.ErrInvalid},
		{"cut in the content", good[:len(good)-1024-512+3], layout.ErrInvalid},
		{"cut in the padding", good[:len(good)-1024-1], layout.ErrInvalid},
		{"no end", good[:len(good)-1024], layout.ErrInvalid},
		{"half an end", good[:len(good)-512], layout.ErrInvalid},
		{"cut in the end", good[:len(good)-1], layout.ErrInvalid},
		{"second archive", join(good, good), layout.ErrInvalid},
		{"second archive behind one block", join(marker, index, make([]byte, 512), blob, trailer), layout.ErrInvalid},
		{"second archive behind 10 KiB", join(good, make([]byte, 10<<10), good), layout.ErrInvalid},
		{"byte behind the end", join(good, make([]byte, 511), "x"), layout.ErrInvalid},
		{"2 MiB of zeros behind the end", join(good, make([]byte, 2<<20)), layout.ErrInvalid},
		{"zeros that are no block", join(good, make([]byte, 100)), layout.ErrInvalid},
		{"index.json over 4 MiB", join(marker, bigIndex, trailer), layout.ErrInvalid},
		{"oci-layout over 4 KiB", join(raw{name: "oci-layout", body: markerJSON + strings.Repeat(" ", 4096)}, index, trailer), layout.ErrInvalid},

		// No layouts.
		{"empty file", nil, layout.ErrNotLayout},
		{"empty archive", trailer, layout.ErrNotLayout},
		{"text", []byte(strings.Repeat("hello\n", 1000)), layout.ErrNotLayout},
		{"no oci-layout", join(index, blob, trailer), layout.ErrNotLayout},
		{"no index.json", join(marker, blob, trailer), layout.ErrNotLayout},
		{"another version", join(raw{name: "oci-layout", body: `{"imageLayoutVersion":"2.0.0"}`}, index, trailer), layout.ErrNotLayout},
		{"marker with two versions", join(raw{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0","imageLayoutVersion":"1.0.0"}`}, index, trailer), layout.ErrNotLayout},
		{"marker in another case", join(raw{name: "oci-layout", body: `{"imagelayoutversion":"1.0.0"}`}, index, trailer), layout.ErrNotLayout},

		// Wrapped.
		{"gzip cut", gz(t, compress.Gzip, good)[:50], layout.ErrInvalid},
		{"gzip without checksum", gz(t, compress.Gzip, good)[:len(gz(t, compress.Gzip, good))-8], layout.ErrInvalid},
		{"gzip with a second member", join(gz(t, compress.Gzip, good), gz(t, compress.Gzip, good)), layout.ErrInvalid},
		{"gzip with an empty second member", join(gz(t, compress.Gzip, good), gz(t, compress.Gzip)), layout.ErrInvalid},
		{"gzip of two archives", gz(t, compress.Gzip, good, good), layout.ErrInvalid},
		{"gzip of gzip", gz(t, compress.Gzip, gz(t, compress.Gzip, good)), layout.ErrNotLayout},
		{"zstd cut", gz(t, compress.Zstd, good)[:50], layout.ErrInvalid},
		{"zstd of two archives", join(gz(t, compress.Zstd, good), gz(t, compress.Zstd, good)), layout.ErrInvalid},
		{"zstd window of 1 GiB", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00}, layout.ErrInvalid},
		{"xz", []byte("\xfd7zXZ\x00\x00\x04"), layout.ErrInvalid},
		{"bzip2", []byte("BZh91AY&SY"), layout.ErrInvalid},
	}
}

func TestHostile(t *testing.T) {
	cases := hostile(t)
	t.Logf("%d cases", len(cases))
	if len(cases) < 100 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			_, err := openBytes(t, tt.data, nil)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			for _, other := range []error{layout.ErrUnsafe, layout.ErrInvalid, layout.ErrNotLayout, layout.ErrNotFound} {
				// A marker may be both: invalid, and so no layout.
				if !errors.Is(tt.want, other) && !errors.Is(tt.want, layout.ErrNotLayout) && errors.Is(err, other) {
					t.Errorf("error %v is also %v", err, other)
				}
			}
			if strings.ContainsAny(err.Error(), "\x00\x1b\n") {
				t.Errorf("error %q has control characters", err)
			}
		})
	}
}

// repeated is an archive of one member again and again, as far as it is read.
type repeated []byte

func (r repeated) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		n += copy(p[n:], r[(off+int64(n))%int64(len(r)):])
	}
	return len(p), nil
}

func TestTooManyHeaders(t *testing.T) {
	for name, r := range map[string]repeated{
		"members":     raw{name: "blobs/", kind: '5'}.bytes(),
		"PAX headers": raw{name: "x", kind: 'g', body: record("comment", "x")}.bytes(),
		"PAX data":    raw{name: "x", kind: 'g', body: record("comment", strings.Repeat("x", 1<<20-20))}.bytes(),
		"long names":  raw{name: "x", kind: 'L'}.bytes(),
	} {
		if err := archive.Scan(t.Context(), r, 1<<60); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%s: error %v, want ErrInvalid", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := archive.Scan(ctx, repeated(raw{name: "blobs/", kind: '5'}.bytes()), 1<<60); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: error %v", err)
	}
}

// What looks odd, and is right or common.
func TestAccepted(t *testing.T) {
	pax := func(kind byte, records ...string) raw {
		return raw{name: "PaxHeaders/x", kind: kind, body: strings.Join(records, "")}
	}
	hex512 := digest.SHA512.FromString("content").Encoded()
	long := "blobs/sha512/" + hex512
	for _, tt := range []struct {
		name string
		data []byte
		want digest.Digest
	}{
		{"plain", with(blob), digest.FromString("content")},
		{"dots and directories", join(
			raw{name: "./", kind: '5'}, raw{name: "./blobs/", kind: '5'}, raw{name: "./blobs/sha256", kind: '5'},
			raw{name: "./" + blob.name, body: "content"}, raw{name: "./index.json", body: emptyIndex}, raw{name: "./oci-layout", body: markerJSON}, trailer,
		), digest.FromString("content")},
		{"directory twice", with(raw{name: "blobs/", kind: '5'}, raw{name: "blobs/", kind: '5'}, blob), digest.FromString("content")},
		{"docker save", with(raw{name: "manifest.json", body: "[]"}, raw{name: "repositories", body: "{}"}, blob), digest.FromString("content")},
		{"working files", with(raw{name: ".gloci/", kind: '5'}, raw{name: ".gloci/lock"}, raw{name: ".gloci/tmp-1/", kind: '5'}, raw{name: ".gloci/tmp-1/blob-1", body: "x"}, blob), digest.FromString("content")},
		{"oras", with(raw{name: "ingest/", kind: '5'}, blob), digest.FromString("content")},
		{"GNU tar", with(raw{name: blob.name, magic: "ustar  \x00", body: "content"}), digest.FromString("content")},
		{"Version 7", with(raw{name: blob.name, magic: "\x00\x00\x00\x00\x00\x00\x00\x00", kind: 0, body: "content"}), digest.FromString("content")},
		{"prefix", with(raw{name: blobHex, prefix: "blobs/sha256", body: "content"}), digest.FromString("content")},
		{"base-256 size", with(raw{name: blob.name, sizeField: "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07", body: "content"}), digest.FromString("content")},
		{"size with spaces", with(raw{name: blob.name, sizeField: "          7 ", body: "content"}), digest.FromString("content")},
		{"PAX times", with(pax('x', record("mtime", "1.5"), record("atime", "2")), blob), digest.FromString("content")},
		{"PAX that says the same", with(pax('x', record("path", blob.name), record("size", "7")), blob), digest.FromString("content")},
		{"PAX comment for all", with(pax('g', record("comment", "from git archive")), blob), digest.FromString("content")},
		{"PAX sha512", with(pax('x', record("path", long)), raw{name: long[:100], body: "content"}), digest.SHA512.FromString("content")},
		{"GNU sha512", with(raw{name: "././@LongLink", kind: 'L', body: long + "\x00"}, raw{name: long[:100], body: "content"}), digest.SHA512.FromString("content")},
		{"10 KiB of zeros", join(with(blob), make([]byte, 10<<10)), digest.FromString("content")},
		{"gzip", gz(t, compress.Gzip, with(blob)), digest.FromString("content")},
		{"zstd of two frames", join(gz(t, compress.Zstd, with(blob)[:700]), gz(t, compress.Zstd, with(blob)[700:])), digest.FromString("content")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := openBytes(t, tt.data, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := sourcetest.Read(t.Context(), a, ocispec.Descriptor{Digest: tt.want, Size: 7})
			if err != nil || got != "content" {
				t.Errorf("Blob = %q, %v", got, err)
			}
		})
	}
}

func TestOpenNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := archive.Open(t.Context(), filepath.Join(dir, "nothing.oci"), nil); !errors.Is(err, layout.ErrNotFound) {
		t.Errorf("no file: error %v, want ErrNotFound", err)
	}
	if _, err := archive.Open(t.Context(), dir, nil); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("directory: error %v, want ErrNotLayout", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Open(t.Context(), fifo, nil); !errors.Is(err, layout.ErrNotLayout) {
		t.Errorf("FIFO: error %v, want ErrNotLayout", err)
	}
}

func TestMaxSize(t *testing.T) {
	data := with(blob)
	for _, format := range []compress.Format{compress.Gzip, compress.Zstd} {
		z := gz(t, format, data)
		if _, err := openBytes(t, z, &archive.Options{MaxSize: int64(len(data)) - 1}); !errors.Is(err, layout.ErrInvalid) || !errors.Is(err, compress.ErrLimit) {
			t.Errorf("%v over MaxSize: error %v, want ErrInvalid and ErrLimit", format, err)
		}
		if _, err := openBytes(t, z, &archive.Options{MaxSize: int64(len(data))}); err != nil {
			t.Errorf("%v of MaxSize: %v", format, err)
		}
	}
}

// A file that changes under us gives an error and never other bytes.
func TestFileChanges(t *testing.T) {
	desc := ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}
	for name, change := range map[string]func(file string) error{
		"written": func(file string) error {
			data := bytes.Replace(with(blob), []byte("content"), []byte("CONTENT"), 1)
			return os.WriteFile(file, data, 0o644)
		},
		"written, with old time and size": func(file string) error {
			info, err := os.Stat(file)
			if err == nil {
				err = os.WriteFile(file, bytes.Replace(with(blob), []byte("content"), []byte("CONTENT"), 1), 0o644)
			}
			if err == nil {
				err = os.Chtimes(file, time.Time{}, info.ModTime())
			}
			return err
		},
		"cut": func(file string) error { return os.Truncate(file, 1000) },
		"longer, with its own time": func(file string) error {
			info, err := os.Stat(file)
			if err == nil {
				err = errors.Join(os.WriteFile(file, append(with(blob), 0), 0o644), os.Chtimes(file, time.Time{}, info.ModTime()))
			}
			return err
		},
	} {
		file := filepath.Join(t.TempDir(), "x.oci")
		if err := os.WriteFile(file, with(blob), 0o644); err != nil {
			t.Fatal(err)
		}
		past := time.Unix(1e9, 0)
		if err := os.Chtimes(file, past, past); err != nil {
			t.Fatal(err)
		}
		a, err := archive.Open(t.Context(), file, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if err := change(file); err != nil {
			t.Fatal(err)
		}
		if got, err := sourcetest.Read(t.Context(), a, desc); !errors.Is(err, layout.ErrMismatch) {
			t.Errorf("%s: read %q, %v; want ErrMismatch", name, got, err)
		}
		// A section is not verified, so it is the time and size that count.
		if _, _, _, err := a.Section(t.Context(), desc.Digest); !errors.Is(err, layout.ErrMismatch) && !strings.Contains(name, "old time and size") {
			t.Errorf("%s: Section: error %v, want ErrMismatch", name, err)
		}
	}

	// A file that is renamed over is another file: the old one stays open.
	file := filepath.Join(t.TempDir(), "x.oci")
	for _, name := range []string{file, file + ".new"} {
		if err := os.WriteFile(name, with(blob), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, err := archive.Open(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := os.WriteFile(file+".new", with(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	if got, err := sourcetest.Read(t.Context(), a, desc); err != nil || got != "content" {
		t.Errorf("renamed over: %q, %v", got, err)
	}
	f, off, _, err := a.Section(t.Context(), desc.Digest)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 7)
	if _, err := f.ReadAt(got, off); err != nil || string(got) != "content" {
		t.Errorf("renamed over: section %q, %v", got, err)
	}
}

// FuzzOpen: any bytes give an error, or a layout of which each blob is right or
// a mismatch, as the standard library sees its members too.
func FuzzOpen(f *testing.F) {
	for _, tt := range hostile(f) {
		if len(tt.data) < 64<<10 {
			f.Add(tt.data)
		}
	}
	f.Add(with(blob))
	f.Add(with(raw{name: "PaxHeaders/x", kind: 'x', body: record("path", blob.name) + record("size", "7")}, blob))
	f.Add(gz(f, compress.Gzip, with(blob)))
	file := filepath.Join(f.TempDir(), "x.oci")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		a, err := archive.Open(t.Context(), file, &archive.Options{MaxSize: 1 << 20})
		if err != nil {
			if !errors.Is(err, layout.ErrUnsafe) && !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrNotLayout) {
				t.Fatalf("error %v has no class", err)
			}
			return
		}
		defer a.Close()
		if compress.Detect(data) == compress.None {
			compareWithLibrary(t, data, a)
		}
		for info, err := range a.Blobs(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got, err := sourcetest.Read(t.Context(), a, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
			if err == nil && info.Digest.Algorithm().FromString(got) != info.Digest {
				t.Errorf("blob %s is wrong", info.Digest)
			}
			if err != nil && !errors.Is(err, layout.ErrMismatch) {
				t.Errorf("blob %s: %v", info.Digest, err)
			}
		}
		_, _ = a.Index(t.Context()) // must not panic
	})
}

// compareWithLibrary checks that archive/tar sees the same members: what one
// reader checks, another must not see differently.
func compareWithLibrary(t *testing.T, data []byte, a *archive.Archive) {
	t.Helper()
	n := 0
	for _, h := range mustHeaders(t, data) {
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := strings.TrimPrefix(h.Name, "./")
		path, ok := strings.CutPrefix(name, "blobs/")
		if !ok {
			continue
		}
		n++
		info, err := a.Stat(t.Context(), digest.Digest(strings.Replace(path, "/", ":", 1)))
		if err != nil || info.Size != h.Size {
			t.Errorf("the library sees %q of %d bytes, we see %v, %v", h.Name, h.Size, info, err)
		}
	}
	for _, err := range a.Blobs(t.Context()) {
		if err != nil {
			t.Error(err)
		}
		n--
	}
	if n != 0 {
		t.Errorf("the library sees %d blobs more than we", n)
	}
}

func mustHeaders(t *testing.T, data []byte) []*tar.Header {
	t.Helper()
	var hs []*tar.Header
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the library refuses what we accept: %v", err)
			}
			return hs
		}
		hs = append(hs, h)
	}
}
