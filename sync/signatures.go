package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// Signatures of sigstore are layers of an image manifest under cosign's tag
// sha256-HEX.sig, of which the HEX is that of what they sign: the signed text
// is the layer, the signature stands in its annotations.
const (
	mediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationSignature    = "dev.cosignproject.cosign/signature"

	maxSignatures = 1000    // under one tag
	maxSigned     = 4 << 20 // bytes of one signed text, as containers/image has it
)

// attachmentTag returns the tag of the signatures of d.
func attachmentTag(d digest.Digest) string {
	return strings.Replace(string(d), ":", "-", 1) + ".sig"
}

// isAttachment tells whether doc holds signatures in that form.
func isAttachment(doc *layout.Document) bool {
	return onlyLayers(doc, func(mediaType string) bool { return mediaType == mediaTypeSimpleSigning })
}

// holdsSignatures tells whether doc holds what is signed in itself and nothing
// else: signatures or attestations.
func holdsSignatures(doc *layout.Document) bool {
	return onlyLayers(doc, func(mediaType string) bool {
		return mediaType == mediaTypeSimpleSigning || mediaType == "application/vnd.dsse.envelope.v1+json" ||
			strings.HasPrefix(mediaType, "application/vnd.dev.sigstore.bundle.")
	})
}

func onlyLayers(doc *layout.Document, fits func(mediaType string) bool) bool {
	for _, l := range doc.Layers {
		if !fits(l.MediaType) {
			return false
		}
	}
	return !doc.IsIndex && len(doc.Layers) > 0
}

// A sigstoreSignature is one signature, as containers/image writes it to a file
// behind [sigstorePrefix].
type sigstoreSignature struct {
	MediaType   string            `json:"mimeType"`
	Payload     []byte            `json:"payload"`
	Annotations map[string]string `json:"annotations"`
}

const sigstorePrefix = "\x00sigstore-json\n"

// signatures finds those of a source.
type signatures struct {
	mu   sync.Mutex
	src  layout.Source                   // which entries are of
	tags map[string][]ocispec.Descriptor // entries of its index.json
}

// of returns the signatures of d that src has, in the form of files of
// containers/image. Nothing of them is verified but the digests.
func (s *signatures) of(ctx context.Context, src layout.Source, d digest.Digest) ([][]byte, error) {
	if dir, ok := src.(*dirSource); ok {
		return dir.signatures(d)
	}
	entries, err := s.entries(ctx, src, attachmentTag(d))
	if err != nil {
		return nil, err
	}
	var found [][]byte
	for _, e := range entries {
		doc, err := layout.ReadDocument(ctx, src, e)
		if err != nil {
			return nil, err
		}
		if doc.IsIndex || len(doc.Layers) > maxSignatures {
			return nil, fmt.Errorf("%s: %w: no manifest with up to %d signatures", e.Digest, layout.ErrInvalid, maxSignatures)
		}
		for _, l := range doc.Layers {
			one := sigstoreSignature{MediaType: l.MediaType, Annotations: l.Annotations}
			if l.MediaType != mediaTypeSimpleSigning {
				continue
			}
			if one.Payload, err = layout.ReadAll(ctx, src, l, maxSigned); err != nil {
				return nil, err
			}
			raw, err := json.Marshal(one)
			if err != nil {
				return nil, err
			}
			found = append(found, append([]byte(sigstorePrefix), raw...))
		}
	}
	return found, nil
}

// entries returns what src has under the tag.
func (s *signatures) entries(ctx context.Context, src layout.Source, tag string) ([]ocispec.Descriptor, error) {
	if t, ok := src.(consumer.Tagger); ok {
		desc, err := t.Tag(ctx, tag)
		if errors.Is(err, layout.ErrNotFound) {
			return nil, nil
		}
		return []ocispec.Descriptor{desc}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.src != src {
		x, err := src.Index(ctx)
		if err != nil {
			return nil, err
		}
		s.src, s.tags = src, map[string][]ocispec.Descriptor{}
		for _, e := range x.Entries() {
			if refName := layout.RefName(e); refName != "" {
				s.tags[tagOf(refName)] = append(s.tags[tagOf(refName)], e)
			}
		}
	}
	return s.tags[tag], nil
}

// signatures returns the files with signatures of d.
func (s *dirSource) signatures(d digest.Digest) ([][]byte, error) {
	prefix := ""
	if d != s.desc.Digest {
		prefix = d.Encoded() + "."
	}
	var found [][]byte
	for len(found) < maxSignatures {
		raw, err := s.read(prefix+fmt.Sprintf(dirSignature, len(found)+1), 2*maxSigned)
		if errors.Is(err, layout.ErrNotFound) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		found = append(found, raw)
	}
	return nil, fmt.Errorf("%s: %w: more than %d signatures", s, layout.ErrInvalid, maxSignatures)
}
