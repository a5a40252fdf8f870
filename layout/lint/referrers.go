package lint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
)

// referrerTag is a tag that names what belongs to a digest: sha256-<hex> lists
// the referrers where a registry has no API for them (distribution-spec,
// "Referrers Tag Schema"), with .sig, .att or .sbom it is cosign's.
var referrerTag = pattern.New(`^(?:.*:)?(sha256|sha512)-([0-9a-f]{64}|[0-9a-f]{128})(\.(sig|att|sbom))?$`)

// subjectOf returns what a ref name says that it belongs to.
func subjectOf(name string) (d digest.Digest, suffix string, ok bool) {
	m := referrerTag.FindStringSubmatch(name)
	if m == nil {
		return "", "", false
	}
	d, err := layout.ParseDigest(m[1] + ":" + m[2])
	return d, m[4], err == nil
}

// present tells whether the source holds d.
func (t *Tree) present(ctx context.Context, d digest.Digest) (bool, error) {
	_, err := t.Source.Stat(ctx, d)
	if errors.Is(err, layout.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func staleReferrer(ctx context.Context, t *Tree, report func(Finding)) error {
	for _, r := range t.Roots {
		for _, name := range r.RefNames {
			d, _, ok := subjectOf(name)
			if !ok {
				continue
			}
			there, err := t.present(ctx, d)
			if err != nil {
				return err
			}
			if !there {
				f := r.Finding()
				f.Why = fmt.Sprintf("%s belongs to %s, which is not there: it changed, or was not copied", name, d)
				f.Cure = "gloci-layout untag LAYOUT " + name + ", or copy what it belongs to"
				report(f)
			}
		}
	}
	var err error
	t.documents(func(n *Node) {
		s := n.Document.Subject
		if s == nil || err != nil {
			return
		}
		var there bool
		if there, err = t.present(ctx, s.Digest); err != nil || there {
			return
		}
		f := n.Finding()
		f.Why = fmt.Sprintf("its subject %s is not there: it changed, or was not copied", s.Digest)
		f.Cure = n.Root.RemoveCommand(n.Desc.Digest) + ", or copy the subject"
		report(f)
	})
	return err
}

// signed collects the digests that something signs.
func (t *Tree) signed(ctx context.Context) (map[digest.Digest]bool, error) {
	signed := map[digest.Digest]bool{}
	for name := range t.RefNames {
		if d, suffix, ok := subjectOf(name); ok && suffix == "sig" {
			signed[d] = true
		}
	}
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			if n.Document != nil && n.Document.Subject != nil && IsSignature(n.Document) {
				signed[n.Document.Subject.Digest] = true
			}
		}
	}
	// A registry that was opened for one tag lists no others, but knows what
	// refers to what. Elsewhere the documents read above are all that there are,
	// and what is damaged keeps nobody from reading the others.
	lister, ok := t.Source.(layout.ReferrerLister)
	if !ok {
		return signed, nil
	}
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			found, err := lister.Referrers(ctx, n.Desc.Digest)
			if err != nil {
				return nil, err
			}
			for _, x := range found {
				_, suffix, _ := subjectOf(layout.RefName(x.Desc))
				if suffix == "sig" || isSignatureType(x.Desc.ArtifactType) {
					signed[n.Desc.Digest] = true
				}
			}
		}
	}
	return signed, nil
}

// IsSignature tells whether a manifest is a signature, by the names that cosign,
// sigstore and notation use as artifact type and for layers.
func IsSignature(doc *layout.Document) bool {
	return isSignatureType(doc.ArtifactType) ||
		slices.ContainsFunc(doc.Layers, func(l ocispec.Descriptor) bool { return isSignatureType(l.MediaType) })
}

func isSignatureType(mediaType string) bool {
	return slices.ContainsFunc([]string{"sigstore", "cosign", "signature", "simplesigning"}, func(word string) bool {
		return strings.Contains(mediaType, word)
	})
}

func unsigned(ctx context.Context, t *Tree, report func(Finding)) error {
	signed, err := t.signed(ctx)
	if err != nil {
		return err
	}
	for _, r := range t.Roots {
		top := r.top()
		if top == nil || top.Subject != nil || len(r.RefNames) == 0 || allReferrerTags(r.RefNames) {
			continue
		}
		manifests, without := 0, 0
		for _, n := range r.Nodes {
			if n.Document == nil || n.Document.IsIndex || n.Document.Subject != nil || layout.IsAttestation(n.Desc) {
				continue
			}
			manifests++
			if !signed[n.Desc.Digest] {
				without++
			}
		}
		f := r.Finding()
		switch rootSigned := signed[r.Desc.Digest]; {
		case rootSigned:
			continue // who trusts an index trusts what it names
		case !top.IsIndex:
			f.Why = "it has no signature"
		case without == 0 && manifests > 0:
			f.Why = "the index has no signature, though all its manifests have: nobody vouches for which of them is which"
		default:
			f.Why = fmt.Sprintf("neither the index nor %d of its %d manifests have a signature", without, manifests)
		}
		f.Cure = "sign it when it is published, such as with cosign sign REPOSITORY@" + string(r.Desc.Digest)
		report(f)
	}
	return nil
}

func allReferrerTags(names []string) bool {
	for _, name := range names {
		if !layout.IsReferrerRefName(name) {
			return false
		}
	}
	return true
}
