package main

import (
	"context"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

const sourceHelp = `SOURCE is a layout directory, an .oci file, or one of

  oci:DIR[:REFNAME][@DIGEST]            a layout directory
  oci-archive:FILE[:REFNAME][@DIGEST]   an .oci file, plain, gzip or zstd, or its parts
  docker-archive:FILE[:NAME:TAG]        the output of docker save
  docker://HOST/REPO[:TAG][@DIGEST]     a repository of a registry
  dir:DIR                               a directory as skopeo writes it

An .oci file that is a delta (pack --base) lacks what its base has: --base SOURCE names that.`

// layoutPath is the directory of an operand that must be a layout directory.
func layoutPath(operand string) string { return strings.TrimPrefix(operand, "oci:") }

// openLayout opens a layout directory that is to be edited.
func (e *env) openLayout(ctx context.Context, dir string) (*layout.Layout, error) {
	l, err := layout.Open(ctx, dir, &layout.Options{Logger: e.log})
	if errors.Is(err, layout.ErrNotFound) {
		if ref, bad := layout.ParseReference(dir); bad == nil && (ref.RefName != "" || ref.Digest != "") {
			return nil, &cmdline.UsageError{Msg: "LAYOUT is a directory, without ref name or digest: " + dir}
		}
		return nil, layout.WithHint(err, "gloci-layout init makes a layout")
	}
	return l, err
}

// update runs one transaction on the layout in dir.
func (e *env) update(ctx context.Context, dir string, fn func(tx *layout.Tx) error) (err error) {
	l, err := e.openLayout(ctx, dir)
	if err != nil {
		return err
	}
	defer closeWith(&err, l.Close)
	return l.Update(ctx, fn)
}

// closeWith adds the error of a Close to err, if there is none yet.
func closeWith(err *error, fn func() error) {
	if closeErr := fn(); *err == nil {
		*err = closeErr
	}
}

// sourceFlags are the flags of commands that read any source.
type sourceFlags struct {
	follow   bool
	registry registryFlags

	// ownBase is for commands whose --base is another thing, and implied tells
	// what else a delta may find its base in; nil: in nothing.
	ownBase bool
	implied func() ([]layout.Source, error)
}

func (s *sourceFlags) flags() []cli.Flag {
	flags := []cli.Flag{s.follows()}
	if !s.ownBase {
		flags = append(flags, baseFlag("what a delta lacks is in `SOURCE`"))
	}
	return append(flags, s.registry.flags("")...)
}

// impliesBase makes src a base of the deltas that are opened.
func (s *sourceFlags) impliesBase(src layout.Source) {
	s.implied = func() ([]layout.Source, error) { return []layout.Source{src}, nil }
}

func (s *sourceFlags) follows() cli.Flag {
	return &cli.BoolFlag{Name: "follow", Usage: "read through symbolic links in a layout directory", Destination: &s.follow}
}

// parseSource reads an operand that names a source.
func parseSource(c *cli.Context, operand string) (layout.Reference, error) {
	ref, err := layout.ParseReference(operand)
	if err != nil {
		return ref, usagef(c, "%v", err)
	}
	return ref, nil
}

// open opens what ref names, a delta with its base. Ref name and digest are for
// the caller to resolve.
func (s *sourceFlags) open(c *cli.Context, e *env, ref layout.Reference) (layout.Source, error) {
	src, err := s.openPlain(c, e, ref)
	if err != nil {
		return nil, err
	}
	return s.complete(c, e, src)
}

// openPlain opens what ref names as it is.
func (s *sourceFlags) openPlain(c *cli.Context, e *env, ref layout.Reference) (layout.Source, error) {
	switch ref.Transport {
	case "oci":
		l, err := layout.Open(c.Context, ref.Location, &layout.Options{FollowSymlinks: s.follow, Logger: e.log})
		if err != nil {
			return nil, err // not l: a nil *Layout is no nil Source
		}
		return l, nil
	case "oci-archive":
		a, err := archive.Open(c.Context, ref.Location, &archive.Options{FollowSymlinks: s.follow})
		if err != nil {
			return nil, err
		}
		return a, nil
	}
	opts, err := s.registry.options(c, e)
	if err != nil {
		return nil, err
	}
	return layoutsync.OpenSource(c.Context, ref, opts)
}

// with opens the source that operand names, calls fn and closes the source.
func (s *sourceFlags) with(c *cli.Context, e *env, operand string, fn func(src layout.Source, ref layout.Reference) error) (err error) {
	ref, err := parseSource(c, operand)
	if err != nil {
		return err
	}
	src, err := s.open(c, e, ref)
	if err != nil {
		return err
	}
	defer closeWith(&err, src.Close)
	return fn(src, ref)
}

// parseTarget reads an operand that names content of a layout: REF, @DIGEST or
// REF@DIGEST.
func parseTarget(c *cli.Context, operand string) (refName string, d digest.Digest, err error) {
	refName = operand
	if at := strings.LastIndexByte(operand, '@'); at >= 0 && strings.ContainsRune(operand[at:], ':') {
		if d, err = layout.ParseDigest(operand[at+1:]); err != nil {
			return "", "", usagef(c, "%v", err)
		}
		refName = operand[:at]
	} else if at == 0 {
		return "", "", usagef(c, "%q is no @DIGEST; use --digest for the beginning of one", operand)
	}
	return refName, d, nil
}

func checkRefNames(c *cli.Context, names []string) error {
	for _, name := range names {
		if err := layout.ValidateRefName(name); err != nil {
			return usagef(c, "%v", err)
		}
	}
	return nil
}
