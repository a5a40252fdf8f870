package main

import (
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// buildVersion is set by the Makefile.
var buildVersion string

func newVersionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version",
		Action: func(*cli.Context) error { return runVersion(e) },
	}
}

type versionResult struct {
	Version  string `json:"version" doc:"of the program, as git describe gives it"`
	Go       string `json:"go" doc:"the Go release that built it"`
	Platform string `json:"platform" doc:"what it was built for, os/architecture"`
}

func runVersion(e *env) error {
	r := versionResult{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	return e.emit(r, "gloci-layout %s (%s, %s)", r.Version, r.Go, r.Platform)
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
