package delta

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// MediaTypeInventory is the mediaType of an inventory (docs/format.md).
const MediaTypeInventory = "application/vnd.gardenlinux.gloci-layout.inventory.v1+json"

// MaxDocument bounds an inventory and the description of a delta, in bytes.
// Either has about 110 bytes for each blob.
const MaxDocument = 64 << 20 // 64 MiB

// An Inventory is what a source holds: digests and sizes, and nothing else. So
// it may leave a place that the content may not leave.
type Inventory struct {
	// Indexes are the index.json of what was listed. A repository of a registry
	// has none.
	Indexes []layout.BlobInfo
	// Blobs are sorted by digest, each once.
	Blobs []layout.BlobInfo
}

// Take lists the blobs that index.json of src reaches and that src holds: what
// nothing names may be gone tomorrow. Blobs are not read, documents are. Of a
// registry only documents are asked for, as it holds what they name. A delta
// without its base is listed as the whole that it makes.
func Take(ctx context.Context, src layout.Source) (*Inventory, error) {
	v, err := take(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("inventory of %s: %w", src, err)
	}
	return v, nil
}

func take(ctx context.Context, src layout.Source) (*Inventory, error) {
	x, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	v := &Inventory{}
	_, lists := src.(layout.ReferrerLister)
	if !lists {
		v.Indexes = []layout.BlobInfo{infoOf(x.Bytes())}
	}
	if c, ok := src.(Carrier); ok && c.Delta() != nil {
		for info, err := range src.Blobs(ctx) {
			if err != nil {
				return nil, err
			}
			v.Blobs = append(v.Blobs, info)
		}
		v.Blobs = append(v.Blobs, c.Delta().Expected...)
		for _, p := range c.Delta().Patches {
			v.Blobs = append(v.Blobs, p.BlobInfo)
		}
		v.normalize()
		return v, nil
	}
	for n, err := range layout.Walk(ctx, src, x.Entries(), &layout.WalkOptions{Sparse: true}) {
		if err != nil {
			return nil, err
		}
		if n.Absent {
			continue
		}
		if !lists && n.Document == nil {
			info, err := src.Stat(ctx, n.Desc.Digest)
			if errors.Is(err, layout.ErrNotFound) || err == nil && info.Size != n.Desc.Size {
				continue // it is not there, so it gets packed
			}
			if err != nil {
				return nil, err
			}
		}
		v.Blobs = append(v.Blobs, layout.BlobInfo{Digest: n.Desc.Digest, Size: n.Desc.Size})
	}
	v.normalize()
	return v, nil
}

// Union returns what at least one of all holds.
func Union(all ...*Inventory) *Inventory {
	u := &Inventory{}
	for _, v := range all {
		u.Indexes = append(u.Indexes, v.Indexes...)
		u.Blobs = append(u.Blobs, v.Blobs...)
	}
	u.normalize()
	return u
}

func (v *Inventory) normalize() {
	for _, list := range []*[]layout.BlobInfo{&v.Indexes, &v.Blobs} {
		slices.SortFunc(*list, compareInfo)
		*list = slices.Compact(*list)
	}
}

func compareInfo(a, b layout.BlobInfo) int {
	return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Size, b.Size))
}

func compareDigest(a layout.BlobInfo, d digest.Digest) int { return cmp.Compare(a.Digest, d) }

func infoOf(raw []byte) layout.BlobInfo {
	return layout.BlobInfo{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// Has tells whether the blob of desc is listed, with its size.
func (v *Inventory) Has(desc ocispec.Descriptor) bool {
	_, ok := slices.BinarySearchFunc(v.Blobs, layout.BlobInfo{Digest: desc.Digest, Size: desc.Size}, compareInfo)
	return ok
}

// blob is a BlobInfo in JSON.
type blob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

type inventoryDocument struct {
	MediaType string `json:"mediaType"`
	Indexes   []blob `json:"indexes"`
	Blobs     []blob `json:"blobs"`
}

// Bytes returns the inventory as a document: the same bytes for the same
// content (docs/format.md).
func (v *Inventory) Bytes() []byte {
	return encode(inventoryDocument{MediaTypeInventory, toBlobs(v.Indexes), toBlobs(v.Blobs)})
}

// ParseInventory reads what [Inventory.Bytes] writes. Anything else is
// [layout.ErrInvalid].
func ParseInventory(raw []byte) (*Inventory, error) {
	var doc inventoryDocument
	if err := decode(raw, &doc, MediaTypeInventory); err != nil {
		return nil, fmt.Errorf("%w inventory: %w", layout.ErrInvalid, err)
	}
	v := &Inventory{Indexes: toInfos(doc.Indexes), Blobs: toInfos(doc.Blobs)}
	if err := errors.Join(checkInfos(v.Indexes), checkInfos(v.Blobs)); err != nil {
		return nil, fmt.Errorf("%w inventory: %w", layout.ErrInvalid, err)
	}
	if !bytes.Equal(v.Bytes(), raw) {
		return nil, fmt.Errorf("%w inventory: it is not in the canonical form", layout.ErrInvalid)
	}
	return v, nil
}

// ReadInventory is [ParseInventory] of what r holds, at most [MaxDocument] bytes.
func ReadInventory(r io.Reader) (*Inventory, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return nil, err
	}
	return ParseInventory(raw)
}

func toBlobs(infos []layout.BlobInfo) []blob {
	blobs := make([]blob, len(infos)) // not nil: [] in JSON
	for i, info := range infos {
		blobs[i] = blob(info)
	}
	return blobs
}

func toInfos(blobs []blob) []layout.BlobInfo {
	infos := make([]layout.BlobInfo, len(blobs))
	for i, b := range blobs {
		infos[i] = layout.BlobInfo(b)
	}
	return infos
}

// checkInfos checks each blob, and that they are sorted, each digest once.
func checkInfos(infos []layout.BlobInfo) error {
	for i, info := range infos {
		if err := checkInfo(info); err != nil {
			return err
		}
		if i > 0 && infos[i-1].Digest >= info.Digest {
			return fmt.Errorf("%s: digests are not sorted", info.Digest)
		}
	}
	return nil
}

func checkInfo(info layout.BlobInfo) error {
	if _, err := layout.ParseDigest(string(info.Digest)); err != nil {
		return err
	}
	if info.Size < 0 {
		return fmt.Errorf("%s: size %d", info.Digest, info.Size)
	}
	return nil
}

// encode returns doc in one line, with a newline.
func encode(doc any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	return b.Bytes()
}

// decode reads a document of one of mediaTypes into doc. What encoding/json is lenient about, such as
// the case of names, is found by encoding it again.
func decode(raw []byte, doc any, mediaTypes ...string) error {
	if len(raw) > MaxDocument {
		return fmt.Errorf("more than %d bytes", MaxDocument)
	}
	var head struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return err
	}
	if !slices.Contains(mediaTypes, head.MediaType) {
		return fmt.Errorf("mediaType %.100q, want %s", head.MediaType, strings.Join(mediaTypes, " or "))
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(doc)
}
