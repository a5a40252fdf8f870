package web

import (
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/lint"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// Limits of what one page shows.
const (
	maxRows     = 5000
	firstRows   = 200 // that are not folded
	tableRows   = 40  // in one table
	maxVersions = 500
	maxOthers   = 500
	maxFindings = 200
	maxChoices  = 400

	firstFindings = 4 // that are shown without being asked for
)

// A query is what is searched for.
type query struct {
	Version, Text, Feature, Type, Arch string
}

func newQuery(v url.Values) query {
	return query{v.Get("version"), strings.TrimSpace(v.Get("q")), v.Get("feature"), v.Get("type"), v.Get("arch")}
}

// Narrow tells whether anything but a version is asked for.
func (q query) Narrow() bool { return q.Text+q.Feature+q.Type+q.Arch != "" }

type overviewView struct {
	frame
	Source    string
	Tiles     []tile
	Versions  []versionView
	Others    []documentView // what refers to something, and what is of no known type
	MoreOther int
	Query     query
	Choices   choices
	Matrix    matrixView
	Picture   pictureView
	Findings  findingsView
	Truncated int
}

type tile struct{ Value, Label string }

type choices struct{ Versions, Features, Types, Archs []string }

// A versionView is an entry of index.json.
type versionView struct {
	Names     []string
	Digest    string
	Short     string
	Kind      string
	Manifests int
	Size      string
	Own       string // that no other entry has
	Signed    bool
	Value     string // of the field version
	Selected  bool
	Findings  int
}

// Label is what people call it.
func (v versionView) Label() string {
	if len(v.Names) == 0 {
		return v.Short
	}
	return strings.Join(v.Names, ", ")
}

// Side is how a comparison names it in a repository.
func (v versionView) Side(repo string) string {
	if v.Value == v.Digest {
		return repo + "@" + v.Digest
	}
	return repo + ":" + v.Value
}

type findingView struct {
	Severity, Rule, Why, Cure, Where, Link string
}

type findingsView struct {
	Errors, Warnings, Infos int
	List                    []findingView // the first of them
	Rest                    []findingView
	Packed                  bool // the rest, as in matrixTable
	More                    int  // that are not shown
}

// value is how a version is asked for.
func (d *document) value() string {
	if len(d.refNames) > 0 {
		return d.refNames[0]
	}
	return string(d.desc.Digest)
}

// versions are the entries of index.json that are content: indexes before others,
// newest first.
func (s *snapshot) versions() []*document {
	var list []*document
	for _, d := range s.roots {
		if !d.role.refers() && d.role != roleOther {
			list = append(list, d)
		}
	}
	slices.SortStableFunc(list, func(a, b *document) int {
		if a.isIndex != b.isIndex {
			return map[bool]int{true: -1, false: 1}[a.isIndex]
		}
		return natural(b.value(), a.value())
	})
	return list
}

// choose returns the entries that a query looks at: one that it names, the newest
// that has flavors, or all.
func (s *snapshot) choose(q query) (chosen []*document, name string) {
	all := s.versions()
	for _, d := range all {
		if q.Version != "" && (d.value() == q.Version || slices.Contains(d.refNames, q.Version) || string(d.desc.Digest) == q.Version) {
			return []*document{d}, d.value()
		}
	}
	if q.Version == "" {
		for _, d := range all {
			if d.isIndex && s.flavored(d) {
				return []*document{d}, d.value()
			}
		}
	}
	return all, "*"
}

// flavored tells whether an entry has artifacts with names.
func (s *snapshot) flavored(root *document) bool {
	found := false
	s.below(root, func(d *document) { found = found || d.flavor.Name != "" })
	return found
}

// A listed manifest is one with the entry of index.json above it.
type listed struct {
	doc   *document
	root  *document
	title string
}

// list returns the manifests below roots that are content.
func (s *snapshot) list(roots []*document) []listed {
	var all []listed
	for _, root := range roots {
		flavored := s.flavored(root)
		s.below(root, func(d *document) {
			if !d.isIndex && !d.role.refers() && d.role != roleOther || d.role == roleDamaged || d.role == roleAbsent {
				all = append(all, listed{d, root, d.title(root, flavored)})
			}
		})
	}
	return all
}

// fits tells whether a query finds a manifest.
func (q query) fits(l listed) bool {
	d := l.doc
	if q.Arch != "" && d.arch != q.Arch || q.Feature != "" && !slices.Contains(d.flavor.Features, q.Feature) {
		return false
	}
	if q.Type != "" && !d.hasType(q.Type) {
		return false
	}
	for word := range strings.FieldsSeq(strings.ToLower(q.Text)) {
		if !d.mentions(word, l) {
			return false
		}
	}
	return true
}

func (d *document) hasType(t string) bool {
	if string(d.role) == t || d.artifactType == t || kindOf(d.artifactType) == t || t == "signed" && d.signed() {
		return true
	}
	for _, l := range d.layers {
		if l.MediaType == t || kindOf(l.MediaType) == t {
			return true
		}
	}
	return false
}

func (d *document) mentions(word string, l listed) bool {
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), word) }
	if has(l.title) || has(d.name()) || has(string(d.desc.Digest)) || has(d.artifactType) || slices.ContainsFunc(d.refNames, has) ||
		slices.ContainsFunc(d.flavor.Features, has) || slices.ContainsFunc(l.root.refNames, has) || has(d.desc.Annotations["cname"]) {
		return true
	}
	for _, layer := range d.layers {
		if has(layer.MediaType) || has(layer.Annotations["org.opencontainers.image.title"]) || has(string(layer.Digest)) {
			return true
		}
	}
	return false
}

func (x *request) overview() error {
	if x.fresh(x.snap.id) {
		return nil
	}
	v := x.snap.overview(x.frame(x.repo.Name), newQuery(x.r.URL.Query()))
	return x.render("overview", v)
}

func (s *snapshot) overview(f frame, q query) *overviewView {
	v := &overviewView{frame: f, Query: q}
	roots := s.versions()
	chosen, name := s.choose(q)
	v.Query.Version = name
	s.makeEntries.Do(func() { s.entries = s.versionViews(roots) })
	for i, r := range s.entries {
		r.Selected = len(chosen) == 1 && chosen[0] == roots[i]
		v.Versions = append(v.Versions, r)
		v.Choices.Versions = append(v.Choices.Versions, r.Value)
	}
	all := s.list(chosen)
	v.choices(all)
	v.matrix(all, len(chosen) > 1)
	v.Picture = s.picture(all, q)
	v.Findings = s.findingsView(v.L(), s.findings)
	v.Findings.Packed = true
	s.others(v)
	if s.truncated {
		v.Truncated = maxDocuments
	}
	manifests := 0
	for _, d := range s.documents {
		if !d.isIndex && !d.role.refers() {
			manifests++
		}
	}
	v.Tiles = []tile{
		{count(len(roots)), plural(len(roots), "entry", "entries")},
		{count(manifests), plural(manifests, "manifest", "manifests")},
		{count(s.blobs), plural(s.blobs, "blob", "blobs")},
		{show.Size(s.stored), "stored"},
		{show.Size(s.named - s.stored), "saved by sharing"},
	}
	return v
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func (s *snapshot) versionViews(roots []*document) []versionView {
	var list []versionView
	// What only one entry reaches is its own.
	reach := map[digest.Digest]int{}
	blobs := make([]map[digest.Digest]int64, len(roots))
	for i, root := range roots {
		blobs[i] = map[digest.Digest]int64{}
		s.below(root, func(d *document) {
			for desc := range d.content() {
				if !d.absent {
					blobs[i][desc.Digest] = max(desc.Size, 0)
				}
			}
		})
		for d := range blobs[i] {
			reach[d]++
		}
	}
	for i, root := range roots {
		if i == maxVersions {
			break
		}
		r := versionView{
			Names: clean(root.refNames), Digest: string(root.desc.Digest), Short: short(string(root.desc.Digest)), Kind: string(root.role),
			Signed: root.signed(), Value: root.value(),
			Findings: len(s.byFinding[root.desc.Digest]),
		}
		s.below(root, func(d *document) {
			if !d.isIndex {
				r.Manifests++
			}
		})
		var size, own int64
		for d, n := range blobs[i] {
			if size += n; reach[d] == 1 {
				own += n
			}
		}
		r.Size, r.Own = show.Size(size), show.Size(own)
		list = append(list, r)
	}
	return list
}

func (v *overviewView) choices(all []listed) {
	features, types, archs := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, l := range all {
		for _, f := range l.doc.flavor.Features {
			features[f] = true
		}
		types[string(l.doc.role)] = true
		if l.doc.signed() {
			types["signed"] = true
		}
		for _, layer := range l.doc.layers {
			types[kindOf(layer.MediaType)] = true
		}
		if l.doc.arch != "" {
			archs[l.doc.arch] = true
		}
	}
	v.Choices.Features, v.Choices.Types, v.Choices.Archs = firstOf(features), firstOf(types), firstOf(archs)
}

func firstOf(m map[string]bool) []string {
	keys := sortedKeys(m)
	return keys[:min(len(keys), maxChoices)]
}

// others lists what is no content: signatures and the like.
func (s *snapshot) others(v *overviewView) {
	for _, d := range s.documents {
		if !d.role.refers() && d.role != roleOther {
			continue
		}
		if len(v.Others) == maxOthers {
			v.MoreOther++
			continue
		}
		v.Others = append(v.Others, s.view(v.links, d.desc, d))
	}
}

func (s *snapshot) findingsView(l links, findings []lint.Finding) findingsView {
	var v findingsView
	for _, f := range findings {
		switch f.Severity {
		case lint.Error:
			v.Errors++
		case lint.Warning:
			v.Warnings++
		case lint.Info:
			v.Infos++
		}
		if len(v.List)+len(v.Rest) == maxFindings {
			v.More++
			continue
		}
		x := findingView{Severity: string(f.Severity), Rule: f.Rule, Why: show.Clean(f.Why), Cure: show.Clean(f.Cure), Where: "index.json"}
		if len(f.Path) > 0 {
			d := f.Path[len(f.Path)-1]
			x.Where = short(string(d))
			if doc := s.byDigest[d]; doc != nil {
				x.Link, x.Where = l.Manifest(string(d)), show.Clean(doc.name())
			}
		}
		if len(v.List) < firstFindings {
			v.List = append(v.List, x)
		} else {
			v.Rest = append(v.Rest, x)
		}
	}
	return v
}
