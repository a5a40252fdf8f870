package gardenlinux

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/lint"
)

// LintRules returns the rules that know Garden Linux: its flavors, and those who
// read them.
func LintRules() []lint.Rule {
	return []lint.Rule{
		lint.NewRule("missing-layers", lint.Error, "a flavor lacks layers without which it is of no use", missingLayers),
		lint.NewRule("no-os-version", lint.Error, "the entry of a flavor has no os.version", noOSVersion),
		lint.NewRule("stale-flavor", lint.Warning, "an index has a flavor in two versions or builds", staleFlavor),
		lint.NewRule("update-prefix", lint.Warning, "gardenlinux-update takes another flavor, because its name begins alike", updatePrefix),
		lint.NewRule("update-fails", lint.Error, "gardenlinux-update finds a flavor that it could install, and fails", updateFails),
		lint.NewRule("boot-fallback", lint.Warning, "boot-operator gets nothing to boot though there is a PXE flavor", bootFallback),
	}
}

// A lintBuild is an entry of an index that is one of Garden Linux.
type lintBuild struct {
	node  *lint.Node // the index
	entry ocispec.Descriptor
	name  Name
	doc   *layout.Document
}

// lintBuilds lists the flavors of an index, in its order.
func lintBuilds(n *lint.Node) []lintBuild {
	var list []lintBuild
	for _, e := range n.Entries {
		name := entryName(e.Annotations, e.Platform)
		if name.CName == "" {
			continue
		}
		list = append(list, lintBuild{n, e, name, n.Root.Document(e.Digest)})
	}
	return list
}

// lintIndexes calls fn for each index, and each digest once.
func lintIndexes(t *lint.Tree, fn func(n *lint.Node, builds []lintBuild) error) error {
	seen := map[digest.Digest]bool{}
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			if seen[n.Desc.Digest] || n.Document == nil || !n.Document.IsIndex {
				continue
			}
			seen[n.Desc.Digest] = true
			if err := fn(n, lintBuilds(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

func missingLayers(_ context.Context, t *lint.Tree, report func(lint.Finding)) error {
	seen := map[digest.Digest]bool{}
	for _, r := range t.Roots {
		for _, n := range r.Nodes {
			doc := n.Document
			if doc == nil || doc.IsIndex || doc.IsImage() || doc.Subject != nil || seen[n.Desc.Digest] {
				continue
			}
			seen[n.Desc.Digest] = true
			name := entryName(doc.Annotations, n.Desc.Platform)
			if name.CName == "" {
				name = entryName(n.Desc.Annotations, n.Desc.Platform)
			}
			if name.CName == "" {
				continue
			}
			var layers []File
			for _, l := range doc.Layers {
				layers = append(layers, File{Title: l.Annotations[ocispec.AnnotationTitle], MediaType: l.MediaType})
			}
			var missing []string
			for _, required := range DefaultRequire(name, releaseOf(doc, n.Desc)) {
				if !slices.ContainsFunc(layers, func(l File) bool { return meets(l, required) }) {
					missing = append(missing, required)
				}
			}
			if missing == nil {
				continue
			}
			f := n.Finding()
			f.Why = fmt.Sprintf("%s has no layer %s", name, strings.Join(missing, ", "))
			f.Cure = "gloci-layout add flavor LAYOUT DIR, with the complete output of the build"
			report(f)
		}
	}
	return nil
}

// releaseOf is what annotations tell of a release file: its features. Of these
// the platform is the first that is no flag and that a rule knows.
func releaseOf(doc *layout.Document, entry ocispec.Descriptor) *Release {
	set := doc.Annotations[annotationFeatureSet]
	if set == "" {
		set = entry.Annotations[annotationFeatureSet]
	}
	features := strings.Split(strings.Trim(set, `"`), ",")
	for _, k := range kinds {
		for _, f := range k.features {
			if f[0] != '_' && slices.Contains(features, f) {
				return &Release{Platform: f, Features: features}
			}
		}
	}
	return nil
}

func noOSVersion(_ context.Context, t *lint.Tree, report func(lint.Finding)) error {
	return lintIndexes(t, func(n *lint.Node, builds []lintBuild) error {
		for _, b := range builds {
			if b.entry.Platform != nil && b.entry.Platform.OSVersion != "" {
				continue
			}
			f := n.Finding(b.entry.Digest)
			f.Why = fmt.Sprintf("the entry of %s has no os.version in its platform: gardenlinux-update refuses it", b.name)
			f.Cure = "gloci-layout add flavor LAYOUT DIR writes it"
			report(f)
		}
		return nil
	})
}

func staleFlavor(_ context.Context, t *lint.Tree, report func(lint.Finding)) error {
	return lintIndexes(t, func(n *lint.Node, builds []lintBuild) error {
		first := map[string]lintBuild{}
		for _, b := range builds {
			flavor := b.name.Flavor()
			old, seen := first[flavor]
			if !seen {
				first[flavor] = b
			}
			if flavor == "" || !seen || b.entry.Digest == old.entry.Digest {
				continue
			}
			f := n.Finding(old.entry.Digest)
			f.Why = fmt.Sprintf("%s and %s are in one index: readers take the first", old.name, b.name)
			f.Cure = n.Root.RemoveCommand(old.entry.Digest)
			if newer(old.name.Version, b.name.Version) {
				f.Path[len(f.Path)-1] = b.entry.Digest
				f.Cure = n.Root.RemoveCommand(b.entry.Digest)
			}
			report(f)
		}
		return nil
	})
}

// newer tells whether version a is newer than b. As text, today is above all
// numbers, as it should be.
func newer(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		var x, y string
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		if x != y { // numbers without padding
			return len(x) > len(y) || len(x) == len(y) && x > y
		}
	}
	return false
}

// updatePrefix asks for each flavor as a machine does that calls itself so, and,
// as ADR 0035 has it, by the cname alone.
func updatePrefix(_ context.Context, t *lint.Tree, report func(lint.Finding)) error {
	return lintIndexes(t, func(n *lint.Node, builds []lintBuild) error {
		asked := map[string]bool{}
		choose := firstByPrefix(n.Entries)
		for _, b := range builds {
			for _, cname := range []string{b.name.Flavor(), b.name.CName} {
				if cname == "" || asked[cname] {
					continue
				}
				asked[cname] = true
				i := choose(cname)
				if i < 0 {
					continue // the architecture stands in an annotation of its own
				}
				taken := n.Entries[i]
				got := entryName(taken.Annotations, taken.Platform)
				if got.CName == b.name.CName {
					continue // another architecture is that of another machine, or the first of its name
				}
				f := n.Finding(taken.Digest)
				f.Why = fmt.Sprintf("a machine that calls itself %s gets %s", cname, got)
				f.Cure = "machines have to ask for the whole flavor, " + b.name.Flavor()
				if cname == b.name.Flavor() {
					f.Cure = n.Root.RemoveCommand(taken.Digest)
				}
				report(f)
			}
		}
		return nil
	})
}

// firstByPrefix returns what [Update] chooses among entries for a cname, as a
// position, or -1. It sorts them once: an index of thousands is asked for each.
func firstByPrefix(entries []ocispec.Descriptor) func(cname string) int {
	names := make([]string, len(entries))
	order := make([]int, len(entries))
	for i, e := range entries {
		names[i], order[i] = e.Annotations[annotationCName], i
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
	return func(cname string) int {
		at, _ := slices.BinarySearchFunc(order, cname, func(i int, s string) int { return strings.Compare(names[i], s) })
		best := -1
		for _, i := range order[at:] { // those that begin alike stand together
			if !strings.HasPrefix(names[i], cname) {
				break
			}
			if best < 0 || i < best {
				best = i
			}
		}
		return best
	}
}

// updateFails asks for the flavors that have something to install.
func updateFails(ctx context.Context, t *lint.Tree, report func(lint.Finding)) error {
	return lintIndexes(t, func(n *lint.Node, builds []lintBuild) error {
		asked := map[string]bool{}
		for _, b := range builds {
			flavor := b.name.Flavor()
			if flavor == "" || asked[flavor] || b.doc == nil ||
				!slices.ContainsFunc(b.doc.Layers, func(l ocispec.Descriptor) bool { return l.MediaType == MediaTypeUKI }) {
				continue
			}
			asked[flavor] = true
			o, err := Update{CName: flavor, Unsigned: true}.Take(ctx, t.Source, n.Desc, consumer.Ask{})
			if err != nil {
				return err
			}
			if o.Failure == nil {
				continue
			}
			f := n.Finding(o.Desc.Digest)
			f.Why = fmt.Sprintf("gardenlinux-update of %s: %s", flavor, o.Failure.Message)
			f.Cure = "gloci-layout resolve LAYOUT --as gardenlinux-update --unsigned --cname " + flavor + " says why"
			report(f)
		}
		return nil
	})
}

// bootFallback asks for each architecture that has a PXE flavor.
func bootFallback(ctx context.Context, t *lint.Tree, report func(lint.Finding)) error {
	return lintIndexes(t, func(n *lint.Node, builds []lintBuild) error {
		if len(n.Path) > 1 {
			return nil // nobody boots from an index in an index
		}
		for _, arch := range architectures {
			i := slices.IndexFunc(builds, func(b lintBuild) bool {
				return b.name.Arch == arch && slices.Contains(b.name.Features(), "_pxe")
			})
			if i < 0 {
				continue
			}
			o, err := BootOperator{}.Take(ctx, t.Source, n.Desc, consumer.Ask{Platform: &ocispec.Platform{Architecture: arch}})
			if err != nil {
				return err
			}
			if o.Failure == nil {
				continue
			}
			f := n.Finding(o.Desc.Digest)
			f.Why = fmt.Sprintf("boot-operator for %s: %s; %s; there is %s", arch, o.Failure.Message, o.Why, builds[i].name)
			f.Cure = fmt.Sprintf("gloci-layout tag LAYOUT @%s NAME, and give that tag to boot-operator: of a manifest it chooses nothing", builds[i].entry.Digest)
			report(f)
		}
		return nil
	})
}
