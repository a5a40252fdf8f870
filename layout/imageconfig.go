package layout

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// IsImageLayer tells whether mediaType is that of a layer of a container image:
// a tar, compressed or not, of OCI or Docker.
func IsImageLayer(mediaType string) bool {
	for _, prefix := range []string{
		"application/vnd.oci.image.layer.v1.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar",
		"application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar",
	} {
		rest, ok := strings.CutPrefix(mediaType, prefix)
		if ok && slices.Contains([]string{"", "+gzip", "+zstd", ".gzip", ".zstd"}, rest) {
			return true
		}
	}
	return false
}

// DiffID returns the digest of the content of an image layer before it was
// compressed, as its media type says (config.md, "rootfs"). A layer that is not
// compressed so is [ErrInvalid].
func DiffID(ctx context.Context, src Source, layer ocispec.Descriptor) (digest.Digest, error) {
	format := compress.None
	switch {
	case strings.HasSuffix(layer.MediaType, "gzip"):
		format = compress.Gzip
	case strings.HasSuffix(layer.MediaType, "zstd"):
		format = compress.Zstd
	}
	rc, err := src.Blob(ctx, layer)
	if err != nil {
		return "", err
	}
	defer rc.Close() //nolint:errcheck // only read
	digester := digest.SHA256.Digester()
	r, err := compress.NewReader(rc, format)
	if err == nil {
		defer r.Close() //nolint:errcheck // frees the decoder
		_, err = io.Copy(digester.Hash(), r)
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("layer %s: %w content of a %s: %w", layer.Digest, ErrInvalid, layer.MediaType, err)
	}
	return digester.Digest(), nil
}

// An imageConfig is the config of an image (config.md), of which the list of
// layers is edited. All else keeps its bytes.
type imageConfig struct {
	raw     []byte
	members []strictjson.Member
	diffIDs []digest.Digest
	history []strictjson.Value // nil if there is none
	layers  []int              // numbers of the history's entries that made a layer
}

// parseImageConfig reads a config; what is no JSON object is [ErrInvalid].
func parseImageConfig(desc ocispec.Descriptor, raw []byte) (*imageConfig, error) {
	c := &imageConfig{raw: raw}
	if err := c.parse(); err != nil {
		return nil, fmt.Errorf("config %s: %w: %w", desc.Digest, ErrInvalid, err)
	}
	return c, nil
}

func (c *imageConfig) parse() error {
	v, err := strictjson.Parse(c.raw)
	if err != nil {
		return err
	}
	if c.members, err = v.Members(); err != nil {
		return err
	}
	for _, m := range c.members {
		switch m.Name {
		case "rootfs":
			err = c.parseRootFS(m.Value)
		case "history":
			err = c.parseHistory(m.Value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

func (c *imageConfig) parseRootFS(v strictjson.Value) error {
	if v.Kind() == strictjson.Null {
		return nil
	}
	ms, err := v.Members()
	if err != nil {
		return err
	}
	for _, m := range ms {
		if m.Name != "diff_ids" {
			continue
		}
		texts, err := decodeStrings(m.Value)
		if err != nil {
			return err
		}
		for _, text := range texts {
			d, err := ParseDigest(text)
			if err != nil {
				return err
			}
			c.diffIDs = append(c.diffIDs, d)
		}
	}
	return nil
}

func (c *imageConfig) parseHistory(v strictjson.Value) error {
	if v.Kind() == strictjson.Null {
		return nil
	}
	var err error
	if c.history, err = v.Items(); err != nil {
		return err
	}
	for i, item := range c.history {
		ms, err := item.Members()
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(ms, func(m strictjson.Member) bool {
			return m.Name == "empty_layer" && string(m.Value) == "true"
		}) {
			c.layers = append(c.layers, i)
		}
	}
	return nil
}

// keepsHistory tells whether the history has an entry for each layer.
func (c *imageConfig) keepsHistory() bool {
	return len(c.layers) > 0 && len(c.layers) == len(c.diffIDs)
}

// add appends a layer.
func (c *imageConfig) add(diffID digest.Digest, createdBy string) {
	if c.keepsHistory() {
		c.layers = append(c.layers, len(c.history))
		c.history = append(c.history, strictjson.FromMembers([]strictjson.Member{{Name: "created_by", Value: strictjson.Quote(createdBy)}}))
	}
	c.diffIDs = append(c.diffIDs, diffID)
}

// remove takes layer i out.
func (c *imageConfig) remove(i int) {
	if c.keepsHistory() {
		c.history = slices.Delete(slices.Clone(c.history), c.layers[i], c.layers[i]+1)
		c.layers = slices.Delete(c.layers, i, i+1)
		for j := i; j < len(c.layers); j++ {
			c.layers[j]--
		}
	}
	c.diffIDs = slices.Delete(c.diffIDs, i, i+1)
}

// bytes writes the config: its members in the order in which they stood, the
// values that are not edited with their bytes.
func (c *imageConfig) bytes() []byte {
	ids := make([]strictjson.Value, len(c.diffIDs))
	for i, d := range c.diffIDs {
		ids[i] = strictjson.Quote(string(d))
	}
	out := slices.Clone(c.members)
	for i, m := range out {
		switch {
		case m.Name == "history" && c.history != nil:
			out[i].Value = strictjson.FromItems(c.history)
		case m.Name == "rootfs" && m.Value.Kind() == strictjson.Object:
			ms, _ := m.Value.Members() // it was split before
			ms = slices.Clone(ms)
			for j := range ms {
				if ms[j].Name == "diff_ids" {
					ms[j].Value = strictjson.FromItems(ids)
				}
			}
			out[i].Value = strictjson.FromMembers(ms)
		}
	}
	raw := []byte(strictjson.FromMembers(out))
	// A final newline stays, or stays away.
	if bytes.HasSuffix(c.raw, []byte("\n")) {
		raw = append(raw, '\n')
	}
	return raw
}

// DiffIDs returns what the config of the image doc says of its layers before
// they were compressed (config.md, "rootfs").
func DiffIDs(ctx context.Context, src Source, doc *Document) ([]digest.Digest, error) {
	if !doc.IsImage() {
		return nil, fmt.Errorf("%s: %w: no image", doc.Descriptor.Digest, ErrInvalid)
	}
	raw, err := ReadAll(ctx, src, *doc.Config, MaxDocument)
	if err != nil {
		return nil, err
	}
	config, err := parseImageConfig(*doc.Config, raw)
	if err != nil {
		return nil, err
	}
	return config.diffIDs, nil
}
