package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
	"github.com/gardenlinux/gloci-layout/sync/serve"
	"github.com/gardenlinux/gloci-layout/sync/serve/web"
)

func newReportCommand(e *env) *cli.Command {
	var from sourceFlags
	var out string
	return &cli.Command{
		Name: "report", Usage: "write what is in a source as one HTML file", ArgsUsage: "SOURCE",
		Description: "Writes the page that shows SOURCE in a browser: its entries, a matrix of flavours and architectures, where the bytes are, " +
			"each manifest with its layers and annotations, what lint finds and what other programs would take. " +
			"The file needs no other, no server and no network, and the same SOURCE gives the same bytes. " +
			"With a ref name or digest, only that, and what refers to it.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`; - is stdout", Destination: &out},
		}, from.flags()...),
		Action: func(c *cli.Context) error {
			if out == "" {
				return usagef(c, "name the FILE that is to be written with -o; - is stdout")
			}
			return from.with(c, e, c.Args().First(), func(src layout.Source, ref layout.Reference) error {
				return runReport(c, e, src, ref, out)
			})
		},
	}
}

type reportResult struct {
	Path  string `json:"path" doc:"the file that was written"`
	Bytes int    `json:"bytes" doc:"its size"`
}

func runReport(c *cli.Context, e *env, src layout.Source, ref layout.Reference, out string) error {
	opts := web.ReportOptions{Knowledge: pageKnowledge(), Name: c.Args().First()}
	if ref.RefName != "" || ref.Digest != "" {
		var err error
		if opts.Roots, err = layout.Resolve(c.Context, src, ref.RefName, ref.Digest); err != nil {
			return err
		}
	}
	if out == "-" {
		if e.json {
			return usagef(c, "-o - and --json exclude each other")
		}
		return web.WriteReport(c.Context, e.stdout, src, opts)
	}
	var b bytes.Buffer
	if err := web.WriteReport(c.Context, &b, src, opts); err != nil {
		return err
	}
	if err := writeFile(out, b.Bytes()); err != nil {
		return err
	}
	return e.confirm(reportResult{out, b.Len()}, "wrote %s, %s", out, size(int64(b.Len())))
}

// pageKnowledge is what pages are told of Garden Linux and of other programs.
func pageKnowledge() web.Knowledge {
	return web.Knowledge{
		Flavor: func(desc ocispec.Descriptor, doc *layout.Document) (web.Flavor, bool) {
			n, features := gardenlinux.NameOf(desc, doc)
			return web.Flavor{Name: n.CName, Arch: n.Arch, Version: n.Version, Features: features}, n.CName != ""
		},
		Rules:     lintRules(),
		Consumers: append(consumer.Standard(), gardenlinux.BootOperator{}),
	}
}

// servedPage is the page of what serve serves.
func servedPage(e *env) http.Handler {
	return web.New(web.Options{Knowledge: pageKnowledge(), Logger: e.log, Repositories: func(ctx context.Context) []web.Repository {
		var list []web.Repository
		seen := map[string]int{}
		for _, r := range serve.Repositories(ctx) {
			name := r.Name
			if seen[r.Name]++; seen[r.Name] > 1 { // several sources may share a repository
				name += fmt.Sprintf("~%d", seen[r.Name])
			}
			list = append(list, web.Repository{Name: name, Pull: r.Name, Source: r.Source})
		}
		return list
	}})
}
