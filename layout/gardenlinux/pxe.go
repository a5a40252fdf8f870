package gardenlinux

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	// maxMembers bounds a PXE archive. Builds put four files into it.
	maxMembers = 16
	// maxPadding bounds what follows its end. tar fills up to 10 KiB.
	maxPadding = 1 << 20 // 1 MiB
)

// unpack stages the members of a PXE archive, from the archive to the layout
// without a file between. Anything but a few plain files side by side is
// refused. How much may come out of how little is bounded by package compress.
func (f *Flavor) unpack(ctx context.Context, s *layout.Stage, file File) ([]layer, error) {
	layers, err := f.unpackFile(ctx, s, file)
	switch {
	case err == nil:
		return layers, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, compress.ErrCorrupt), errors.Is(err, compress.ErrLimit),
		errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: %w", layout.ErrInvalid, err)
	}
	return nil, fmt.Errorf("%s: %w", file.Path, err)
}

func (f *Flavor) unpackFile(ctx context.Context, s *layout.Stage, file File) (layers []layer, err error) {
	archive, err := os.Open(file.Path)
	if err != nil {
		return nil, err
	}
	defer archive.Close() //nolint:errcheck // only read
	z, err := compress.NewReaderOptions(archive, compress.Gzip, f.limits)
	if err != nil {
		return nil, err
	}
	defer z.Close() //nolint:errcheck // only read
	t := tar.NewReader(z)
	var errs []error
	for n := 1; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // memberTitle sees to that one
			return nil, errors.Join(append(errs, err)...)
		}
		if n > maxMembers {
			return nil, errors.Join(append(errs, fmt.Errorf("%w: more than %d members", layout.ErrInvalid, maxMembers))...)
		}
		if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == tar.TypeDir && (h.Name == "./" || h.Name == ".") {
			continue
		}
		title, err := memberTitle(h)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		mediaType, ok, err := layerType(file.Path+": "+title, title, f.unknown, f.logger())
		if err != nil {
			errs = append(errs, err)
		}
		if !ok || len(errs) > 0 {
			continue
		}
		desc, err := s.Add(ctx, t, mediaType)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", title, err)
		}
		layers = append(layers, layer{File{Title: title, MediaType: mediaType, Path: file.Path}, desc})
	}
	// The checksum of the stream comes at its end, behind the padding.
	if err := checkPadding(z); err != nil {
		errs = append(errs, err)
	}
	return layers, errors.Join(errs...)
}

// memberTitle returns the name of a member if it is a plain file in the top of
// the archive.
func memberTitle(h *tar.Header) (string, error) {
	title := strings.TrimPrefix(h.Name, "./")
	switch {
	case title == "" || title == "." || title == ".." || strings.ContainsAny(title, `/\`) || len(title) > maxName ||
		!utf8.ValidString(title) || strings.ContainsFunc(title, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", fmt.Errorf("member %.100q: %w, want a plain file name", h.Name, layout.ErrUnsafe)
	case h.Typeflag != tar.TypeReg:
		return "", fmt.Errorf("member %.100q: %w: type %q, want a regular file", h.Name, layout.ErrUnsafe, h.Typeflag)
	}
	for key := range h.PAXRecords {
		// A hole of any size costs a sparse file nothing.
		if strings.HasPrefix(key, "GNU.sparse.") {
			return "", fmt.Errorf("member %.100q: %w: a sparse file", h.Name, layout.ErrUnsafe)
		}
	}
	return title, nil
}

// checkPadding reads r to its end.
func checkPadding(r io.Reader) error {
	padding, err := io.ReadAll(io.LimitReader(r, maxPadding+1))
	if err != nil {
		return err
	}
	if len(padding) > maxPadding || len(bytes.Trim(padding, "\x00")) > 0 {
		return fmt.Errorf("%w: data behind the end of the archive", layout.ErrInvalid)
	}
	return nil
}

// checkTitles finds two layers of one title: a reader could not tell them apart.
func checkTitles(f *Flavor, files []File) error {
	var errs []error
	from := make(map[string]string)
	for _, file := range files {
		if before, twice := from[file.Title]; twice {
			errs = append(errs, fmt.Errorf("%s: %w: two layers %q, from %s and %s", f.Name, layout.ErrConflict, file.Title, before, file.Path))
		}
		from[file.Title] = file.Path
	}
	return errors.Join(errs...)
}
