package main

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newGCCommand(e *env) *cli.Command {
	var opts layout.GCOptions
	return &cli.Command{
		Name: "gc", Usage: "remove blobs that nothing names", ArgsUsage: "LAYOUT",
		Description: "Removes blobs that index.json does not reach, and what killed writers have left. " +
			"It waits until no other command changes the layout, and refuses to remove anything when part of what is reachable cannot be read.\n\n" +
			"Blobs younger than the grace age stay, because another tool, which does not know our lock, may be about to name them.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be removed", Destination: &opts.DryRun},
			&cli.DurationFlag{Name: "grace", Usage: "keep blobs younger than `AGE`, as in 90m or 24h", Value: time.Hour, Destination: &opts.Grace},
			&cli.BoolFlag{Name: "sparse", Usage: "members of indexes that are missing are no reason to refuse", Destination: &opts.Sparse},
		},
		Action: func(c *cli.Context) error {
			if opts.Grace < 0 {
				return usagef(c, "--grace %s: want 0 or more", opts.Grace)
			}
			opts.Now = time.Now() //nolint:forbidigo // ages of files are counted from now; no byte depends on it
			return runGC(c.Context, e, layoutPath(c.Args().First()), opts)
		},
	}
}

type gcBlobResult struct {
	Type   string        `json:"type" doc:"removed"`
	Digest digest.Digest `json:"digest" doc:"of the blob"`
	Size   int64         `json:"size" doc:"its size in bytes"`
}

type gcResult struct {
	Type      string `json:"type" doc:"summary"`
	DryRun    bool   `json:"dryRun" doc:"nothing was removed"`
	Removed   int    `json:"removed" doc:"blobs that were, or would be, removed"`
	Bytes     int64  `json:"bytes" doc:"their size together"`
	Kept      int    `json:"kept" doc:"blobs that are reachable"`
	Young     int    `json:"young" doc:"blobs that are unreachable, but younger than the grace age"`
	TempFiles int    `json:"tempFiles" doc:"what killed writers had left"`
}

func runGC(ctx context.Context, e *env, dir string, opts layout.GCOptions) (err error) {
	l, err := e.openLayout(ctx, dir)
	if err != nil {
		return err
	}
	defer closeWith(&err, l.Close)
	res, err := l.GC(ctx, opts)
	if err != nil {
		return err
	}
	verb := "removed"
	if opts.DryRun {
		verb = "would remove"
	}
	sum := gcResult{
		Type: "summary", DryRun: opts.DryRun, Removed: len(res.Removed),
		Kept: res.Kept, Young: res.Young, TempFiles: res.TempFiles,
	}
	for _, b := range res.Removed {
		sum.Bytes += b.Size
		if err := e.confirm(gcBlobResult{Type: "removed", Digest: b.Digest, Size: b.Size}, "%s %s %s", verb, b.Digest, size(b.Size)); err != nil {
			return err
		}
	}
	young := ""
	if sum.Young > 0 {
		young = ", " + plural(sum.Young, "unreachable blob") + " younger than " + opts.Grace.String()
	}
	return e.confirm(sum, "%s %s, %s (%s kept%s)", verb, plural(sum.Removed, "blob"), size(sum.Bytes), plural(sum.Kept, "blob"), young)
}
