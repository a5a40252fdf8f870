// Package lint looks for what is legal in a layout and yet goes wrong for those
// who read it: a tag where podman lands on an artifact, layers of two kinds in
// one manifest, a name that no registry takes.
//
// # Rules
//
// A [Rule] looks at a [Tree] and reports findings. [Rules] has those of this
// package; other packages add theirs. Damage is for layout.Verify: here only what
// cannot be read at all is a finding.
package lint

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/consumer"
)

// A Severity tells how bad a finding is.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // some reader fails, or takes the wrong thing
	Warning Severity = "warning" // some reader may
	Info    Severity = "info"    // worth to know
)

// A Finding is one thing that a rule found.
type Finding struct {
	Rule     string
	Severity Severity
	RefNames []string        // the names of the entry of index.json below which it is; none where that has none
	Path     []digest.Digest // from that entry down to what is wrong; nil for index.json itself
	Why      string          // one line
	Cure     string          // what to do, a command where there is one; LAYOUT stands for the layout
}

// A Rule finds one kind of thing.
type Rule interface {
	Name() string       // lower case, words joined by "-"
	Severity() Severity // of its findings; the worst where they vary
	About() string      // one line
	// Check reports what it finds. Rule and Severity of a finding may be left
	// empty. An error means that it could not look.
	Check(ctx context.Context, t *Tree, report func(Finding)) error
}

// CheckFunc is what a rule does; see [Rule].
type CheckFunc func(ctx context.Context, t *Tree, report func(Finding)) error

type rule struct {
	name     string
	severity Severity
	about    string
	check    CheckFunc
}

// NewRule makes a rule of its parts.
func NewRule(name string, severity Severity, about string, check CheckFunc) Rule {
	return rule{name, severity, about, check}
}

func (r rule) Name() string       { return r.name }
func (r rule) Severity() Severity { return r.severity }
func (r rule) About() string      { return r.about }

func (r rule) Check(ctx context.Context, t *Tree, report func(Finding)) error {
	return r.check(ctx, t, report)
}

// Rules returns the rules of this package.
func Rules() []Rule {
	return []Rule{
		NewRule("artifact-for-image", Error, "an image client that pulls the tag lands on an artifact", artifactForImage),
		NewRule("clients-disagree", Warning, "image clients take different manifests for one platform, or only some fail", clientsDisagree),
		NewRule("no-runtime", Warning, "an index has artifacts for an architecture, and no container image", noRuntime),
		NewRule("mixed-layers", Error, "one manifest has layers of an image and others", mixedLayers),
		NewRule("empty-manifest", Error, "a manifest without layers", emptyManifest),
		NewRule("platform-mismatch", Warning, "an entry says another platform than the config of its image", platformMismatch),
		NewRule("duplicate-key", Warning, "two entries of an index for the same thing", duplicateKey),
		NewRule("no-media-type", Error, "an index or manifest without the field mediaType", noMediaType),
		NewRule("null-value", Error, "an annotation that is null, or says None", nullValue),
		NewRule("manifest-size", Error, "a manifest or index larger than registries take, or nearly so", manifestSize),
		NewRule("unreadable", Error, "a manifest or index that is missing or that cannot be read", unreadable),
		NewRule("ref-name", Error, "a ref name that no registry takes", refName),
		NewRule("stale-referrer", Warning, "a signature or other referrer of something that is not there", staleReferrer),
		NewRule("unsigned", Info, "a tag that has no signature, or that has manifests without one", unsigned),
	}
}

// Run runs rules on t and returns what they find: errors first, then in the order
// of the tree, of the rules, and of what each reports. It is nil where there is
// nothing.
func Run(ctx context.Context, t *Tree, rules []Rule) ([]Finding, error) {
	type placed struct {
		Finding
		root, rule int
	}
	var all []placed
	ctx = consumer.Remember(ctx, t.Source) // rules ask all consumers about the same documents
	for i, r := range rules {
		err := r.Check(ctx, t, func(f Finding) {
			f.Rule = r.Name()
			f.Severity = cmp.Or(f.Severity, r.Severity())
			root := slices.IndexFunc(t.Roots, func(x *Root) bool { return len(f.Path) > 0 && x.Desc.Digest == f.Path[0] })
			all = append(all, placed{f, root, i})
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(rank(a.Severity), rank(b.Severity)), cmp.Compare(a.root, b.root), cmp.Compare(a.rule, b.rule))
	})
	var findings []Finding
	for _, p := range all {
		findings = append(findings, p.Finding)
	}
	return findings, nil
}

func rank(s Severity) int { return slices.Index([]Severity{Error, Warning, Info}, s) }

// someOf joins at most a few of many names.
func someOf(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + ", ..."
}
