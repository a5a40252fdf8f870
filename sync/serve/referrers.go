package serve

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// maxReferrers bounds the entries of one list of referrers, in bytes; what is
// left comes with the next page. Clients read no more than 4 MiB of a manifest.
const maxReferrers = 1 << 20 // 1 MiB

// referrers lists what has reference as its subject (distribution-spec, "Listing
// Referrers"). Also of what is not there: then the list is empty.
func (c *call) referrers(rep *content.Repo, reference string) {
	d, ok := c.digest(reference)
	if !ok {
		return
	}
	found := c.held.Referrers(rep, d)
	query := c.r.URL.Query()
	artifactType := query.Get("artifactType")
	if artifactType != "" {
		found = slices.DeleteFunc(found, func(desc ocispec.Descriptor) bool { return desc.ArtifactType != artifactType })
		c.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if last := query.Get("last"); last != "" {
		found = slices.DeleteFunc(found, func(desc ocispec.Descriptor) bool { return string(desc.Digest) <= last })
	}
	entries, bytes := []json.RawMessage{}, 0
	for i, desc := range found {
		raw, err := json.Marshal(desc)
		if err != nil {
			c.fail(http.StatusInternalServerError, "UNKNOWN", "internal error", nil)
			c.err = err
			return
		}
		if bytes += len(raw); bytes > maxReferrers && i > 0 {
			next := url.Values{"last": {string(found[i-1].Digest)}}
			if artifactType != "" {
				next.Set("artifactType", artifactType)
			}
			c.link(next)
			break
		}
		entries = append(entries, raw)
	}
	c.w.Header()["Content-Type"] = []string{ocispec.MediaTypeImageIndex}
	c.json(struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, ocispec.MediaTypeImageIndex, entries})
}
