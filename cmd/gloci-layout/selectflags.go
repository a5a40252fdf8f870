package main

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
)

// selectFlags choose manifests of a source.
type selectFlags struct{ digest, platform, artifactType, cname, arch string }

func (s *selectFlags) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "digest", Usage: "the manifest whose `DIGEST` is this or begins so (12 hex digits or more)", Destination: &s.digest},
		&cli.StringFlag{Name: "platform", Usage: "manifests of this `PLATFORM`, os/architecture[/variant]", Destination: &s.platform},
		&cli.StringFlag{Name: "artifact-type", Usage: "manifests with this artifact `TYPE`", Destination: &s.artifactType},
		&cli.StringSliceFlag{Name: "annotation", Usage: "manifests that have, or whose entry has, the annotation `KEY=VALUE`"},
		&cli.StringFlag{Name: "cname", Usage: "Garden Linux flavours that `NAME` names, in short or in full", Destination: &s.cname},
		&cli.StringFlag{Name: "arch", Usage: "manifests for the architecture `ARCH`", Destination: &s.arch},
	}
}

// given tells whether any of the flags stands on the command line.
func (s *selectFlags) given(c *cli.Context) bool {
	return s.digest+s.platform+s.artifactType+s.cname+s.arch != "" || len(c.StringSlice("annotation")) > 0
}

func (s *selectFlags) selector(c *cli.Context) (layout.Selector, error) {
	sel := layout.Selector{Digest: s.digest, ArtifactType: s.artifactType}
	var err error
	if sel.Annotations, err = annotations(c, "annotation"); err != nil {
		return sel, err
	}
	if s.platform != "" {
		if sel.Platform, err = layout.ParsePlatform(s.platform); err != nil {
			return sel, usagef(c, "%v", err)
		}
	}
	if s.cname != "" || s.arch != "" {
		named, skip := gardenlinux.MatchCName(s.cname, s.arch), gardenlinux.SkipEntry(s.cname, s.arch)
		byPlatform := func(desc ocispec.Descriptor) bool {
			return s.cname == "" && desc.Platform != nil && desc.Platform.Architecture == s.arch
		}
		sel.Match = func(desc ocispec.Descriptor, doc *layout.Document) bool { return named(desc, doc) || byPlatform(desc) }
		sel.What = "cname " + s.cname
		switch {
		case s.cname == "":
			sel.What = "architecture " + s.arch
		case s.arch != "":
			sel.What += ", architecture " + s.arch
		}
		sel.Skip = func(desc ocispec.Descriptor) bool { return skip(desc) && !byPlatform(desc) }
	}
	return sel, nil
}

// annotations reads the KEY=VALUE values of a flag.
func annotations(c *cli.Context, flag string) (map[string]string, error) {
	var m map[string]string
	for _, kv := range c.StringSlice(flag) {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, usagef(c, "--%s %q: want KEY=VALUE", flag, kv)
		}
		if _, twice := m[k]; twice {
			return nil, usagef(c, "--%s %s is given twice", flag, k)
		}
		if m == nil {
			m = map[string]string{}
		}
		m[k] = v
	}
	return m, nil
}
