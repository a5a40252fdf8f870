package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout"
)

// The limits of an archive that is read.
const (
	// MaxMembers is how many headers an archive may have.
	MaxMembers = 200_000

	maxExtended      = 1 << 20  // 1 MiB: one extended header
	maxExtendedTotal = 64 << 20 // 64 MiB: all extended headers
	maxName          = 4096     // bytes
	maxTrailer       = 1 << 20  // 1 MiB: zeros after the last member; GNU tar writes up to 10 KiB
	maxMarker        = 4 << 10  // 4 KiB: oci-layout
)

// scan reads the headers of an archive of size bytes. It accepts exactly what
// the comment of the package says.
func scan(ctx context.Context, r io.ReaderAt, size int64) (*table, error) {
	s := scanner{r: r, size: size}
	t := &table{blobs: map[digest.Digest]span{}, descriptions: map[digest.Digest]span{}, patches: map[digest.Digest]span{}}
	seen := map[string]bool{} // by name inside the layout
	for {
		if s.headers%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		m, err := s.next()
		if errors.Is(err, io.EOF) {
			t.pads, t.loose = s.pads, s.loose
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("at byte %d: %w", s.at, err)
		}
		if err := t.add(m, seen); err != nil {
			return nil, fmt.Errorf("member %q: %w", m.name, err)
		}
	}
}

// A scanner steps over the members of an archive. It reads headers only.
type scanner struct {
	r        io.ReaderAt
	size     int64 // of the archive
	off      int64 // of the next header
	at       int64 // of the last header, for messages
	headers  int
	extended int64 // bytes of extended headers so far

	pads  []span // what stands between members
	loose bool   // a checksum is written in another way than ours
}

// override is what extended headers say about the member that follows.
type override struct {
	path    string
	size    int64
	hasPath bool
	hasSize bool
}

// next returns the next member, or io.EOF after a proper end of the archive.
func (s *scanner) next() (member, error) {
	var over override
	var pending bool // an extended header waits for its member
	for {
		var h block
		if err := s.header(&h); err != nil {
			return member{}, err
		}
		if h == (block{}) {
			if pending {
				return member{}, fmt.Errorf("%w archive: an extended header without its member", layout.ErrInvalid)
			}
			return member{}, s.end()
		}
		if err := h.check(); err != nil {
			return member{}, err
		}
		s.loose = s.loose || string(h.checksum()) != fmt.Sprintf("%06o\x00 ", h.sum())
		if s.headers++; s.headers > MaxMembers {
			return member{}, fmt.Errorf("%w archive: more than %d members", layout.ErrInvalid, MaxMembers)
		}
		switch h.typeflag() {
		case typePAX, typeGlobal, typeLongName:
			data, err := s.extendedHeader(&h)
			if err != nil {
				return member{}, err
			}
			if h.typeflag() == typeLongName {
				err = over.longName(data)
			} else {
				err = over.records(data, h.typeflag() == typeGlobal)
			}
			if err != nil {
				return member{}, err
			}
			pending = pending || h.typeflag() != typeGlobal
		default:
			return s.member(&h, over)
		}
	}
}

// header reads the block at off.
func (s *scanner) header(h *block) error {
	if s.size-s.off < blockSize {
		return fmt.Errorf("%w archive: it ends early: no end marker", layout.ErrInvalid)
	}
	s.at = s.off
	if _, err := s.r.ReadAt(h[:], s.off); err != nil {
		return readError(err)
	}
	s.off += blockSize
	return nil
}

// content returns where size bytes after a header lie, and steps over them.
func (s *scanner) content(size int64) (span, error) {
	// The padding of the last member must be there, too.
	if left := s.size - s.off; size > left || padding(size) > left-size {
		return span{}, fmt.Errorf("%w archive: it ends early: %d of %d bytes", layout.ErrInvalid, max(left, 0), size)
	}
	sp := span{s.off, size}
	s.off += size + padding(size)
	if pad := padding(size); pad > 0 {
		s.pads = append(s.pads, span{sp.off + size, pad})
	}
	return sp, nil
}

func (s *scanner) extendedHeader(h *block) ([]byte, error) {
	size, err := parseNumber(h.size())
	if err != nil {
		return nil, fmt.Errorf("%w header: size: %w", layout.ErrInvalid, err)
	}
	if size > maxExtended || s.extended+size > maxExtendedTotal {
		return nil, fmt.Errorf("%w archive: extended headers pass the limit of %d bytes, or %d together",
			layout.ErrInvalid, maxExtended, maxExtendedTotal)
	}
	s.extended += size
	sp, err := s.content(size)
	if err != nil {
		return nil, err
	}
	data := make([]byte, sp.size) // no more than the archive has, and than the limit
	if _, err := s.r.ReadAt(data, sp.off); err != nil {
		return nil, readError(err)
	}
	return data, nil
}

// member makes a member of a header and what came before it.
func (s *scanner) member(h *block, over override) (member, error) {
	name, err := over.name(h)
	if err != nil {
		return member{}, err
	}
	m := member{name: name}
	refuse := func(kind error, what string) (member, error) {
		return m, fmt.Errorf("member %q: %w: %s", name, kind, what)
	}
	switch t := h.typeflag(); t {
	case typeRegular, typeOld:
	case typeDir:
		m.dir = true
	case '1':
		return refuse(layout.ErrUnsafe, "a hard link")
	case '2', 'K':
		return refuse(layout.ErrUnsafe, "a symbolic link")
	case '3', '4':
		return refuse(layout.ErrUnsafe, "a device")
	case '6':
		return refuse(layout.ErrUnsafe, "a FIFO")
	case 'S':
		return refuse(layout.ErrInvalid, "a sparse file")
	default:
		return refuse(layout.ErrInvalid, fmt.Sprintf("type %q", t))
	}
	size, err := over.bytes(h)
	if err != nil {
		return refuse(layout.ErrInvalid, err.Error())
	}
	if m.dir && size != 0 {
		return refuse(layout.ErrInvalid, "a directory with content")
	}
	m.span, err = s.content(size)
	return m, err
}

// end checks what follows the first block of zeros: one more, and after that
// only zeros to the end of the file. Another archive behind this one would be
// seen by some readers and not by others.
func (s *scanner) end() error {
	rest := s.size - s.off
	switch {
	case rest < blockSize:
		return fmt.Errorf("%w archive: it ends early: half an end marker", layout.ErrInvalid)
	case rest > maxTrailer, rest%blockSize != 0:
		return fmt.Errorf("%w archive: %d bytes after its end", layout.ErrInvalid, rest-blockSize)
	}
	data := make([]byte, rest)
	if _, err := s.r.ReadAt(data, s.off); err != nil {
		return readError(err)
	}
	for i, c := range data {
		if c != 0 {
			return fmt.Errorf("%w archive: data after its end, at byte %d", layout.ErrInvalid, s.off+int64(i))
		}
	}
	return io.EOF
}

// readError keeps an early end apart from io.EOF, the proper end.
func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w archive: it was cut while it was read", layout.ErrInvalid)
	}
	return err
}

// longName takes the name in a header of GNU tar.
func (o *override) longName(data []byte) error {
	name := string(cString(data))
	if strings.Trim(string(data[len(name):]), "\x00") != "" {
		return fmt.Errorf("%w header: a long name with a NUL", layout.ErrInvalid)
	}
	return o.setPath(name)
}

func (o *override) setPath(name string) error {
	if o.hasPath {
		return fmt.Errorf("%w header: two names for one member", layout.ErrInvalid)
	}
	o.path, o.hasPath = name, true
	return nil
}

// records takes the PAX records in data, "LENGTH KEY=VALUE\n". Those that mean
// nothing for a layout (times, owners, attributes) are passed over.
func (o *override) records(data []byte, global bool) error {
	for rest := string(data); rest != ""; {
		length, _, ok := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(length, 10, 31)
		if !ok || err != nil || length[0] == '+' || int(n) > len(rest) || int(n) < len(length)+len(" k=\n") || rest[n-1] != '\n' {
			return fmt.Errorf("%w header: PAX record %.40q", layout.ErrInvalid, rest)
		}
		key, value, ok := strings.Cut(rest[len(length)+1:n-1], "=")
		if !ok || key == "" || strings.ContainsRune(key, 0) {
			return fmt.Errorf("%w header: PAX record %.40q", layout.ErrInvalid, rest)
		}
		rest = rest[n:]
		switch {
		case strings.HasPrefix(key, "GNU.sparse."):
			return fmt.Errorf("%w header: a sparse file", layout.ErrInvalid)
		case key == "linkpath":
			return fmt.Errorf("%w: a link to %.200q", layout.ErrUnsafe, value)
		case key != "path" && key != "size":
			continue
		case global:
			return fmt.Errorf("%w header: one %s for all members", layout.ErrInvalid, key)
		case key == "path":
			if strings.ContainsRune(value, 0) {
				return fmt.Errorf("%w header: a path with a NUL", layout.ErrInvalid)
			}
			if err := o.setPath(value); err != nil {
				return err
			}
		default:
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 || value[0] == '+' || o.hasSize {
				return fmt.Errorf("%w header: size %.40q", layout.ErrInvalid, value)
			}
			o.size, o.hasSize = n, true
		}
	}
	return nil
}

// name returns the name of a member. An extended header may only say what the
// header itself has no room for: were both names good, two readers could see
// two members.
func (o *override) name(h *block) (string, error) {
	short, err := h.path()
	if err != nil || !o.hasPath {
		return short, err
	}
	long := o.path
	if long == short {
		return long, nil
	}
	local, err := localName(short)
	if err == nil {
		_, _, err = placeOf(local, member{name: short})
	}
	if err == nil || len(long) <= nameSize {
		return "", fmt.Errorf("%w header: it names %.200q and %.200q", layout.ErrInvalid, short, long)
	}
	return long, nil
}

// bytes returns the size of a member, under the same rule as name.
func (o *override) bytes(h *block) (int64, error) {
	n, err := parseNumber(h.size())
	if err != nil {
		return 0, fmt.Errorf("size: %w", err)
	}
	if o.hasSize && o.size != n && o.size <= maxOctal {
		return 0, fmt.Errorf("a header with the sizes %d and %d", n, o.size)
	}
	if o.hasSize {
		n = o.size
	}
	return n, nil
}
