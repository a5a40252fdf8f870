package gardenlinux

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

// stageJobs is how many files are staged at once. More do not help: hashing is
// bound by the processor, writing by the disk.
const stageJobs = 4

// Staged is a flavor in a layout.Stage.
type Staged struct {
	Name Name
	// Entry is the index entry of the artifact manifest.
	Entry ocispec.Descriptor
	// Runtime are the index entries of container images: one as linux/{arch}, or
	// none.
	Runtime []ocispec.Descriptor
}

// Stage stages one flavor; see [StageAll].
func (f *Flavor) Stage(ctx context.Context, s *layout.Stage) (entry ocispec.Descriptor, runtime []ocispec.Descriptor, err error) {
	staged, err := StageAll(ctx, s, []Flavor{*f})
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return staged[0].Entry, staged[0].Runtime, nil
}

// StageAll stages the files of flavors, the members of their PXE archives, the
// images in their .oci files and a manifest for each, and returns the index
// entries in the order of flavors. The files themselves are only read. The same
// files give the same bytes.
//
// What is wrong with the files is reported together, one line each: a PXE
// archive that is damaged or passes a limit ([layout.ErrInvalid]) or has other
// members than a few plain files ([layout.ErrUnsafe]); a .oci file that is no
// layout of one image ([layout.ErrAmbiguous] and what package archive returns),
// or whose image is for another platform or flavor ([ErrDisagree]); and layers
// that turn out to be missing ([ErrMissing]). Any other error ends the work.
func StageAll(ctx context.Context, s *layout.Stage, flavors []Flavor) ([]Staged, error) {
	works := make([]work, len(flavors))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(stageJobs)
	for i := range flavors {
		works[i].start(gctx, s, &flavors[i], g)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	staged := make([]Staged, len(flavors))
	var errs []error
	for i := range works {
		var err error
		if staged[i], err = works[i].finish(ctx, s, &flavors[i]); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return staged, nil
}

// work is a flavor while it is staged. Each task has a place of its own, so
// that the result does not tell which came first.
type work struct {
	tasks []task
}

type task struct {
	layers  []layer
	runtime []ocispec.Descriptor
	err     error // about the input
}

// start gives each file to g, in the order of the files.
func (w *work) start(ctx context.Context, s *layout.Stage, f *Flavor, g *errgroup.Group) {
	run := make([]func(t *task) error, 0, len(f.Files)+2)
	for _, file := range f.Files {
		run = append(run, func(t *task) error {
			desc, err := s.AddFile(ctx, file.Path, file.MediaType)
			t.layers = []layer{{file, desc}}
			return err
		})
		switch file.MediaType {
		case mediaTypePXE:
			run = append(run, func(t *task) (err error) {
				t.layers, err = f.unpack(ctx, s, file)
				return err
			})
		case MediaTypeOCI:
			run = append(run, func(t *task) error {
				desc, err := f.stageImage(ctx, s, file)
				t.runtime = []ocispec.Descriptor{desc}
				return err
			})
		}
	}
	w.tasks = make([]task, len(run))
	for i := range run {
		g.Go(func() error {
			err := run[i](&w.tasks[i])
			if isInput(err) {
				w.tasks[i].err, err = err, nil
			}
			return err
		})
	}
}

// finish puts the parts together.
func (w *work) finish(ctx context.Context, s *layout.Stage, f *Flavor) (Staged, error) {
	staged := Staged{Name: f.Name}
	var layers []layer
	var errs []error
	for _, t := range w.tasks {
		if t.err != nil {
			errs = append(errs, t.err)
			continue
		}
		layers = append(layers, t.layers...)
		staged.Runtime = append(staged.Runtime, t.runtime...)
	}
	slices.SortStableFunc(layers, func(x, y layer) int { return compareTitles(x.Title, y.Title) })
	files := make([]File, len(layers))
	for i, l := range layers {
		files[i] = l.File
	}
	// What could not be read is not missing as well.
	if errs == nil {
		errs = append(errs, checkTitles(f, files), f.missing(files))
	}
	if err := errors.Join(errs...); err != nil {
		return Staged{}, err
	}
	entry, err := f.stageManifest(ctx, s, layers)
	staged.Entry = entry
	return staged, err
}

// isInput tells whether an error is about what was read. All else, such as a
// full disk or an interrupt, would only be repeated by every other file.
func isInput(err error) bool {
	return slices.ContainsFunc([]error{
		layout.ErrAmbiguous, layout.ErrInvalid, layout.ErrMismatch, layout.ErrNotFound, layout.ErrNotLayout, layout.ErrUnsafe,
		compress.ErrCorrupt, compress.ErrLimit, compress.ErrUnsupported, ErrDisagree, ErrSuffix,
	}, func(target error) bool { return errors.Is(err, target) })
}

func (f *Flavor) logger() *slog.Logger {
	if f.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return f.log
}
