// Package extracttest makes layers for tests: archives written byte by byte, so
// that they can say what no honest program would, a source that holds them, and
// a corpus of hostile ones.
package extracttest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gardenlinux/gloci-layout/compress"
)

// An Entry is one member of an archive. What is zero gets the usual value.
type Entry struct {
	Name string
	Type byte // '0' is a file, '5' a directory, '2' a symbolic link, '1' a hard link, ...
	Link string
	Body string
	Mode int64 // 0644, or 0755 for a directory
	UID  int64
	GID  int64
	Time int64 // seconds since the epoch

	Major, Minor int64

	// PAX are records of an extended header before the entry; Global of a
	// global one. Raw comes before both, as it is.
	PAX    map[string]string
	Global map[string]string
	Raw    string

	// Size is what the header says, if not the length of Body; SizeField the
	// very bytes. BadSum spoils the checksum. NoMagic leaves out the magic.
	Size      int64
	SizeField string
	BadSum    bool
	NoMagic   bool
}

// File returns an entry of a regular file.
func File(name, body string) Entry { return Entry{Name: name, Type: '0', Body: body} }

// Dir returns an entry of a directory.
func Dir(name string) Entry { return Entry{Name: name, Type: '5'} }

// Symlink returns an entry of a symbolic link.
func Symlink(name, target string) Entry { return Entry{Name: name, Type: '2', Link: target} }

// Link returns an entry of a hard link.
func Link(name, target string) Entry { return Entry{Name: name, Type: '1', Link: target} }

// Tar returns an archive, with its end marker.
func Tar(entries ...Entry) []byte { return append(Members(entries...), make([]byte, 1024)...) }

// Members returns an archive without its end marker.
func Members(entries ...Entry) []byte {
	var b []byte
	for _, e := range entries {
		b = append(b, e.Raw...)
		if e.Global != nil {
			b = appendMember(b, Entry{Name: "pax_global_header", Type: 'g', Body: Records(e.Global)})
		}
		pax := maps.Clone(e.PAX)
		if pax == nil {
			pax = map[string]string{}
		}
		if _, said := pax["path"]; len(e.Name) > 100 && !said {
			pax["path"] = e.Name
		}
		if _, said := pax["linkpath"]; len(e.Link) > 100 && !said {
			pax["linkpath"] = e.Link
		}
		if len(pax) > 0 {
			b = appendMember(b, Entry{Name: "PaxHeaders.0/x", Type: 'x', Body: Records(pax)})
		}
		b = appendMember(b, e)
	}
	return b
}

// Records returns PAX records, sorted by key.
func Records(m map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m)) {
		rest := " " + key + "=" + m[key] + "\n"
		n := len(rest) + 1
		for n != len(rest)+len(strconv.Itoa(n)) {
			n = len(rest) + len(strconv.Itoa(n))
		}
		b.WriteString(strconv.Itoa(n) + rest)
	}
	return b.String()
}

func appendMember(b []byte, e Entry) []byte {
	h := make([]byte, 512)
	put := func(off, n int, s string) { copy(h[off:off+n], s) }
	octal := func(off, n int, v int64) { put(off, n, fmt.Sprintf("%0*o", n-1, v)) }
	mode, size := e.Mode, int64(len(e.Body))
	if mode == 0 {
		mode = 0o644
		if e.Type == '5' {
			mode = 0o755
		}
	}
	if e.Size != 0 {
		size = e.Size
	}
	put(0, 100, e.Name)
	octal(100, 8, mode)
	octal(108, 8, e.UID)
	octal(116, 8, e.GID)
	octal(124, 12, size)
	if e.SizeField != "" {
		put(124, 12, e.SizeField)
	}
	octal(136, 12, e.Time)
	h[156] = e.Type
	put(157, 100, e.Link)
	if !e.NoMagic {
		put(257, 8, "ustar\x0000")
		octal(329, 8, e.Major)
		octal(337, 8, e.Minor)
	}
	put(148, 8, "        ")
	sum := int64(0)
	for _, c := range h {
		sum += int64(c)
	}
	if e.BadSum {
		sum++
	}
	put(148, 8, fmt.Sprintf("%06o\x00 ", sum))
	b = append(append(b, h...), e.Body...)
	return append(b, make([]byte, -len(e.Body)&511)...)
}

// Compress returns data in a format.
func Compress(data []byte, f compress.Format) []byte {
	var b bytes.Buffer
	w, err := compress.NewWriter(&b, f, 0)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // of a test: there is no other cause than a wrong format
	}
	return b.Bytes()
}

// Gzip returns data as gzip stores it.
func Gzip(data []byte) []byte { return Compress(data, compress.Gzip) }
