package main

import (
	"errors"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/compress"
)

// buildVersion is set by the Makefile.
var buildVersion string

func newVersionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version",
		Description: "With --verbose also what compresses: two programs with equal lines there write equal bytes for equal content, format and level.",
		Action:      func(*cli.Context) error { return runVersion(e) },
	}
}

type versionResult struct {
	Version  string           `json:"version" doc:"of the program, as git describe gives it"`
	Go       string           `json:"go" doc:"the Go release that built it"`
	Platform string           `json:"platform" doc:"what it was built for, os/architecture"`
	Encoders []versionEncoder `json:"encoders" doc:"what fixes the bytes of compressed streams, beside content and level"`
}

type versionEncoder struct {
	Format  string `json:"format" doc:"gzip or zstd"`
	Library string `json:"library" doc:"modules and versions that compress"`
	Block   int64  `json:"block" doc:"bytes that are compressed as one piece"`
}

func runVersion(e *env) error {
	r := versionResult{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	for _, f := range []compress.Format{compress.Gzip, compress.Zstd} {
		enc := compress.EncoderOf(f)
		r.Encoders = append(r.Encoders, versionEncoder{Format: f.String(), Library: enc.Library, Block: enc.Block})
	}
	err := e.emit(r, "gloci-layout %s (%s, %s)", r.Version, r.Go, r.Platform)
	if e.json || !e.verbose {
		return err
	}
	for _, enc := range r.Encoders {
		err = errors.Join(err, e.emit(enc, "%s: %s, %s at a time", enc.Format, enc.Library, size(enc.Block)))
	}
	return err
}

// version is what make says, else what the go command knows of the module.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
