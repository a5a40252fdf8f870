package sync

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// What registries refuse though the specification allows it; docs/registries.md
// tells more of it to people.

// refusesNested tells whether the registry at domain is known to refuse an
// index in an index.
func refusesNested(domain string) bool {
	return domain == "quay.io" || domain == "gcr.io" || strings.HasSuffix(domain, ".gcr.io")
}

const flattenHint = "gloci-layout index flatten makes one level of nested indexes"

// checkQuirks finds what the destination would refuse, before anything is sent.
func (p *pusher) checkQuirks(missing []*document) error {
	domain := reference.Domain(p.dest.named)
	if !refusesNested(domain) {
		return nil
	}
	for _, doc := range missing {
		if doc.nested() {
			err := fmt.Errorf("%s takes no index in an index, and %s is one: %w", domain, doc.desc.Digest, layout.ErrInvalid)
			return layout.WithHint(err, flattenHint)
		}
	}
	return nil
}

// nested tells whether doc is an index with an index in it.
func (doc *document) nested() bool {
	return doc.read != nil && slices.ContainsFunc(doc.read.Manifests, func(e ocispec.Descriptor) bool { return layout.IsIndex(e.MediaType) })
}

// refused adds what may be wrong with doc to the answer of a registry that does
// not take it.
func refused(doc *document, err error) error {
	var answer *RegistryError
	if !errors.As(err, &answer) {
		return err
	}
	switch {
	case answer.Status == http.StatusRequestEntityTooLarge:
		return layout.WithHint(err, fmt.Sprintf("the manifest has %d bytes; many registries take 4 MiB, some less", doc.desc.Size))
	case (answer.Status == http.StatusBadRequest || answer.Status == http.StatusNotFound || answer.Status == http.StatusUnsupportedMediaType) && doc.nested():
		return layout.WithHint(err, "the registry may take no nested indexes: "+flattenHint)
	}
	return err
}
