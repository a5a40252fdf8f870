package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newInitCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "make an empty layout", ArgsUsage: "LAYOUT",
		Description: "LAYOUT is a directory that is empty or does not exist; its parent directory must. " +
			"Anything else in the way is left alone (exit status 6).",
		Action: func(c *cli.Context) error { return runInit(c.Context, e, layoutPath(c.Args().First())) },
	}
}

type initResult struct {
	Layout string `json:"layout" doc:"the directory"`
}

func runInit(ctx context.Context, e *env, dir string) error {
	l, err := layout.Create(ctx, dir, &layout.Options{Logger: e.log})
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	return e.confirm(initResult{Layout: dir}, "created %s", dir)
}
