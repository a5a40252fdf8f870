package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive/parts"
)

func newVerifyCommand(e *env) *cli.Command {
	var from sourceFlags
	var opts layout.VerifyOptions
	return &cli.Command{
		Name: "verify", Usage: "check every blob and every document", ArgsUsage: "SOURCE",
		Description: "Hashes every blob, reads every index and manifest strictly, and looks for everything that is named. " +
			"Prints one line for each finding and, unless --quiet, one line at the end. " +
			"Exit status 0: sound, 1: damaged, 5: index.json cannot be read.\n\n" +
			"Of a delta of pack --base, what it holds is checked, and that the rest is expected at the base; with --base all is.\n\n" +
			"Of an archive in parts (pack --split) it checks the parts first, and what is in them only if all are there and right. " +
			"SOURCE may be one part: then that alone is checked, by the digest in the manifest beside it.\n\n" + sourceHelp,
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "jobs", Usage: "hash `N` blobs at once; 0 means one for each processor", Destination: &opts.Jobs},
			&cli.BoolFlag{Name: "reachable", Usage: "do not hash blobs that nothing names", Destination: &opts.ReachableOnly},
			&cli.BoolFlag{Name: "sparse", Usage: "members of indexes that the source lacks are no damage", Destination: &opts.Sparse},
		}, from.flags()...),
		Action: func(c *cli.Context) error {
			if opts.Jobs < 0 {
				return usagef(c, "--jobs %d: want 0 or more", opts.Jobs)
			}
			n, done, err := verifyParts(c, e, c.Args().First(), from.follow)
			if err != nil || done {
				return err
			}
			return from.with(c, e, c.Args().First(), func(src layout.Source, _ layout.Reference) error {
				return runVerify(c.Context, e, src, opts, n)
			})
		},
	}
}

type findingResult struct {
	Type   string        `json:"type" doc:"finding"`
	Kind   string        `json:"kind" doc:"missing, size, digest, document, unsafe, stray, limit or read"`
	Digest digest.Digest `json:"digest,omitempty" doc:"of the blob"`
	Path   string        `json:"path,omitempty" doc:"in the layout; or the name of a part"`
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
	Parts        int    `json:"parts,omitempty" doc:"parts hashed, of an archive in parts; if one is damaged its blobs are not looked at, and bytes are those of parts"`

	Expected      int   `json:"expected,omitempty" doc:"of a delta without its base: blobs that the base has to have, which were not looked for"`
	ExpectedBytes int64 `json:"expectedBytes,omitempty" doc:"their size"`
}

func runVerify(ctx context.Context, e *env, src layout.Source, opts layout.VerifyOptions, ofParts int) error {
	p := e.startProgress("verify", false)
	opts.Progress = p.event
	res, err := layout.Verify(ctx, src, &opts)
	p.stop()
	if err != nil {
		return err
	}
	if err := emitFindings(e, res.Findings); err != nil {
		return err
	}
	r := verifyResult{
		Type: "summary", Sound: len(res.Findings) == 0, Findings: len(res.Findings),
		Blobs: res.Blobs, Documents: res.Documents, Bytes: res.Bytes, Unreferenced: res.Unreferenced, Parts: ofParts,
		Expected: res.Expected, ExpectedBytes: res.ExpectedBytes,
	}
	text := fmt.Sprintf("%s, %s, %s", plural(r.Documents, "document"), plural(r.Blobs, "blob"), size(r.Bytes))
	if ofParts > 0 {
		text = plural(ofParts, "part") + ", " + text
	}
	if r.Expected > 0 {
		text += fmt.Sprintf("; %s, %s, expected at the base", plural(r.Expected, "blob"), size(r.ExpectedBytes))
	}
	return e.verdict(r, src.String(), text)
}

func emitFindings(e *env, findings []layout.Finding) error {
	for _, f := range findings {
		r := findingResult{Type: "finding", Kind: f.Kind, Digest: f.Digest, Path: f.Path, Detail: f.Detail}
		what := f.Path
		if what == "" {
			what = string(f.Digest)
		}
		if err := e.emit(r, "%s: %s: %s", f.Kind, what, f.Detail); err != nil {
			return err
		}
	}
	return nil
}

// verdict prints the last line, and ends the command with its answer.
func (e *env) verdict(r verifyResult, what, text string) error {
	verdict := "sound"
	if !r.Sound {
		verdict = plural(r.Findings, "finding")
	}
	if err := e.confirm(r, "%s: %s (%s)", what, verdict, text); err != nil {
		return err
	}
	if !r.Sound {
		return errAnswerIsNo
	}
	return nil
}

// verifyParts checks the parts of an archive in parts and returns how many there
// are; none if operand names something else. done means that there is nothing
// left to look at: a part is missing or damaged, or one part alone was asked for.
func verifyParts(c *cli.Context, e *env, operand string, follow bool) (n int, done bool, err error) {
	ref, err := parseSource(c, operand)
	if err != nil {
		return 0, false, err
	}
	co := parts.CheckOptions{Options: parts.Options{FollowSymlinks: follow}}
	file := ref.Location
	switch {
	case ref.Transport != "oci-archive":
		return 0, false, nil
	case parts.Find(file) != "":
		file = parts.Find(file)
	case parts.Of(file) != "":
		file, co.Only = parts.Of(file), filepath.Base(file)
	case !strings.HasSuffix(file, layout.PartsSuffix):
		return 0, false, nil
	}
	p := e.startProgress("verify", false)
	co.Progress = p.event
	report, err := parts.Check(c.Context, file, &co)
	p.stop()
	if err != nil {
		return 0, false, err
	}
	r := verifyResult{Type: "summary", Sound: len(report.Findings) == 0, Findings: len(report.Findings), Bytes: report.Bytes, Parts: report.Parts}
	if r.Sound && co.Only == "" {
		return r.Parts, false, nil
	}
	if err := emitFindings(e, report.Findings); err != nil {
		return 0, false, err
	}
	of := len(report.Manifest.Parts)
	return r.Parts, true, e.verdict(r, ref.Location, fmt.Sprintf("%d of %s, %s", r.Parts, plural(of, "part"), size(r.Bytes)))
}
