package gardenlinux

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// The words of published Garden Linux manifests and indexes.
const (
	annotationCName        = "cname"
	annotationArchitecture = "architecture"
	annotationFeatureSet   = "feature_set"
	annotationVersion      = "version"
	annotationCommit       = "commit"
	annotationLayerArch    = "io.gardenlinux.image.layer.architecture"
	annotationImageArch    = "org.opencontainers.image.architecture"

	// platformOS keeps a client that looks for linux from taking a file set for
	// an image.
	platformOS = "gardenlinux"

	// configMediaType and config are what oras-py writes for "no config".
	configMediaType = "application/vnd.unknown.config.v1+json"
	config          = "{}"

	title      = "Garden Linux"
	repository = "https://github.com/gardenlinux/gardenlinux"
)

// A layer is a staged file.
type layer struct {
	File
	desc ocispec.Descriptor
}

// stageManifest stages the artifact manifest over layers, which are in order,
// and returns its index entry.
func (f *Flavor) stageManifest(ctx context.Context, s *layout.Stage, layers []layer) (ocispec.Descriptor, error) {
	conf, err := s.AddBytes(ctx, []byte(config), configMediaType)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	conf.Annotations = map[string]string{
		annotationCName:        f.Name.BaseName(),
		annotationArchitecture: f.Name.Arch,
	}
	m := ocispec.Manifest{Config: conf, Annotations: f.annotations()}
	for _, l := range layers {
		l.desc.Annotations = map[string]string{
			ocispec.AnnotationTitle: l.Title,
			annotationLayerArch:     f.Name.Arch,
		}
		m.Layers = append(m.Layers, l.desc)
	}
	raw, err := layout.EncodeManifest(m)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w", f.Name, err)
	}
	entry, err := s.AddBytes(ctx, raw, ocispec.MediaTypeImageManifest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	entry.Annotations = map[string]string{
		annotationCName:        f.Name.BaseName(),
		annotationArchitecture: f.Name.Arch,
	}
	if set := f.featureSet(); set != "" {
		entry.Annotations[annotationFeatureSet] = set
	}
	entry.Platform = &ocispec.Platform{Architecture: f.Name.Arch, OS: platformOS, OSVersion: f.Name.Version}
	return entry, nil
}

// annotations returns those of the manifest. cname holds the artifact base
// name, not the cname of ADR 0035: that is what readers match a prefix of. In
// the description "Flavor" is the cname, and it ends with a space.
func (f *Flavor) annotations() map[string]string {
	n := f.Name
	var features string
	if f.Release != nil {
		features = strings.Join(f.Release.Features, ",")
	}
	a := map[string]string{
		annotationVersion:      n.Version,
		annotationCName:        n.BaseName(),
		annotationArchitecture: n.Arch,
		annotationCommit:       n.Commit,
		annotationImageArch:    n.Arch,
		ocispec.AnnotationDescription: fmt.Sprintf("Image: %s Flavor: %s Architecture: %s Features: %s Commit: %s ",
			n.BaseName(), n.CName, n.Arch, features, n.Commit),
		ocispec.AnnotationTitle:    title,
		ocispec.AnnotationSource:   repository,
		ocispec.AnnotationVersion:  n.Version,
		ocispec.AnnotationRevision: n.Commit,
	}
	if set := f.featureSet(); set != "" {
		a[annotationFeatureSet] = set
	}
	return a
}

// featureSet returns the annotation of that name; "" where nobody says it: the
// cname alone has only the minimal feature set.
func (f *Flavor) featureSet() string {
	if f.Release == nil {
		return ""
	}
	return f.Release.FeatureSet
}

// Key names what an index entry is a build of: its versioned flavor. A rebuild,
// from another commit, has the same key; another architecture or version has
// not. It is "" for what is no artifact manifest of Garden Linux, such as the
// entry of a container image.
func Key(desc ocispec.Descriptor) string {
	return entryName(desc.Annotations, desc.Platform).VersionedFlavor()
}

// entryName reads the name in the annotations of an entry, a manifest or a
// config. It is the zero Name where there is none. Parts that annotation cname
// leaves out come from the others, and from platform, which may be nil.
func entryName(annotations map[string]string, platform *ocispec.Platform) Name {
	n, err := ParseName(annotations[annotationCName])
	if err != nil {
		return Name{}
	}
	var p ocispec.Platform
	if platform != nil {
		p = *platform
	}
	whole := Name{
		CName:   n.CName,
		Arch:    cmp.Or(n.Arch, annotations[annotationArchitecture], annotations[annotationImageArch], p.Architecture),
		Version: cmp.Or(n.Version, annotations[annotationVersion], p.OSVersion),
		Commit:  cmp.Or(n.Commit, annotations[annotationCommit]),
	}
	for whole.check() != nil { // drop what does not fit, from the end
		switch {
		case whole.Commit != n.Commit:
			whole.Commit = n.Commit
		case whole.Version != n.Version:
			whole.Version = n.Version
		default:
			return n
		}
	}
	return whole
}

// NameOf returns the name of an artifact and its features. What the entry does
// not say, its manifest does; doc may be nil. Without the annotation feature_set
// the features are those of the cname. Name is zero for what is no artifact of
// Garden Linux, such as a container image.
func NameOf(desc ocispec.Descriptor, doc *layout.Document) (n Name, features []string) {
	from := []map[string]string{desc.Annotations}
	if doc != nil {
		if from = append(from, doc.Annotations); doc.Config != nil {
			from = append(from, doc.Config.Annotations)
		}
	}
	for _, annotations := range from {
		if n = entryName(annotations, desc.Platform); n.CName != "" {
			break
		}
	}
	if n.CName == "" {
		return n, nil
	}
	for _, annotations := range from {
		if set := annotations[annotationFeatureSet]; set != "" {
			return n, strings.Split(set, ",")
		}
	}
	return n, n.Features()
}

// MatchCName returns a test for layout.Selector: does an entry or manifest have
// the name query? That is its cname, flavor, versioned flavor or artifact base
// name, whole and with the same case: aws-gardener_prod is not the name of
// aws-gardener_prod_usi. If arch is not "", it must be its architecture. An
// empty query fits every Garden Linux artifact.
func MatchCName(query, arch string) func(desc ocispec.Descriptor, doc *layout.Document) bool {
	return func(desc ocispec.Descriptor, doc *layout.Document) bool {
		if matchName(entryName(desc.Annotations, desc.Platform), query, arch) {
			return true
		}
		if doc == nil {
			return false
		}
		if matchName(entryName(doc.Annotations, desc.Platform), query, arch) {
			return true
		}
		return doc.Config != nil && matchName(entryName(doc.Config.Annotations, desc.Platform), query, arch)
	}
}

func matchName(n Name, query, arch string) bool {
	if n.CName == "" || arch != "" && n.Arch != arch {
		return false
	}
	switch query {
	case "", n.CName, n.Flavor(), n.VersionedFlavor(), n.BaseName():
		return true
	}
	return false
}

// SkipEntry returns the test for layout.Selector.Skip that belongs to
// [MatchCName]: does an entry alone say that its manifest has another name? An
// entry that says nothing, or less than query, is not skipped. One without cname
// whose platform is another system's is a container image, and has no name.
func SkipEntry(query, arch string) func(desc ocispec.Descriptor) bool {
	want, err := ParseName(query)
	if err != nil {
		want = Name{}
	}
	return func(desc ocispec.Descriptor) bool {
		have := entryName(desc.Annotations, desc.Platform)
		if have.CName == "" {
			return query != "" && desc.Annotations[annotationCName] == "" &&
				desc.Platform != nil && desc.Platform.OS != "" && desc.Platform.OS != platformOS
		}
		contradicts := func(have, want string) bool { return have != "" && want != "" && have != want }
		return contradicts(have.CName, want.CName) || contradicts(have.Arch, want.Arch) || contradicts(have.Arch, arch) ||
			contradicts(have.Version, want.Version) || contradicts(have.Commit, want.Commit)
	}
}
