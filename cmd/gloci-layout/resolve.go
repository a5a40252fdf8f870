package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
)

func newResolveCommand(e *env) *cli.Command {
	opts := resolveOptions{}
	return &cli.Command{
		Name: "resolve", Usage: "say what podman, docker and others would take", ArgsUsage: "SOURCE",
		Description: "Says which manifest and which layers a program would take of what SOURCE names, by that program's own rules, " +
			"and why; or how it would fail. No such program is run. Without --as, a table of all.\n\n" +
			"--as takes " + joinNames(consumerNames()) + ".\n\n" +
			"Without --platform the programs are asked as they are without that flag: most look for the platform of the machine, here " +
			"linux and the architecture that this program was built for; crane and flux look for linux/amd64; oras takes everything.\n\n" +
			"gardenlinux-update needs --cname: what the machine calls itself, GARDENLINUX_CNAME without the version, such as " +
			"aws-gardener_prod-amd64. boot-operator looks for metal_pxe, unless --cname says otherwise.\n\n" +
			"Exit status 0: it takes something, or a table was asked for; 1: one of those that --as names would fail.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "as", Usage: "the `PROGRAM` that takes it; may be given more than once; all asks for the table"},
			&cli.StringFlag{Name: "platform", Usage: "what the program is asked for: `PLATFORM`, os/architecture[/variant]", Destination: &opts.platform},
			&cli.StringFlag{Name: "cname", Usage: "gardenlinux-update, boot-operator: the `NAME` that entries begin with", Destination: &opts.cname},
			&cli.StringFlag{Name: "media-type", Usage: "gardenlinux-update, flux: the media `TYPE` of the layer", Destination: &opts.mediaType},
			&cli.StringFlag{Name: "operation", Usage: "flux: `extract` the layer or copy it", Value: "extract", Destination: &opts.operation},
			&cli.BoolFlag{Name: "unsigned", Usage: "gardenlinux-update: as if everything were signed", Destination: &opts.unsigned},
		}, opts.from.flags()...),
		Action: func(c *cli.Context) error { return runResolve(c, e, &opts) },
	}
}

type resolveOptions struct {
	platform, cname, mediaType, operation string
	unsigned                              bool
	from                                  sourceFlags
}

type layerResult struct {
	Digest    digest.Digest `json:"digest" doc:"the digest of the layer"`
	MediaType string        `json:"mediaType" doc:"its media type"`
	Size      int64         `json:"size" doc:"its size in bytes"`
	Title     string        `json:"title,omitempty" doc:"its title"`
}

type resolveFailure struct {
	Kind    string `json:"kind" doc:"platform, artifact, nested, layer, document, name, signature or silent"`
	Message string `json:"message" doc:"as the program says it, as far as that is known"`
}

type resolveResult struct {
	As           string          `json:"as" doc:"the program"`
	Platform     string          `json:"platform,omitempty" doc:"what it is asked for; absent where nobody says it"`
	Takes        bool            `json:"takes" doc:"it takes something, it does not fail"`
	Digest       digest.Digest   `json:"digest" doc:"what it takes; how far it comes where it fails"`
	MediaType    string          `json:"mediaType" doc:"the media type of that"`
	ArtifactType string          `json:"artifactType,omitempty" doc:"its artifact type"`
	Size         int64           `json:"size" doc:"its size in bytes"`
	Path         []digest.Digest `json:"path" doc:"the indexes that it goes through"`
	Layers       []layerResult   `json:"layers" doc:"the layers that it reads, in order; none where it fails before"`
	Why          string          `json:"why" doc:"the rule that leads there"`
	Notes        []string        `json:"notes,omitempty" doc:"what else its user should know"`
	Failure      *resolveFailure `json:"failure,omitempty" doc:"how it fails"`
}

func (r *resolveResult) columns() []string {
	if r.Failure != nil {
		return []string{r.As, "fails: " + r.Failure.Kind, r.Failure.Message}
	}
	return []string{r.As, string(r.Digest), r.Why}
}

// consumerNames are those that --as takes.
func consumerNames() []string {
	var names []string
	for _, c := range (&resolveOptions{}).consumers() {
		names = append(names, c.Name())
	}
	return names
}

func joinNames(names []string) string {
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// consumers are all that there are, with the options of the command line.
func (o *resolveOptions) consumers() []consumer.Consumer {
	all := consumer.Standard()
	for i, c := range all {
		if _, ok := c.(consumer.Flux); ok {
			all[i] = consumer.Flux{MediaType: o.mediaType, Copy: o.operation == "copy"}
		}
	}
	return append(all,
		gardenlinux.Update{CName: o.cname, MediaType: o.mediaType, Unsigned: o.unsigned},
		gardenlinux.BootOperator{CName: o.cname}, gardenlinux.BootOperator{HTTP: true})
}

// chosen are those that --as names; all is true where it names none.
func (o *resolveOptions) chosen(c *cli.Context) (chosen []consumer.Consumer, all bool, err error) {
	if o.operation != "extract" && o.operation != "copy" {
		return nil, false, usagef(c, "--operation %q: want extract or copy", o.operation)
	}
	names := c.StringSlice("as")
	everybody := o.consumers()
	if len(names) == 0 || slices.Equal(names, []string{"all"}) {
		// One --cname cannot be meant for both.
		boot := gardenlinux.BootOperator{}
		for _, x := range everybody {
			switch x.(type) {
			case gardenlinux.Update:
				if o.cname == "" {
					continue
				}
			case gardenlinux.BootOperator:
				if x.Name() == boot.Name() {
					x = boot
				}
			}
			chosen = append(chosen, x)
		}
		return chosen, true, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(everybody, func(x consumer.Consumer) bool { return x.Name() == name })
		if i < 0 {
			return nil, false, usagef(c, "--as %q: want all, %s", name, joinNames(consumerNames()))
		}
		if _, ok := everybody[i].(gardenlinux.Update); ok && o.cname == "" {
			return nil, false, usagef(c, "--as %s needs --cname", name)
		}
		chosen = append(chosen, everybody[i])
	}
	return chosen, false, nil
}

// host is the machine that consumers look at: clients run linux, also where this
// program does not.
func host() ocispec.Platform { return ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH} }

func runResolve(c *cli.Context, e *env, opts *resolveOptions) error {
	chosen, all, err := opts.chosen(c)
	if err != nil {
		return err
	}
	ask := consumer.Ask{Host: host()}
	if opts.platform != "" {
		if ask.Platform, err = layout.ParsePlatform(opts.platform); err != nil {
			return usagef(c, "%v", err)
		}
	}
	return opts.from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
		root, err := layout.ResolveOne(c.Context, src, ref.RefName, ref.Digest)
		if err != nil {
			return err
		}
		var rows []*resolveResult
		for _, x := range chosen {
			r, err := resolveAs(c.Context, src, root, x, ask)
			if err != nil {
				return fmt.Errorf("%s: %w", x.Name(), err)
			}
			rows = append(rows, r)
		}
		if all {
			return table(e, []string{"PROGRAM", "TAKES", "WHY"}, rows)
		}
		no := false
		for _, r := range rows {
			no = no || !r.Takes
			if err := r.emit(e); err != nil {
				return err
			}
		}
		if no {
			return errAnswerIsNo
		}
		return nil
	})
}

func resolveAs(ctx context.Context, src layout.Source, root ocispec.Descriptor, x consumer.Consumer, ask consumer.Ask) (*resolveResult, error) {
	o, err := x.Take(ctx, src, root, ask)
	if err != nil {
		return nil, err
	}
	r := &resolveResult{
		As: x.Name(), Takes: o.Failure == nil, Digest: o.Desc.Digest, MediaType: o.Desc.MediaType, Size: o.Desc.Size,
		Path: []digest.Digest{}, Layers: []layerResult{}, Why: o.Why, Notes: o.Notes,
	}
	if ask.Platform != nil {
		r.Platform = layout.FormatPlatform(*ask.Platform)
	}
	if o.Document != nil {
		r.ArtifactType = o.Document.ArtifactType
	}
	for _, desc := range o.Path {
		r.Path = append(r.Path, desc.Digest)
	}
	for _, l := range o.Layers {
		r.Layers = append(r.Layers, layerResult{l.Digest, l.MediaType, l.Size, l.Annotations[ocispec.AnnotationTitle]})
	}
	if f := o.Failure; f != nil {
		r.Failure = &resolveFailure{string(f.Kind), f.Message}
	}
	return r, nil
}

// emit prints one answer.
func (r *resolveResult) emit(e *env) error {
	if e.json {
		return e.emitJSON(r)
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "%s\n", clean(fmt.Sprintf(format, args...))) }
	if r.Failure != nil {
		line("%s would fail: %s", r.As, r.Failure.Message)
		line("  kind   %s", r.Failure.Kind)
		line("  at     %s %s", r.Digest, r.MediaType)
	} else {
		line("%s takes %s", r.As, r.Digest)
		line("  type   %s", strings.TrimSpace(r.MediaType+" "+r.ArtifactType))
	}
	for _, d := range r.Path {
		line("  via    %s", d)
	}
	if r.Failure == nil {
		for _, l := range r.Layers {
			line("  layer  %s", strings.TrimSpace(fmt.Sprintf("%s %s %s %s", l.Digest, l.MediaType, size(l.Size), l.Title)))
		}
	}
	if r.Why != "" {
		line("  why    %s", r.Why)
	}
	for _, n := range r.Notes {
		line("  note   %s", n)
	}
	_, err := io.WriteString(e.stdout, b.String())
	return err
}
