package extracttest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

// A Hostile is a layer that means harm, or that looks like it.
type Hostile struct {
	Name      string
	MediaType string // default PlainTar
	Layer     func() []byte
	// Want is the error of a plain extraction of this one layer: one of
	// package layout, or nil if nothing is wrong with it as long as it stays
	// in its directory.
	Want error
	// Damaged changes the layer after its digest was taken.
	Damaged func(data []byte)
	// Slow cases make many files or read many bytes.
	Slow bool
}

// Victim is where the layers of [HostileLayers] try to get to: a file of this
// name beside the directory that they are extracted to.
const Victim = "victim"

func tarOf(entries ...Entry) func() []byte { return func() []byte { return Tar(entries...) } }

// up leads from any place in an extraction to the root of the machine.
var up = strings.Repeat("../", 40)

// HostileLayers returns the corpus. absolute is the path of the directory that
// holds the victim, for the layers that need one.
func HostileLayers(absolute string) []Hostile {
	abs := strings.TrimSuffix(absolute, "/")
	victim := abs + "/" + Victim
	all := names(victim)
	all = append(all, symlinks(abs, victim)...)
	all = append(all, hardLinks(victim)...)
	all = append(all, whiteouts()...)
	all = append(all, kinds()...)
	all = append(all, headers()...)
	all = append(all, streams()...)
	return append(all, bombs()...)
}

func names(victim string) []Hostile {
	return []Hostile{
		{Name: "dot dot", Layer: tarOf(File("../"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "dot dot in the middle", Layer: tarOf(Dir("a"), File("a/../../"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "dot dot that stays inside", Layer: tarOf(Dir("a"), File("a/../b", "x")), Want: layout.ErrUnsafe},
		{Name: "dot dot at the end", Layer: tarOf(Dir("a/..")), Want: layout.ErrUnsafe},
		{Name: "only dot dot", Layer: tarOf(Dir("..")), Want: layout.ErrUnsafe},
		{Name: "dot dot behind dots and slashes", Layer: tarOf(File(".//./..//./"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "absolute", Layer: tarOf(File(victim, "x")), Want: layout.ErrUnsafe},
		{Name: "absolute directory", Layer: tarOf(Entry{Name: victim + "/", Type: '5', Mode: 0o777}), Want: layout.ErrUnsafe},
		{Name: "absolute with two slashes", Layer: tarOf(File("/"+victim, "x")), Want: layout.ErrUnsafe},
		{Name: "absolute name in a PAX header", Layer: tarOf(Entry{Name: "a", Type: '0', Body: "x", PAX: map[string]string{"path": victim}}), Want: layout.ErrUnsafe},
		{Name: "dot dot in a PAX header", Layer: tarOf(Entry{Name: "a", Type: '0', Body: "x", PAX: map[string]string{"path": "../" + Victim}}), Want: layout.ErrUnsafe},
		{Name: "dot dot in a GNU long name", Layer: tarOf(
			Entry{Name: "a", Type: '0', Body: "x", Raw: string(Members(Entry{Name: "././@LongLink", Type: 'L', Body: "../" + Victim + "\x00"}))}), Want: layout.ErrUnsafe},
		{Name: "empty name", Layer: tarOf(File("", "x")), Want: layout.ErrInvalid},
		{Name: "a file as the root", Layer: tarOf(File(".", "x")), Want: layout.ErrUnsafe},
		{Name: "a link as the root", Layer: tarOf(Symlink("./", "/"), File("etc/x", "x")), Want: layout.ErrUnsafe},
		{Name: "a hard link as the root", Layer: tarOf(File("a", "x"), Link(".", "a")), Want: layout.ErrUnsafe},
		{Name: "backslashes", Layer: tarOf(File(`..\..\`+Victim, "x"))},
		{Name: "a NUL in a PAX name", Layer: tarOf(Entry{Name: "a", Type: '0', PAX: map[string]string{"path": "a\x00b"}}), Want: layout.ErrInvalid},
		{Name: "a component of 256 bytes", Layer: tarOf(File(strings.Repeat("a", 256), "x")), Want: layout.ErrInvalid},
		{Name: "a link target of 4096 bytes", Layer: tarOf(Symlink("l", strings.Repeat("a/", 2048))), Want: layout.ErrInvalid},
		{Name: "a path of 5000 bytes", Layer: tarOf(File(strings.Repeat("a/", 60)+strings.Repeat(strings.Repeat("b", 200)+"/", 25)+"c", "x")), Want: layout.ErrInvalid},
		{Name: "a file named like a directory", Layer: tarOf(File("a/", "x")), Want: layout.ErrInvalid},
		{Name: "a file as a parent", Layer: tarOf(File("a", "x"), File("a/b", "x")), Want: layout.ErrInvalid},
		{Name: "control characters", Layer: tarOf(File("a\x1b[2Jb\r\nc", "x"))},
		{Name: "bytes that are no UTF-8", Layer: tarOf(File("a\xff\xfe", "x"))},
	}
}

func symlinks(abs, victim string) []Hostile {
	return []Hostile{
		{Name: "link out, relative", Layer: tarOf(Symlink("l", "../"+Victim)), Want: layout.ErrUnsafe},
		{Name: "link out, absolute", Layer: tarOf(Symlink("l", victim)), Want: layout.ErrUnsafe},
		{Name: "write through an absolute link", Layer: tarOf(Symlink("l", abs), File("l/"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "write through a relative link", Layer: tarOf(Symlink("l", ".."), File("l/"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "write over a link", Layer: tarOf(Symlink("l", victim), File("l", "x"))},
		{Name: "directory over a link", Layer: tarOf(Symlink("l", abs), Dir("l"), File("l/"+Victim, "x"))},
		{Name: "two steps", Layer: tarOf(Dir("a"), Symlink("a/b", ".."), Symlink("c", "a/b/.."), File("c/"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "two steps, nothing written", Layer: tarOf(Dir("a"), Symlink("a/b", ".."), Symlink("c", "a/b/..")), Want: layout.ErrUnsafe},
		{Name: "steps in the other order", Layer: tarOf(Symlink("c", "a/b/../"+Victim), Dir("a"), Symlink("a/b", "..")), Want: layout.ErrUnsafe},
		{Name: "a long chain", Layer: func() []byte {
			e := []Entry{Dir("d"), Symlink("l0", "..")}
			for i := 1; i < 30; i++ {
				e = append(e, Symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("d/../l%d", i-1)))
			}
			return Tar(append(e, File("l29/"+Victim, "x"))...)
		}, Want: layout.ErrUnsafe},
		{Name: "directory replaced by a link", Layer: tarOf(Dir("a"), File("a/b", "x"), Symlink("a", abs), File("a/"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "a loop", Layer: tarOf(Symlink("a", "b"), Symlink("b", "a"), File("a/x", "x")), Want: layout.ErrInvalid},
		{Name: "a link to itself", Layer: tarOf(Symlink("a", "a"))},
		{Name: "a link to the root of the machine", Layer: tarOf(Symlink("r", up+"etc"), File("r/gloci-victim", "x")), Want: layout.ErrUnsafe},
		{Name: "a link to a process", Layer: tarOf(Symlink("p", "/proc/self/cwd"), File("p/"+Victim, "x")), Want: layout.ErrUnsafe},
		{Name: "a link out in a PAX header", Layer: tarOf(Entry{Name: "l", Type: '2', Link: "a", PAX: map[string]string{"linkpath": victim}}), Want: layout.ErrUnsafe},
		{Name: "a link without a target", Layer: tarOf(Symlink("l", "")), Want: layout.ErrInvalid},
		{Name: "a parent through a link that leads nowhere", Layer: tarOf(Symlink("l", "not/there"), File("l/f", "x"))},
		{Name: "dot dot through a directory that is not there", Layer: tarOf(Symlink("l", "not/../../"+Victim)), Want: layout.ErrUnsafe},
		{Name: "a maze of links", Slow: true, Layer: func() []byte {
			// 36 links, each with a long way to the one before, and a thousand
			// to the last of them.
			long := strings.Repeat("/.", 2000)
			e := []Entry{Symlink("l0", "."+long)}
			for i := 1; i <= 35; i++ {
				e = append(e, Symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d%s", i-1, long)))
			}
			for i := range 1000 {
				e = append(e, Symlink(fmt.Sprintf("x%d", i), "l35"+long))
			}
			return Tar(e...)
		}, Want: layout.ErrInvalid},
	}
}

func hardLinks(victim string) []Hostile {
	return []Hostile{
		{Name: "hard link out, absolute", Layer: tarOf(Link("h", victim), File("h", "x")), Want: layout.ErrUnsafe},
		{Name: "hard link out, relative", Layer: tarOf(Link("h", "../"+Victim)), Want: layout.ErrUnsafe},
		{Name: "hard link to the working directory", Layer: tarOf(Link("h", "extract.go")), Want: layout.ErrInvalid},
		{Name: "hard link through a link", Layer: tarOf(Symlink("l", ".."), Link("h", "l/"+Victim)), Want: layout.ErrUnsafe},
		{Name: "hard link to a link, then written", Layer: tarOf(Symlink("l", victim), Link("h", "l"), File("h", "x"), File("l", "x"))},
		{Name: "hard link to a link that leads out", Layer: tarOf(Symlink("l", victim), Link("h", "l")), Want: layout.ErrUnsafe},
		{Name: "hard link to a link that leads out from there", Layer: tarOf(Dir("a"), Symlink("a/l", "../x"), Link("h", "a/l")), Want: layout.ErrUnsafe},
		{Name: "hard link to a later entry", Layer: tarOf(Link("h", "f"), File("f", "x")), Want: layout.ErrInvalid},
		{Name: "hard link to a directory", Layer: tarOf(Dir("d"), Link("h", "d")), Want: layout.ErrUnsafe},
		{Name: "hard link to the root", Layer: tarOf(Link("h", ".")), Want: layout.ErrUnsafe},
		{Name: "hard link to itself", Layer: tarOf(File("h", "x"), Link("h", "h"))},
		{Name: "hard link in place of what it points at", Layer: tarOf(Dir("d"), File("d/f", "x"), Link("d", "d/f")), Want: layout.ErrInvalid},
		{Name: "hard link out in a PAX header", Layer: tarOf(Entry{Name: "h", Type: '1', Link: "a", PAX: map[string]string{"linkpath": victim}}), Want: layout.ErrUnsafe},
		{Name: "hard link to nothing", Layer: tarOf(Link("h", "")), Want: layout.ErrInvalid},
	}
}

func whiteouts() []Hostile {
	image := func(name string, want error, entries ...Entry) Hostile {
		return Hostile{Name: name, MediaType: ImageTar, Layer: tarOf(entries...), Want: want}
	}
	return []Hostile{
		image("whiteout of nothing", layout.ErrUnsafe, File(".wh.", "")),
		image("whiteout of dot", layout.ErrUnsafe, Dir("a"), File("a/.wh..", "")),
		image("whiteout of dot dot", layout.ErrUnsafe, Dir("a"), File("a/.wh...", "")),
		image("whiteout through a link", layout.ErrUnsafe, Symlink("l", ".."), File("l/.wh."+Victim, "")),
		image("opaque directory through a link", layout.ErrUnsafe, Symlink("l", ".."), File("l/.wh..wh..opq", "")),
		image("whiteout with dot dot in its path", layout.ErrUnsafe, File("../.wh."+Victim, "")),
		image("whiteout as a directory", layout.ErrInvalid, File(".wh.a/b", "x")),
		image("opaque whiteout as a directory", nil, File(".wh..wh..opq/b", "x")),
		image("whiteout of what is not there", nil, File("a/b/.wh.c", "")),
		image("a link as a whiteout", nil, File("f", "x"), Symlink(".wh.f", "/")),
	}
}

func kinds() []Hostile {
	return []Hostile{
		{Name: "character device", Layer: tarOf(Entry{Name: "null", Type: '3', Major: 1, Minor: 3}), Want: layout.ErrUnsafe},
		{Name: "block device", Layer: tarOf(Entry{Name: "sda", Type: '4', Major: 8}), Want: layout.ErrUnsafe},
		{Name: "FIFO", Layer: tarOf(Entry{Name: "p", Type: '6'}), Want: layout.ErrUnsafe},
		{Name: "FIFO, then a file", Layer: tarOf(Entry{Name: "p", Type: '6'}, File("p", "x")), Want: layout.ErrUnsafe},
		{Name: "unknown type", Layer: tarOf(Entry{Name: "v", Type: 'V'}), Want: layout.ErrUnsafe},
		{Name: "setuid", Layer: tarOf(Entry{Name: "su", Type: '0', Body: "x", Mode: 0o6755})},
		{Name: "every mode bit", Layer: tarOf(Entry{Name: "d", Type: '5', Mode: 0o7777}, Entry{Name: "d/f", Type: '0', Mode: 0o7777})},
		{Name: "no mode bit", Layer: tarOf(Entry{Name: "d", Type: '5', Mode: 0o1000}, Entry{Name: "d/e", Type: '5', Mode: 0o1000}, Entry{Name: "d/e/f", Type: '0', Body: "x", Mode: 0o1000})},
		{Name: "somebody's file", Layer: tarOf(Entry{Name: "f", Type: '0', UID: 12345, GID: 12345})},
		{Name: "capabilities", Layer: tarOf(Entry{Name: "f", Type: '0', Body: "x", PAX: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}})},
	}
}

func headers() []Hostile {
	pax := func(m map[string]string) Entry { return Entry{Name: "f", Type: '0', Body: "x", PAX: m} }
	return []Hostile{
		{Name: "negative size", Layer: tarOf(Entry{Name: "f", Type: '0', SizeField: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}), Want: layout.ErrInvalid},
		{Name: "a size of 2^62", Layer: tarOf(Entry{Name: "f", Type: '0', SizeField: "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00"}), Want: layout.ErrInvalid},
		{Name: "a PAX size of 2^62", Layer: tarOf(pax(map[string]string{"size": "4611686018427387904"})), Want: layout.ErrInvalid},
		{Name: "a negative PAX size", Layer: tarOf(pax(map[string]string{"size": "-1"})), Want: layout.ErrInvalid},
		{Name: "a size that is not octal", Layer: tarOf(Entry{Name: "f", Type: '0', SizeField: "99999999999\x00"}), Want: layout.ErrInvalid},
		{Name: "bad checksum", Layer: func() []byte {
			return append(Members(File("a", "x")), Tar(Entry{Name: "b", Type: '0', BadSum: true})...)
		}, Want: layout.ErrInvalid},
		{Name: "PAX record without end", Layer: tarOf(Entry{Name: "f", Type: '0', Raw: string(Members(Entry{Name: "x", Type: 'x', Body: "999999 path=a\n"}))}), Want: layout.ErrInvalid},
		{Name: "a PAX header of 2 MiB", Layer: tarOf(pax(map[string]string{"comment": strings.Repeat("x", 2<<20)})), Want: layout.ErrInvalid},
		{Name: "a GNU long name of 2 MiB", Layer: tarOf(Entry{Name: "f", Type: '0', Raw: string(Members(Entry{Name: "././@LongLink", Type: 'L', Body: strings.Repeat("a", 2<<20)}))}), Want: layout.ErrInvalid},
		{Name: "a thousand PAX headers in a row", Layer: tarOf(Entry{Name: "f", Type: '0', Body: "x", Raw: strings.Repeat(string(Members(Entry{Name: "x", Type: 'x', Body: Records(map[string]string{"path": "../" + Victim})})), 1000)}), Want: layout.ErrUnsafe},
		{Name: "a global path", Layer: tarOf(Entry{Name: "f", Type: '0', Body: "x", Global: map[string]string{"path": "../" + Victim}}), Want: layout.ErrInvalid},
		{Name: "a global comment, as git writes it", Layer: tarOf(Entry{Name: "f", Type: '0', Body: "x", Global: map[string]string{"comment": "0123456789abcdef"}})},
		{Name: "a PAX time far away", Layer: tarOf(pax(map[string]string{"mtime": "9000000000000000"}))},
		{Name: "a negative PAX time", Layer: tarOf(pax(map[string]string{"mtime": "-9000000000000000.5"}))},
		{Name: "a PAX time that is none", Layer: tarOf(pax(map[string]string{"mtime": "tomorrow"})), Want: layout.ErrInvalid},
		{Name: "a sparse file named out", Layer: tarOf(sparse("../"+Victim, 1<<20, "0\n1\n", "x")), Want: layout.ErrUnsafe},
		{Name: "a sparse file of 8 EiB", Layer: tarOf(sparse("s", 1<<62, "0\n1\n", "x")), Want: layout.ErrInvalid},
		{Name: "a sparse map that runs backwards", Layer: tarOf(sparse("s", 1<<20, "4096\n1\n0\n1\n", "xy")), Want: layout.ErrInvalid},
		{Name: "a sparse map of a million parts", Layer: tarOf(sparse("s", 1<<30, strings.Repeat("0\n0\n", 1<<20), "")), Want: layout.ErrInvalid},
	}
}

// sparse returns a file in the sparse format 1.0 of GNU tar. parts are lines of
// offsets and lengths.
func sparse(name string, size int64, parts, data string) Entry {
	head := fmt.Sprintf("%d\n%s", strings.Count(parts, "\n")/2, parts)
	head += strings.Repeat("\x00", -len(head)&511)
	return Entry{Name: "GNUSparseFile.0/x", Type: '0', Body: head + data, PAX: map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": fmt.Sprint(size),
	}}
}

// Sparse returns an entry of a file of the given size that holds data at an
// offset, as GNU tar stores it.
func Sparse(name string, size, off int64, data string) Entry {
	return sparse(name, size, fmt.Sprintf("%d\n%d\n", off, len(data)), data)
}

func streams() []Hostile {
	good := Tar(File("f", strings.Repeat("content ", 100)))
	of := func(b []byte) func() []byte { return func() []byte { return b } }
	return []Hostile{
		{Name: "gzip that is said to be none", Layer: of(Gzip(good)), Want: layout.ErrInvalid},
		{Name: "none that is said to be gzip", MediaType: ImageGzip, Layer: of(good), Want: layout.ErrInvalid},
		{Name: "zstd that is said to be gzip", MediaType: ImageGzip, Layer: of(Compress(good, compress.Zstd)), Want: layout.ErrInvalid},
		{Name: "gzip that is said to be zstd", MediaType: ImageTar + "+zstd", Layer: of(Gzip(good)), Want: layout.ErrInvalid},
		{Name: "text that is said to be an archive", Layer: of([]byte(strings.Repeat("no archive ", 100))), Want: layout.ErrInvalid},
		{Name: "gzip of gzip", MediaType: ImageGzip, Layer: of(Gzip(Gzip(good))), Want: layout.ErrInvalid},
		{Name: "gzip cut short", MediaType: ImageGzip, Layer: func() []byte { b := Gzip(good); return b[:len(b)-9] }, Want: layout.ErrInvalid},
		{Name: "archive cut short in a file", Layer: of(Members(File("f", strings.Repeat("x", 5000)))[:2000]), Want: layout.ErrInvalid},
		{Name: "archive cut short in a header", Layer: of(append(Members(File("f", "x")), make([]byte, 100)...)), Want: layout.ErrInvalid},
		{Name: "a bad checksum of gzip", MediaType: ImageGzip, Layer: func() []byte { b := Gzip(good); b[len(b)-5] ^= 1; return b }, Want: layout.ErrInvalid},
		{Name: "junk behind gzip", MediaType: ImageGzip, Layer: func() []byte { return append(Gzip(good), "junk"...) }, Want: layout.ErrInvalid},
		{Name: "a second archive behind the first", Layer: func() []byte { return append(bytes.Clone(good), Tar(File("../"+Victim, "x"))...) }},
		{Name: "a bit flipped in a file", Layer: of(good), Damaged: func(b []byte) { b[600] ^= 1 }, Want: layout.ErrMismatch},
		{Name: "a bit flipped behind the archive", Layer: func() []byte { return append(bytes.Clone(good), make([]byte, 10240)...) }, Damaged: func(b []byte) { b[len(b)-1] ^= 1 }, Want: layout.ErrMismatch},
		{Name: "a bit flipped in a header", Layer: of(good), Damaged: func(b []byte) { b[0] ^= 1 }, Want: layout.ErrMismatch},
		{Name: "a bit flipped in gzip", MediaType: ImageGzip, Layer: of(Gzip(good)), Damaged: func(b []byte) { b[20] ^= 4 }, Want: layout.ErrMismatch},
		{Name: "other magic of gzip", MediaType: ImageGzip, Layer: of(Gzip(good)), Damaged: func(b []byte) { b[0] ^= 4 }, Want: layout.ErrMismatch},
		{Name: "a zstd window of 2 GiB", MediaType: ImageTar + "+zstd", Layer: of(bigWindow()), Want: layout.ErrInvalid},
		{Name: "nothing at all", MediaType: ImageGzip, Layer: of(nil), Want: layout.ErrInvalid},
	}
}

// bigWindow returns a frame of zstd that asks for a window of 2 GiB.
func bigWindow() []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3}
	block := make([]byte, 4)
	binary.LittleEndian.PutUint32(block, 1|1<<1|512<<3) // the last one, one byte repeated 512 times
	return append(append(b, block[:3]...), 'x')
}

func bombs() []Hostile {
	return []Hostile{
		{Name: "ten thousand directories in one another", Layer: tarOf(Dir(strings.Repeat("a/", 10000))), Want: layout.ErrInvalid},
		{Name: "a thousand entries of one name", Layer: func() []byte {
			var e []Entry
			for range 250 {
				e = append(e, File("f", "x"), Dir("f"), File("f/g", "x"), Symlink("f", "g"))
			}
			return Tar(e...)
		}},
		{Name: "depth by way of links", Layer: func() []byte {
			deep := strings.Repeat("a/", 100)
			e := []Entry{Dir(deep), Symlink("l0", deep)}
			for i := range 20 {
				e = append(e, Dir(fmt.Sprintf("l%d/%s", i, deep)), Symlink(fmt.Sprintf("l%d", i+1), fmt.Sprintf("l%d/%s", i, deep)))
			}
			return Tar(e...)
		}, Want: layout.ErrInvalid},
		{Name: "3 GiB of zeros in gzip", MediaType: ImageGzip, Slow: true, Layer: func() []byte {
			return zeroBomb(3 << 30)
		}, Want: layout.ErrInvalid},
		{Name: "a sparse file above the limit", Layer: tarOf(Sparse("s", 65<<30, 0, "x")), Want: layout.ErrInvalid},
		{Name: "one directory opaque fifty thousand times", MediaType: ImageGzip, Slow: true, Layer: func() []byte {
			e := []Entry{Dir("d")}
			for i := range 5_000 {
				e = append(e, File(fmt.Sprintf("d/%d", i), ""))
			}
			for range 50_000 {
				e = append(e, File("d/.wh..wh..opq", ""))
			}
			return Gzip(Tar(e...))
		}},
	}
}

// zeroBomb returns a gzip stream of an archive with one file of zeros, whose
// ratio is above 1000:1. Its checksum is wrong, but that stands at its end.
func zeroBomb(size int64) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	write := func(p []byte) {
		if err == nil {
			_, err = w.Write(p)
		}
		if err == nil {
			err = w.Flush() // to a whole byte
		}
	}
	write(Members(Entry{Name: "zeros", Type: '0', Size: size}))
	zeros := make([]byte, 4<<20)
	write(zeros)
	start := b.Len()
	write(zeros)
	if err != nil {
		panic(err) // of a test: the buffer takes everything
	}
	chunk := bytes.Clone(b.Bytes()[start:])
	return append(b.Bytes(), bytes.Repeat(chunk, int(size/int64(len(zeros))))...)
}
