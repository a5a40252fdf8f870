package archive

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// dockerFile is the member that docker load looks for.
const dockerFile = "manifest.json"

// A dockerImage is an entry of manifest.json.
type dockerImage struct {
	doc  *layout.Document
	tags []string
}

// dockerManifest makes manifest.json for the images among entries: of each
// entry one, for platform if that is given.
func dockerManifest(ctx context.Context, src layout.Source, entries []ocispec.Descriptor, blobs map[digest.Digest]ocispec.Descriptor, o *PackOptions) ([]byte, error) {
	var images []*dockerImage
	at := map[digest.Digest]*dockerImage{}
	for _, entry := range entries {
		found, err := imagesOf(ctx, src, entry, o)
		switch {
		case err != nil:
			return nil, err
		case len(found) == 0:
			continue
		case len(found) > 1:
			what := layout.RefName(entry)
			if what == "" {
				what = string(entry.Digest)
			}
			return nil, layout.WithHint(&layout.AmbiguousError{What: what, Candidates: found},
				"docker load gets one image of each index: say which with --platform")
		}
		doc := found[0].Document
		image := at[doc.Descriptor.Digest]
		if image == nil {
			for _, layer := range doc.Layers {
				if _, ok := blobs[layer.Digest]; !ok {
					return nil, &layout.BlobError{Op: "copy", Desc: layer, Err: fmt.Errorf("a layer for docker load: %w", layout.ErrNotFound)}
				}
			}
			image = &dockerImage{doc: doc}
			at[doc.Descriptor.Digest] = image
			images = append(images, image)
		}
		if tag := repoTag(entry); tag != "" {
			image.tags = append(image.tags, tag)
		}
	}
	if len(images) == 0 {
		what := "no container image"
		if o.DockerPlatform != nil {
			what += " for " + layout.FormatPlatform(*o.DockerPlatform)
		}
		return nil, layout.WithHint(fmt.Errorf("%s: %w", what, layout.ErrNotFound), "docker load takes container images alone; without --docker all else is packed too")
	}
	return encodeDocker(images), nil
}

// imagesOf returns the container images that entry is or leads to. What docker
// load could not unpack, such as a signature of cosign, is none.
func imagesOf(ctx context.Context, src layout.Source, entry ocispec.Descriptor, o *PackOptions) ([]layout.Match, error) {
	var found []layout.Match
	opts := &layout.WalkOptions{Sparse: o.Sparse, DocumentsOnly: true, NoSubjects: true}
	for n, err := range layout.Walk(ctx, src, []ocispec.Descriptor{entry}, opts) {
		if err != nil {
			return nil, err
		}
		if n.Absent || n.Document == nil || !n.Document.IsImage() || layout.IsAttestation(n.Desc) {
			continue
		}
		unpackable := true
		for _, layer := range n.Document.Layers {
			unpackable = unpackable && layout.IsImageLayer(layer.MediaType)
		}
		if !unpackable {
			continue
		}
		if o.DockerPlatform != nil {
			have, err := layout.ImagePlatform(ctx, src, n.Desc, n.Document)
			if err != nil {
				return nil, err
			}
			if have == nil || !layout.PlatformFits(*have, *o.DockerPlatform) {
				continue
			}
		}
		found = append(found, layout.Match{Desc: n.Desc, Document: n.Document, Parents: n.Parents, RefName: layout.RefName(entry)})
	}
	return found, nil
}

// nameAnnotation is the full name that containerd and docker give an entry.
const nameAnnotation = "io.containerd.image.name"

// The names that docker takes (distribution/reference): a repository, perhaps
// with a host before it, and a tag.
var (
	repositoryPattern = `(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?[a-z0-9]+(?:(?:\.|_|__|-+|/)[a-z0-9]+)*`
	repositoryName    = pattern.New(`^` + repositoryPattern + `$`)
	taggedName        = pattern.New(`^` + repositoryPattern + `:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	hexName           = pattern.New(`^[0-9a-f]{64}$`)
)

// repoTag returns the name that an entry gets in docker: the full one that it
// has, else its ref name as the name of a repository, with the tag latest, as
// podman load has it. "" is an image without a name.
func repoTag(entry ocispec.Descriptor) string {
	for _, name := range []string{entry.Annotations[nameAnnotation], layout.RefName(entry)} {
		repository, _, _ := strings.Cut(name, ":")
		switch {
		case len(name) > 255, hexName.MatchString(repository):
		case taggedName.MatchString(name):
			return name
		case repositoryName.MatchString(name):
			return name + ":latest"
		}
	}
	return ""
}

// encodeDocker writes the names that docker save writes, in its order.
func encodeDocker(images []*dockerImage) []byte {
	items := make([]strictjson.Value, len(images))
	for i, image := range images {
		tags := strictjson.Value("null")
		if image.tags != nil {
			tags = encodeStrings(image.tags)
		}
		layers := make([]string, len(image.doc.Layers))
		for i, layer := range image.doc.Layers {
			layers[i] = layout.BlobPath(layer.Digest)
		}
		items[i] = strictjson.FromMembers([]strictjson.Member{
			{Name: "Config", Value: strictjson.Quote(layout.BlobPath(image.doc.Config.Digest))},
			{Name: "RepoTags", Value: tags},
			{Name: "Layers", Value: encodeStrings(layers)},
		})
	}
	return append(strictjson.FromItems(items), '\n')
}

func encodeStrings(list []string) strictjson.Value {
	items := make([]strictjson.Value, len(list))
	for i, s := range list {
		items[i] = strictjson.Quote(s)
	}
	return strictjson.FromItems(items)
}
