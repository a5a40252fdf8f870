package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newAddCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "add", Usage: "add content to a layout",
		Subcommands: []*cli.Command{newAddImageCommand(e), newAddFlavorCommand(e), newAddArtifactCommand(e)},
	}
}

// stage runs fn with a stage of the layout in dir.
func (e *env) stage(ctx context.Context, dir string, fn func(s *layout.Stage) error) error {
	l, err := e.openLayout(ctx, dir)
	if err != nil {
		return err
	}
	s, err := l.Stage(ctx)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	err = fn(s)
	// An error of Close after another one would only hide it.
	if closeErr := errors.Join(s.Close(), l.Close()); err == nil {
		err = closeErr
	}
	return err
}
