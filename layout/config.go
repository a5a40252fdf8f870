package layout

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// configPlatform reads the platform fields of an image config (config.md,
// "Properties"); nil where it has none.
func configPlatform(desc ocispec.Descriptor, raw []byte) (*ocispec.Platform, error) {
	v, err := strictjson.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w: %w", desc.Digest, ErrInvalid, err)
	}
	ms, err := members(v, platformNames)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", desc.Digest, err)
	}
	p := &ocispec.Platform{}
	for _, m := range ms {
		switch m.Name {
		case "architecture":
			p.Architecture, err = decodeOptional(m.Value)
		case "os":
			p.OS, err = decodeOptional(m.Value)
		case "os.version":
			p.OSVersion, err = decodeOptional(m.Value)
		case "os.features":
			p.OSFeatures, err = decodeStrings(m.Value)
		case "variant":
			p.Variant, err = decodeOptional(m.Value)
		}
		if err != nil {
			return nil, fmt.Errorf("config %s: %w", desc.Digest, field(m.Name, err))
		}
	}
	if p.OS == "" || p.Architecture == "" {
		return nil, nil
	}
	return p, nil
}
