package gardenlinux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// MediaTypeUKI is that of the layer that gardenlinux-update installs.
const MediaTypeUKI = "application/io.gardenlinux.uki"

// Update is gardenlinux-update, which updates a running machine in place.
type Update struct {
	// CName is what the machine calls itself: GARDENLINUX_CNAME of its os-release
	// without "-" and GARDENLINUX_VERSION. It is used as a prefix.
	CName string
	// MediaType is that of the layer; "" is [MediaTypeUKI].
	MediaType string
	// Unsigned leaves the signature out, as if everything were signed.
	Unsigned bool
}

// Name is "gardenlinux-update".
func (Update) Name() string { return "gardenlinux-update" }

// About says how it chooses.
func (Update) About() string {
	return "the first entry whose annotation cname begins with that of the machine; it must have os.version and a cosign signature; the first layer of a media type"
}

// IsImageClient is false.
func (Update) IsImageClient() bool { return false }

// Take follows package-gardenlinux-update src/main.go,
// getManifestDigestAndCanonicalVersionByCname, verifyManifest and
// getLayerByMediaType. No platform plays a part. Whether the key of the machine
// made the signature is not looked at.
func (u Update) Take(ctx context.Context, src layout.Source, root ocispec.Descriptor, _ consumer.Ask) (*consumer.Outcome, error) {
	o := &consumer.Outcome{Desc: root}
	if ok, err := readInto(ctx, src, o); !ok {
		return o, err
	}
	// A manifest has no field "manifests", so nothing is found in it.
	i := u.choose(o.Document.Manifests)
	if i < 0 {
		o.Why = fmt.Sprintf("none of %d entries has an annotation cname that begins so", len(o.Document.Manifests))
		return failed(o, consumer.FailName, "no manifest found for cname %s", u.CName), nil
	}
	entry, others := o.Document.Manifests[i], o.Document.Manifests[i+1:]
	o.Path, o.Desc, o.Document = append(o.Path, o.Desc), entry, nil
	o.Why = fmt.Sprintf("entry %d is the first whose cname begins with %s: %s", i+1, u.CName, entry.Annotations[annotationCName])
	if next := u.choose(others); next >= 0 {
		o.Notes = append(o.Notes, "there are more that begin so, the next is "+others[next].Annotations[annotationCName])
	}
	if entry.Platform == nil || entry.Platform.OSVersion == "" {
		return failed(o, consumer.FailDocument, "index entry matched cname but platform.os.version is empty for digest %s", entry.Digest), nil
	}
	if !u.Unsigned {
		if ok, err := u.verify(ctx, src, o); !ok {
			return o, err
		}
	}
	if ok, err := readInto(ctx, src, o); !ok {
		return o, err
	}
	mediaType := u.MediaType
	if mediaType == "" {
		mediaType = MediaTypeUKI
	}
	n := slices.IndexFunc(o.Document.Layers, func(l ocispec.Descriptor) bool { return l.MediaType == mediaType })
	if n < 0 {
		return failed(o, consumer.FailLayer, "no layer found for media type %s", mediaType), nil
	}
	o.Layers = []ocispec.Descriptor{o.Document.Layers[n]}
	if o.Layers[0].Size == 0 {
		return failed(o, consumer.FailLayer, "No layer found for %s: its size is 0", u.CName), nil
	}
	o.Notes = append(o.Notes, fmt.Sprintf("installed as %s-%s+3.efi", u.CName, entry.Platform.OSVersion))
	return o, nil
}

// choose returns the number of the entry that is taken, or -1.
func (u Update) choose(entries []ocispec.Descriptor) int {
	return slices.IndexFunc(entries, func(d ocispec.Descriptor) bool {
		return strings.HasPrefix(d.Annotations[annotationCName], u.CName)
	})
}

// verify looks for the tag that cosign makes, and for the digest in what it
// signed.
func (u Update) verify(ctx context.Context, src layout.Source, o *consumer.Outcome) (ok bool, err error) {
	tag := signatureTag(o.Desc.Digest)
	desc, err := consumer.FindTag(ctx, src, tag)
	if errors.Is(err, layout.ErrNotFound) {
		failed(o, consumer.FailSignature, "%s: not found", tag)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	at := &consumer.Outcome{Desc: desc}
	if ok, err := readInto(ctx, src, at); !ok {
		o.Failure = at.Failure
		return false, err
	}
	if len(at.Document.Layers) == 0 {
		failed(o, consumer.FailSignature, "%s has no layers", tag)
		return false, nil
	}
	raw, err := layout.ReadAll(ctx, src, at.Document.Layers[0], layout.MaxDocument)
	switch {
	case errors.Is(err, layout.ErrNotFound), errors.Is(err, layout.ErrInvalid), errors.Is(err, layout.ErrMismatch):
		failed(o, consumer.FailSignature, "%s: %v", tag, err)
		return false, nil
	case err != nil:
		return false, err
	}
	var message struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	// What is no JSON has no digest either.
	_ = json.Unmarshal(raw, &message)
	if message.Critical.Image.Digest != string(o.Desc.Digest) {
		failed(o, consumer.FailSignature, "Error during signature verification, the digest of the manifest to be verified %s is not equal to the digest that is in the signed message %.80q",
			o.Desc.Digest, message.Critical.Image.Digest)
		return false, nil
	}
	o.Notes = append(o.Notes, "signed by "+tag+"; with which key is not looked at")
	return true, nil
}

// signatureTag is where cosign puts the signature of d.
func signatureTag(d digest.Digest) string {
	return strings.Replace(string(d), ":", "-", 1) + ".sig"
}

// readInto reads the document of o. It is false where the consumer fails.
func readInto(ctx context.Context, src layout.Source, o *consumer.Outcome) (ok bool, err error) {
	o.Document, err = consumer.ReadDocument(ctx, src, o.Desc)
	switch {
	case errors.Is(err, layout.ErrNotFound), errors.Is(err, layout.ErrInvalid), errors.Is(err, layout.ErrMismatch):
		failed(o, consumer.FailDocument, "%v", err)
		return false, nil
	}
	return err == nil, err
}

func failed(o *consumer.Outcome, kind consumer.FailureKind, format string, args ...any) *consumer.Outcome {
	o.Failure = &consumer.Failure{Kind: kind, Message: fmt.Sprintf(format, args...)}
	return o
}
