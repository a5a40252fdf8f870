// Package filediff compares two contents, such as layers: as archives, file by
// file, where they are tars, plain or compressed; as lists of packages where
// they are that; else byte by byte.
//
// # Cost
//
// Both sides are decompressed at the same time and read once. Archives are
// merged by path: two that list their files in the same order, with files added
// or removed, are compared on the way, with nothing but a window of each in
// memory. What one side has long before the other waits in memory up to a limit,
// and then in a temporary file.
//
// # Hostile content
//
// Nothing is unpacked: no name of an archive becomes a path of this machine.
// Names may hold any byte. Decompressed bytes, members and depth are bounded.
package filediff

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/diff/pkglist"
)

// A Kind says what happened to something from A to B.
type Kind string

// The kinds of changes.
const (
	Added        Kind = "added"        // only B has it
	Removed      Kind = "removed"      // only A has it
	Changed      Kind = "changed"      // both have it, and it differs
	Moved        Kind = "moved"        // a ref name that names something else
	Renamed      Kind = "renamed"      // the same thing under another ref name
	Reordered    Kind = "reordered"    // the same members in another order
	Recompressed Kind = "recompressed" // the same content, compressed in another way
	Upgraded     Kind = "upgraded"     // a package of a later version
	Downgraded   Kind = "downgraded"   // a package of an earlier version
)

// Mirror returns the kind of the same change seen from B to A.
func (k Kind) Mirror() Kind {
	switch k {
	case Added:
		return Removed
	case Removed:
		return Added
	case Upgraded:
		return Downgraded
	case Downgraded:
		return Upgraded
	case Changed, Moved, Renamed, Reordered, Recompressed:
	}
	return k
}

// A Field is one property that differs. Properties of JSON documents have a
// JSON pointer for a name (RFC 6901), those of files a word.
type Field struct {
	Name string
	A, B *string // nil where that side has no such property; JSON where it is no string
}

// A File is a file as one side has it.
type File struct {
	Type    Type
	Mode    int64 // permission bits, with setuid, setgid and sticky
	UID     int
	GID     int
	Owner   string // user name, "" if the archive has none
	Group   string
	Size    int64 // bytes
	ModTime time.Time
	Link    string        // target of a link
	Digest  digest.Digest // of the content of a regular file that differs, was added or was removed
}

// A Type is the kind of a file.
type Type string

// The types of files.
const (
	TypeFile    Type = "file"
	TypeDir     Type = "directory"
	TypeSymlink Type = "symlink"
	TypeLink    Type = "link" // hard
	TypeChar    Type = "char device"
	TypeBlock   Type = "block device"
	TypeFIFO    Type = "fifo"
	TypeOther   Type = "other"
)

// A Range is a run of bytes that differ.
type Range struct {
	Offset, Length int64  // bytes
	A, B           []byte // the first of them, at most 16
	Where          string // what lies there, such as a partition, if that is known
}

// A Change is one difference between two contents.
type Change struct {
	Kind Kind
	// Path leads to the file: its name in the archive, below the names of the
	// archives that hold that one, outermost first. It is empty for the content
	// itself.
	Path   []string
	A, B   *File // nil where that side lacks it, and for packages
	Fields []Field
	// Ranges are the first runs of bytes that differ, where content was compared
	// byte by byte, and Differing is how many bytes differ in all.
	Ranges    []Range
	Differing int64
	Text      string          // a unified diff
	Package   *pkglist.Change // of a list of packages
}

// Ignore says which differences do not count.
type Ignore struct {
	Times       bool // of files
	Order       bool // of the members of an archive
	Compression bool // of content that is the same when decompressed
	Encoding    bool // of the same files: format, padding and repeated headers of an archive
	Owner       bool // numbers and names of users and groups
	OwnerNames  bool // their names only
	Mode        bool
	Xattrs      bool
}

// Options changes what is compared. Nil is the zero value.
type Options struct {
	Ignore Ignore
	// Only and Exclude are globs of the files that count, see [CheckGlob]. A file
	// in an archive in an archive fits where its own path or that of an archive
	// around it does.
	Only, Exclude []string
	// Text adds unified diffs of text files of at most MaxText bytes.
	Text    bool
	MaxText int64 // 0 means 1 MiB
	// Depth is how many archives may lie in one another to be opened, the
	// outermost included; 0 means 4, a negative number that none is.
	Depth int
	// Memory bounds what of each archive waits in memory for its counterpart; 0
	// means 32 MiB. What is more goes to a file in TempDir.
	Memory  int64
	TempDir string // "" means the system's
	// MaxSpill bounds that file; 0 means 4 GiB. Of files that do not fit only the
	// digest is known, and archives in archives that do not fit are not opened.
	MaxSpill int64
}
