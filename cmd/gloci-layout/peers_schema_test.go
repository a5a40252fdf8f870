//go:build linux

package main_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/schema"
)

// Every document of the rich layout passes the JSON schemas of the
// specification; package layout tests its own documents alike.
func passesSchema(t *testing.T, v *peerView) {
	documents := 0
	validate := func(name string, s schema.Validator, raw string) {
		documents++
		if err := s.Validate(strings.NewReader(raw)); err != nil {
			t.Errorf("%s: %v\n%s", name, err, raw)
		}
	}
	validate("oci-layout", schema.ValidatorMediaTypeLayoutHeader, readPeerFile(t, filepath.Join(v.dir, "oci-layout")))
	validate("index.json", schema.ValidatorMediaTypeImageIndex, readPeerFile(t, filepath.Join(v.dir, "index.json")))
	for _, desc := range v.refs(t) {
		for _, d := range reachable(t, v.dir, desc.Digest) {
			raw := blobOf(t, v.dir, d)
			switch {
			case strings.Contains(raw, `"mediaType":"`+testTypeIndex+`"`):
				validate(string(d), schema.ValidatorMediaTypeImageIndex, raw)
			case strings.HasPrefix(raw, `{"schemaVersion":2`):
				validate(string(d), schema.ValidatorMediaTypeManifest, raw)
			case strings.Contains(raw, `"rootfs"`) && strings.HasPrefix(raw, "{"):
				validate(string(d), schema.ValidatorMediaTypeImageConfig, raw)
			}
		}
	}
	if documents < 30 {
		t.Errorf("%d documents were checked, want 30 or more", documents)
	}
}
