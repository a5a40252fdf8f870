package layout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A survey is what a search has come by, so that one that finds nothing can say
// what there is.
type survey struct {
	manifests    map[digest.Digest]bool
	attestations map[digest.Digest]bool // not searched
	kinds        tally                  // of manifests
	platforms    tally
	names        tally
	layers       tally // media types in manifests that were chosen
}

// shown is how many of a kind are told.
const shown = 8

// add counts a manifest that was not chosen; doc is nil if it was not read.
func (s *survey) add(desc ocispec.Descriptor, doc *Document) {
	if s.manifests[desc.Digest] {
		return
	}
	mark(&s.manifests, desc.Digest)
	artifactType := desc.ArtifactType
	if doc != nil {
		artifactType = cmp.Or(doc.ArtifactType, artifactType)
	}
	s.kinds.add(cmp.Or(artifactType, desc.MediaType))
	if desc.Platform != nil {
		s.platforms.add(FormatPlatform(*desc.Platform))
	}
	s.names.add(annotated(desc, doc, "cname"))
}

func (s *survey) attestation(desc ocispec.Descriptor) { mark(&s.attestations, desc.Digest) }

func mark(set *map[digest.Digest]bool, d digest.Digest) {
	if *set == nil {
		*set = map[digest.Digest]bool{}
	}
	(*set)[d] = true
}

// lines tells what there is, one fact a line.
func (s *survey) lines() string {
	var b strings.Builder
	if n := len(s.manifests); n > 0 && len(s.layers) == 0 {
		fmt.Fprintf(&b, "\n  %s there: %s", count(n, "other manifest"), s.kinds)
		for _, of := range []struct {
			what string
			tally
		}{{"platforms", s.platforms}, {"names", s.names}} {
			if len(of.tally) > 0 {
				fmt.Fprintf(&b, "\n  %s: %s", of.what, strings.Join(of.values(), ", "))
			}
		}
	}
	if len(s.layers) > 0 {
		fmt.Fprintf(&b, "\n  layers there: %s", s.layers)
	}
	switch n := len(s.attestations); n {
	case 0:
	case 1:
		b.WriteString("\n  1 attestation manifest was not searched")
	default:
		fmt.Fprintf(&b, "\n  %d attestation manifests were not searched", n)
	}
	return b.String()
}

// A tally counts things by name.
type tally map[string]int

func (t *tally) add(name string) {
	if name == "" {
		return
	}
	if *t == nil {
		*t = tally{}
	}
	(*t)[name]++
}

// String returns "2 a, 1 b", the most frequent first.
func (t tally) String() string {
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(t[b], t[a]), cmp.Compare(a, b)) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", t[name], name)
	}
	return strings.Join(cut(names), ", ")
}

// values returns the names, sorted.
func (t tally) values() []string {
	var names []string
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names)
	return cut(names)
}

func cut(names []string) []string {
	if len(names) <= shown {
		return names
	}
	return append(slices.Clip(names[:shown-1]), fmt.Sprintf("and %d more", len(names)-shown+1))
}

func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// annotated returns an annotation of a manifest: that of its entry, else its own.
func annotated(desc ocispec.Descriptor, doc *Document, key string) string {
	if v := desc.Annotations[key]; v != "" || doc == nil {
		return v
	}
	return doc.Annotations[key]
}
