package main

import (
	"context"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
)

func newVerifyCommand(e *env) *cli.Command {
	var from sourceFlags
	var opts layout.VerifyOptions
	return &cli.Command{
		Name: "verify", Usage: "check every blob and every document", ArgsUsage: "SOURCE",
		Description: "Hashes every blob, reads every index and manifest strictly, and looks for everything that is named. " +
			"Prints one line for each finding and, unless --quiet, one line at the end. " +
			"Exit status 0: sound, 1: damaged, 5: index.json cannot be read.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "jobs", Usage: "hash `N` blobs at once; 0 means one for each processor", Destination: &opts.Jobs},
			&cli.BoolFlag{Name: "reachable", Usage: "do not hash blobs that nothing names", Destination: &opts.ReachableOnly},
			&cli.BoolFlag{Name: "sparse", Usage: "members of indexes that the source lacks are no damage", Destination: &opts.Sparse},
		}, from.flags()...),
		Action: func(c *cli.Context) error {
			if opts.Jobs < 0 {
				return usagef(c, "--jobs %d: want 0 or more", opts.Jobs)
			}
			return from.with(c, e, c.Args().First(), func(src layout.Source, _ layout.Reference) error {
				return runVerify(c.Context, e, src, opts)
			})
		},
	}
}

type findingResult struct {
	Type   string        `json:"type" doc:"finding"`
	Kind   string        `json:"kind" doc:"missing, size, digest, document, unsafe, stray, limit or read"`
	Digest digest.Digest `json:"digest,omitempty" doc:"of the blob"`
	Path   string        `json:"path,omitempty" doc:"in the layout"`
	Detail string        `json:"detail" doc:"what is wrong"`
}

type verifyResult struct {
	Type         string `json:"type" doc:"summary"`
	Sound        bool   `json:"sound" doc:"there is no finding"`
	Findings     int    `json:"findings" doc:"how many findings there are"`
	Blobs        int    `json:"blobs" doc:"blobs hashed"`
	Documents    int    `json:"documents" doc:"manifests and indexes read"`
	Bytes        int64  `json:"bytes" doc:"bytes hashed"`
	Unreferenced int    `json:"unreferenced" doc:"blobs that nothing names, which is no damage"`
}

func runVerify(ctx context.Context, e *env, src layout.Source, opts layout.VerifyOptions) error {
	p := e.startProgress("verify", false)
	opts.Progress = p.event
	res, err := layout.Verify(ctx, src, &opts)
	p.stop()
	if err != nil {
		return err
	}
	for _, f := range res.Findings {
		r := findingResult{Type: "finding", Kind: f.Kind, Digest: f.Digest, Path: f.Path, Detail: f.Detail}
		what := f.Path
		if what == "" {
			what = string(f.Digest)
		}
		if err := e.emit(r, "%s: %s: %s", f.Kind, what, f.Detail); err != nil {
			return err
		}
	}
	r := verifyResult{
		Type: "summary", Sound: len(res.Findings) == 0, Findings: len(res.Findings),
		Blobs: res.Blobs, Documents: res.Documents, Bytes: res.Bytes, Unreferenced: res.Unreferenced,
	}
	verdict := "sound"
	if !r.Sound {
		verdict = plural(r.Findings, "finding")
	}
	if err := e.confirm(r, "%s: %s (%s, %s, %s)", src, verdict,
		plural(r.Documents, "document"), plural(r.Blobs, "blob"), size(r.Bytes)); err != nil {
		return err
	}
	if !r.Sound {
		return errAnswerIsNo
	}
	return nil
}
