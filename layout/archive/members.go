package archive

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A span is where the content of a member lies in the file.
type span struct{ off, size int64 }

// A table is what the headers of an archive say.
type table struct {
	marker, index *span // nil: no such member
	blobs         map[digest.Digest]span
	descriptions  map[digest.Digest]span // of a delta
	patches       map[digest.Digest]span // of the same

	pads  []span // what stands between members
	loose bool   // a header is not quite as we write it
}

// A member is a regular file or a directory of an archive.
type member struct {
	name string
	dir  bool
	span
}

// add takes a member into the table.
func (t *table) add(m member, seen map[string]bool) error {
	name, err := localName(m.name)
	if err != nil {
		return err
	}
	p, d, err := placeOf(name, m)
	if err != nil || p == placeIgnored {
		return err
	}
	if seen[name] {
		return fmt.Errorf("%w: it is there twice", layout.ErrInvalid)
	}
	seen[name] = true
	switch p {
	case placeMarker:
		t.marker = &m.span
	case placeIndex:
		t.index = &m.span
	case placeBlob:
		t.blobs[d] = m.span
	case placeDescription:
		t.descriptions[d] = m.span
	case placePatch:
		t.patches[d] = m.span
	}
	return nil
}

// A place is what a member is to the layout.
type place int

const (
	placeIgnored place = iota // allowed, and of no meaning
	placeOther                // the same, but only once
	placeMarker
	placeIndex
	placeBlob
	placeDescription
	placePatch
)

// placeOf tells the place of m, whose name inside the layout is name. What has
// no place is ErrInvalid.
func placeOf(name string, m member) (place, digest.Digest, error) {
	own := strings.HasPrefix(name, ownDir+"/")
	if m.dir {
		switch name {
		case "", "blobs", "blobs/sha256", "blobs/sha512", ownDir, "ingest", deltaDir:
			return placeIgnored, "", nil
		}
		if own {
			return placeIgnored, "", nil
		}
		return 0, "", unknown("a directory")
	}
	if name == "" || strings.HasSuffix(m.name, "/") {
		return 0, "", fmt.Errorf("%w: a file with the name of a directory", layout.ErrInvalid)
	}
	switch name {
	case ocispec.ImageLayoutFile:
		return placeMarker, "", nil
	case ocispec.ImageIndexFile:
		return placeIndex, "", nil
	case "manifest.json", "repositories":
		return placeOther, "", nil
	}
	if path, ok := strings.CutPrefix(name, "blobs/"); ok {
		algorithm, hex, ok := strings.Cut(path, "/")
		if !ok {
			return 0, "", unknown("a file")
		}
		d, err := layout.ParseDigest(algorithm + ":" + hex)
		return placeBlob, d, err
	}
	if file, ok := strings.CutPrefix(name, deltaDir+"/"); ok {
		return placeOfDelta(file)
	}
	if own {
		return placeIgnored, "", nil
	}
	return 0, "", unknown("a file")
}

func unknown(what string) error {
	return layout.WithHint(fmt.Errorf("%w: %s that does not belong into a layout", layout.ErrInvalid, what),
		"output of docker save without a layout is read as docker-archive:FILE")
}

// localName returns the name as it is inside a layout, without "./" before it
// and a slash behind it; "" is the layout itself. A name that could lead to
// another place is ErrUnsafe.
func localName(name string) (string, error) {
	switch {
	case name == "":
		return "", fmt.Errorf("%w: no name", layout.ErrInvalid)
	case len(name) > maxName:
		return "", fmt.Errorf("%w: a name of %d bytes", layout.ErrInvalid, len(name))
	case name[0] == '/':
		return "", fmt.Errorf("%w: absolute", layout.ErrUnsafe)
	case name == ".", name == "./":
		return "", nil
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "./"), "/")
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "..":
			return "", fmt.Errorf("%w: it has \"..\"", layout.ErrUnsafe)
		case "", ".":
			return "", fmt.Errorf("%w: it is not in its shortest form", layout.ErrInvalid)
		}
	}
	return name, nil
}
