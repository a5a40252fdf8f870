package main

import (
	"os"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
)

// findHelp is what copy and extract say of how they choose.
const findHelp = `Without ref name or digest, all of index.json is searched, with the indexes nested in it. Manifests that fit the flags and have a layer that fits are candidates. ` +
	`One is wanted: of more, each is listed with an operand that names it alone (exit status 4); of none, what there is instead (exit status 3). ` +
	`A manifest without platform is never taken for one of this machine. From a registry, only manifests that may fit and the chosen blobs are fetched.`

// nameHelp is what they say of file names.
const nameHelp = `A file is called what the annotation org.opencontainers.image.title of its layer says, else what its media type says: application/vnd.x.tar+gzip makes x.tar.gz. ` +
	`A TEMPLATE is text with the fields {title} {base} {ext} {index} {digest12} {cname} {annotation:KEY}. Two layers with one name are an error.`

// findFlags are the flags of commands that take layers out of a source.
type findFlags struct {
	out          string
	name         string
	attestations string
	allManifests bool
	force        bool
	sel          selectFlags
	layers       layerFlags
	from         sourceFlags
}

func (f *findFlags) flags(own ...cli.Flag) []cli.Flag {
	own = append([]cli.Flag{
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `OUT`", Destination: &f.out},
	}, own...)
	own = append(
		own,
		&cli.StringFlag{Name: "name", Usage: "name files by `TEMPLATE`", Destination: &f.name},
		&cli.BoolFlag{Name: "all-manifests", Usage: "take layers of all manifests that fit, into OUT/CNAME or OUT/DIGEST12", Destination: &f.allManifests},
		&cli.StringFlag{Name: "attestations", Usage: "do `WHAT` with attestation manifests: skip or include", Value: "skip", Destination: &f.attestations},
	)
	own = append(own, f.layers.flags()...)
	own = append(own, f.sel.flags()...)
	return append(own, f.from.flags()...)
}

// A findRequest is what findFlags ask for, checked.
type findRequest struct {
	sel      layout.Selector
	layers   layout.LayerSelector
	template *extract.Template // nil without --name
}

func (f *findFlags) request(c *cli.Context) (r findRequest, err error) {
	if f.out == "" {
		err := usagef(c, "there is no -o OUT")
		return r, layout.WithHint(err, "-o FILE writes one file, -o DIR/ into a directory")
	}
	if r.sel, err = f.sel.selector(c); err != nil {
		return r, err
	}
	switch f.attestations {
	case "skip":
	case "include":
		r.sel.Attestations = true
	default:
		return r, usagef(c, "--attestations %q: want skip or include", f.attestations)
	}
	if r.layers, err = f.layers.selector(c); err != nil {
		return r, err
	}
	if c.IsSet("name") {
		if r.template, err = extract.ParseTemplate(f.name); err != nil {
			return r, usagef(c, "--name: %v", err)
		}
	}
	return r, nil
}

// find returns the manifests and their layers: one manifest, unless all are
// wanted.
func (f *findFlags) find(c *cli.Context, src layout.Source, ref layout.Reference, r findRequest) ([]layout.LayerMatch, error) {
	roots, err := layout.Resolve(c.Context, src, ref.RefName, ref.Digest)
	if err != nil {
		return nil, err
	}
	search, err := layout.FindLayers(c.Context, src, roots, r.sel, r.layers)
	if err != nil {
		return nil, err
	}
	if f.allManifests {
		return search.All()
	}
	m, err := search.One(c.Context, src, ref)
	return []layout.LayerMatch{m}, err
}

// intoDir tells whether OUT is a directory, by its form or because it is one.
func (f *findFlags) intoDir() bool {
	if f.out == "-" {
		return false
	}
	info, err := os.Stat(f.out)
	return strings.HasSuffix(f.out, "/") || f.allManifests || f.name != "" || err == nil && info.IsDir()
}

// A descriptorResult is a descriptor as the documents have it.
type descriptorResult struct {
	MediaType    string            `json:"mediaType" doc:"its media type"`
	Digest       string            `json:"digest" doc:"its digest"`
	Size         int64             `json:"size" doc:"its size in bytes"`
	ArtifactType string            `json:"artifactType,omitempty" doc:"its artifact type"`
	Annotations  map[string]string `json:"annotations,omitempty" doc:"its annotations"`
}

func resultOf(desc ocispec.Descriptor) descriptorResult {
	return descriptorResult{desc.MediaType, string(desc.Digest), desc.Size, desc.ArtifactType, desc.Annotations}
}
