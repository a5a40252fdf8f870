package lint

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// An answer is what an image client does with a root, asked for a platform.
type answer struct {
	client  string
	outcome *consumer.Outcome
}

// artifact tells whether the client lands on an artifact, whether it notices or
// not.
func (a answer) artifact() bool {
	switch f := a.outcome.Failure; {
	case f == nil:
		return !a.outcome.Document.IsImage()
	default:
		return f.Kind == consumer.FailArtifact || f.Kind == consumer.FailSilent
	}
}

// ask asks all image clients.
func ask(ctx context.Context, t *Tree, r *Root, p ocispec.Platform) ([]answer, error) {
	var answers []answer
	for _, c := range consumer.Standard() {
		if !c.IsImageClient() {
			continue
		}
		o, err := c.Take(ctx, t.Source, r.Desc, consumer.Ask{Platform: &p, Host: p})
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer{c.Name(), o})
	}
	return answers, nil
}

// runtimeSystems are what containers run on.
var runtimeSystems = []string{"linux", "windows", "freebsd", "darwin"}

// platforms are those for which people would pull r: those of its entries and
// images for systems that run containers, and linux on every architecture for
// which there is anything. Variants that mean the same are one.
func platforms(r *Root) []ocispec.Platform {
	var list []ocispec.Platform
	add := func(osName, arch, variant string) {
		if arch == "arm64" && variant == "v8" || arch == "amd64" && variant == "v1" {
			variant = ""
		}
		p := ocispec.Platform{OS: osName, Architecture: arch, Variant: variant}
		known := slices.ContainsFunc(list, func(q ocispec.Platform) bool { return layout.FormatPlatform(p) == layout.FormatPlatform(q) })
		if arch != "" && arch != "unknown" && !known {
			list = append(list, p)
		}
	}
	for _, n := range r.Nodes {
		for _, e := range n.Entries {
			if layout.IsAttestation(e) || r.byDigest[e.Digest] == nil {
				continue
			}
			if p := e.Platform; p != nil && slices.Contains(runtimeSystems, p.OS) {
				add(p.OS, p.Architecture, p.Variant)
			} else if p != nil {
				add("linux", p.Architecture, "")
			} else {
				add("linux", e.Annotations["architecture"], "")
			}
		}
	}
	if list == nil {
		add("linux", "amd64", "")
	}
	return list
}

// isTag tells whether r is what people would pull: an index. A tag of a single
// artifact is there for those who want it, and so are referrers.
func isTag(r *Root) bool {
	top := r.top()
	return top != nil && top.IsIndex && top.Subject == nil && !slices.ContainsFunc(r.RefNames, layout.IsReferrerRefName)
}

func artifactForImage(ctx context.Context, t *Tree, report func(Finding)) error {
	for _, r := range t.Roots {
		if !isTag(r) {
			continue
		}
		for _, p := range platforms(r) {
			answers, err := ask(ctx, t, r, p)
			if err != nil {
				return err
			}
			for i, a := range answers {
				same := func(b answer) bool { return b.artifact() && b.outcome.Desc.Digest == a.outcome.Desc.Digest }
				if !a.artifact() || slices.ContainsFunc(answers[:i], same) {
					continue
				}
				clients := names(slices.DeleteFunc(slices.Clone(answers), func(b answer) bool { return !same(b) }))
				f := r.Finding()
				for _, d := range append(slices.Clone(a.outcome.Path), a.outcome.Desc)[1:] {
					f.Path = append(f.Path, d.Digest)
				}
				f.Why = fmt.Sprintf("%s, asked for %s: no image but an artifact", clients, layout.FormatPlatform(p))
				if a.outcome.Failure != nil {
					f.Why += ": " + a.outcome.Failure.Message
				}
				f.Cure = "give the entry of the artifact a platform with another os than " + p.OS +
					", and add the container image: gloci-layout add image LAYOUT SOURCE --into " + r.name()
				report(f)
			}
		}
	}
	return nil
}

func names(answers []answer) string {
	var list []string
	for _, a := range answers {
		list = append(list, a.client)
	}
	return strings.Join(list, ", ")
}

func clientsDisagree(ctx context.Context, t *Tree, report func(Finding)) error {
	for _, r := range t.Roots {
		if !isTag(r) {
			continue
		}
		for _, p := range platforms(r) {
			answers, err := ask(ctx, t, r, p)
			if err != nil {
				return err
			}
			answers = slices.DeleteFunc(answers, answer.artifact)
			groups := map[digest.Digest][]answer{} // "" for failures
			for _, a := range answers {
				d := a.outcome.Desc.Digest
				if a.outcome.Failure != nil {
					d = ""
				}
				groups[d] = append(groups[d], a)
			}
			if len(groups) < 2 {
				continue
			}
			var parts []string
			for i, a := range answers {
				first := slices.IndexFunc(answers, func(b answer) bool { return said(b) == said(a) })
				if first == i {
					same := slices.DeleteFunc(slices.Clone(answers), func(b answer) bool { return said(b) != said(a) })
					parts = append(parts, names(same)+" "+said(a))
				}
			}
			f := r.Finding()
			f.Why = fmt.Sprintf("for %s: %s", layout.FormatPlatform(p), strings.Join(parts, "; "))
			f.Cure = "give every image one entry with its platform, in the index itself and not in one below it"
			report(f)
		}
	}
	return nil
}

// said is an answer in words.
func said(a answer) string {
	if f := a.outcome.Failure; f != nil {
		return fmt.Sprintf("would fail (%s)", cmp.Or(string(f.Kind), f.Message))
	}
	return "would take " + string(a.outcome.Desc.Digest)
}

// noRuntime goes by what the entries say, and what they name.
func noRuntime(_ context.Context, t *Tree, report func(Finding)) error {
	for _, r := range t.Roots {
		if !isTag(r) {
			continue
		}
		var images, artifacts []string // architectures
		for _, n := range r.Nodes {
			for _, e := range n.Entries {
				doc := r.Document(e.Digest)
				if doc == nil || doc.IsIndex || layout.IsAttestation(e) || doc.Subject != nil {
					continue
				}
				arch := e.Annotations["architecture"]
				if e.Platform != nil {
					arch = e.Platform.Architecture
				}
				list := &artifacts
				if doc.IsImage() {
					list = &images
				}
				if arch != "" && !slices.Contains(*list, arch) {
					*list = append(*list, arch)
				}
			}
		}
		missing := slices.DeleteFunc(artifacts, func(a string) bool { return slices.Contains(images, a) })
		if len(missing) == 0 {
			continue
		}
		f := r.Finding()
		f.Why = "artifacts for " + someOf(missing) + ", but no container image: podman, docker and others find none"
		if images == nil {
			f.Severity = Info
			f.Why = "artifacts for " + someOf(missing) + ", and no container image at all: podman, docker and others find none"
		}
		f.Cure = "gloci-layout add image LAYOUT SOURCE --into " + r.name()
		report(f)
	}
	return nil
}
