package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
)

func newManCommand(e *env) *cli.Command {
	var dir string
	return &cli.Command{
		Name: "man", Usage: "write the manual pages",
		Description: "Prints the page of the program or, with --dir, writes it and the page of each command to a directory.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "write all pages to the directory `DIR`", Destination: &dir},
		},
		Action: func(c *cli.Context) error { return runMan(c, e, dir) },
	}
}

type manResult struct {
	File string `json:"file" doc:"a page that was written"`
}

func runMan(c *cli.Context, e *env, dir string) error {
	pages := cmdline.ManPages(c.App, version(), exitStatuses)
	if dir == "" {
		_, err := e.stdout.Write(pages[0].Roff)
		return err
	}
	for _, p := range pages {
		file := filepath.Join(dir, p.File)
		if err := os.WriteFile(file, p.Roff, 0o644); err != nil {
			return err
		}
		if err := e.confirm(manResult{File: file}, "wrote %s", file); err != nil {
			return err
		}
	}
	return nil
}
