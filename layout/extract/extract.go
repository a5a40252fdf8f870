// Package extract makes files of layers: it unpacks the tar archives in them
// into a directory, one layer, several, or the root file system of an image.
//
// # All or nothing
//
// Everything is made in a new directory beside the one that is wanted, which
// gets its name only after every blob was read to its end and found to be what
// its descriptor says. After an error, or when the program is killed, what was
// at that name is still there as it was.
//
// # Hostile layers
//
// No entry leads out of the directory: neither a name, nor a link, nor a chain
// of links that leads there step by step. A path is followed in a record of
// what this extraction has made, never by the kernel, which is only asked for
// one component at a time and not to follow links. What is refused is
// [layout.ErrUnsafe]; content that is broken or passes a limit is
// [layout.ErrInvalid].
//
// # What files get
//
// Files and directories get the permission bits and the modification times of
// their entries, whatever the umask is. Directories that no entry speaks of get
// mode 0755 and the Unix epoch. Owners, the bits above the permissions (but the
// sticky bit of directories, which only takes rights away), extended attributes
// and devices are left out unless [Options.Preserve] asks for them.
package extract

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A Mode says what becomes of several layers.
type Mode string

// The modes.
const (
	// Single unpacks exactly one layer, which must be an archive, into OUT.
	Single Mode = "single"
	// MergeDir unpacks all layers that are archives into OUT, in order. Others
	// are left out and reported; without any archive, that is ErrInvalid.
	MergeDir Mode = "merge"
	// LayerPerDir unpacks each layer into a directory of its own, OUT/Layer.Dir.
	// One that is no archive is copied into it under Layer.Name. Names that
	// begin with ".wh." mean nothing.
	LayerPerDir Mode = "layer-per-dir"
	// ExtractAll is MergeDir, and layers that are no archives are copied to
	// OUT/Layer.Name.
	ExtractAll Mode = "all"
	// Rootfs applies the layers of an image (layer.md, "Applying Changesets")
	// to OUT/rootfs and copies its config to OUT/config.json. The uncompressed
	// layers have to hash to the diffIDs of the config.
	Rootfs Mode = "rootfs"
)

// A Layer is one blob to be extracted.
type Layer struct {
	Desc     ocispec.Descriptor
	Manifest ocispec.Descriptor // that names it; only reported

	// Dir is where below OUT the layer goes, with slashes, for LayerPerDir.
	// Layers with the same Dir are merged.
	Dir string
	// Name is what content that is no archive is called: a relative path with
	// slashes and without "..". It is needed by LayerPerDir and ExtractAll.
	Name string
}

// OnConflict says what happens when two layers have the same path.
type OnConflict string

// What can happen. Directories are the same path in no case as long as their
// modes are the same: their content is merged.
const (
	ConflictIdenticalOK OnConflict = "identical-ok" // ErrConflict unless type, mode and content are the same; the default
	ConflictError       OnConflict = "error"        // ErrConflict
	ConflictFirst       OnConflict = "first"        // what the first layer has stays
	ConflictLast        OnConflict = "last"         // the last one's replaces it
)

// Symlinks says what happens to symbolic links that lead out of OUT. Those that
// lead to something in OUT, or to nothing, are always made.
type Symlinks string

// What can happen. The default is SymlinksError, for Rootfs SymlinksKeep: there
// an absolute target begins at the root file system.
const (
	SymlinksError Symlinks = "error" // ErrUnsafe
	SymlinksSkip  Symlinks = "skip"  // they are left out, and reported
	SymlinksKeep  Symlinks = "keep"  // they are made; nothing is ever written through them
)

// Special says what happens to devices, FIFOs and entries of unknown types.
type Special string

// What can happen.
const (
	SpecialError Special = "error" // ErrUnsafe; the default
	SpecialSkip  Special = "skip"  // they are left out, and reported
)

// Options changes what [Extract] does. Nil is the zero value.
type Options struct {
	Mode       Mode // default Single
	OnConflict OnConflict
	Symlinks   Symlinks
	Special    Special

	// Preserve keeps owners, all mode bits, extended attributes, and makes
	// devices and FIFOs. What the user may not set is an error.
	Preserve bool

	// Force replaces a directory OUT that is not empty. What is in it is
	// removed, as a whole, once the new content has taken its place.
	Force bool
	// Protect are paths that Force may not remove, such as that of the source:
	// an OUT that is one of them or holds one is ErrConflict. The working
	// directory is always protected.
	Protect []string

	// Config is the config of the image, for Rootfs.
	Config *ocispec.Descriptor

	// Files asks for Result.Files, and so for a digest of each file.
	Files bool

	// Limits of each layer; zero is the default, negative none.
	MaxBytes   int64 // uncompressed, and of all files together: 64 GiB
	MaxRatio   int64 // of uncompressed to compressed bytes, above 1 GiB: 1000
	MaxEntries int64 // entries, and directories that they need: 2,000,000
	MaxName    int   // bytes of a name and of the target of a link: 4096
	MaxDepth   int   // components of a path: 128

	// Progress is told of each blob; calls do not overlap. Nil is silent.
	Progress func(layout.Event)
}

// A Result is what [Extract] has written.
type Result struct {
	// Written has each layer in order, and the config of a Rootfs first.
	Written []Written
	// Skipped is what the options have left out.
	Skipped []Skipped
	// Files has everything below OUT, sorted by path, with Options.Files.
	Files []File
}

// A Written is what became of one blob.
type Written struct {
	// Path is the file, or the directory that the archive was unpacked into,
	// below OUT with slashes; "." for OUT itself. It is "" for a layer that
	// MergeDir has left out because it is no archive.
	Path    string
	Archive bool
	Entries int64 // of the archive
	Bytes   int64 // that were written: of all files of the archive, or of the file

	Source   ocispec.Descriptor
	Manifest ocispec.Descriptor // Layer.Manifest
}

// A Skipped is an entry that was not made.
type Skipped struct {
	Path   string // below OUT, with slashes
	Source digest.Digest
	Why    string // one line for a person
}

// A File is a file, directory or link that was made.
type File struct {
	Path   string      // below OUT, with slashes
	Mode   fs.FileMode // with the type
	Size   int64       // bytes, of a regular file
	Digest digest.Digest
	Target string // of a symbolic link
	// Layer is the number of the layer among those that were given to Extract
	// which has made it; -1 for the config of a Rootfs and for directories that
	// no layer speaks of.
	Layer int
}

// Extract makes files of layers of src in the directory out.
//
// out must not exist, or be an empty directory; its parent must exist. Anything
// else is [layout.ErrExists], unless Options.Force. An error leaves out as it
// was. A blob that is not what its descriptor says is [layout.ErrMismatch], two
// layers that differ in a path [layout.ErrConflict]; see OnConflict.
//
// Where all layers of a directory are layers of container images, by their media
// types, whiteouts and opaque directories are obeyed as for Rootfs, and a later
// layer replaces what an earlier one has.
func Extract(ctx context.Context, src layout.Source, layers []Layer, out string, opts *Options) (*Result, error) {
	x := &extraction{src: src, layers: layers, result: &Result{}}
	if opts != nil {
		x.opts = *opts
	}
	if err := x.check(); err != nil {
		return nil, fmt.Errorf("extract to %s: %w", out, err)
	}
	if err := x.run(ctx, out); err != nil {
		return nil, fmt.Errorf("extract to %s: %w", out, err)
	}
	return x.result, nil
}
