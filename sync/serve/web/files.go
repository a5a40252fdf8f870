package web

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// maxFiles is how many files one page lists.
const maxFiles = 5000

type filesView struct {
	frame
	Manifest documentView
	Layer    layerView
	Text     string // what names are searched for
	Files    []fileView
	Found    int
	Size     string // of all files that were found
	Partial  bool   // the layer was not read to its end
	Limit    int
	Err      string
}

type fileView struct{ Mode, Owner, Size, Name, Link, Time string }

// blob returns what DIGEST/PART names: a layer by its number, or the config.
func (x *request) blob(rest string) (d *document, desc ocispec.Descriptor, part string, err error) {
	id, part, _ := strings.Cut(rest, "/")
	if d, err = x.find(id); err != nil {
		return nil, desc, "", err
	}
	n, bad := strconv.Atoi(part)
	switch {
	case part == "" && d.err == nil && !d.absent:
		return d, d.desc, part, nil
	case part == "config" && d.config != nil:
		return d, *d.config, part, nil
	case bad == nil && n >= 0 && n < len(d.layers) && part == strconv.Itoa(n):
		return d, d.layers[n], part, nil
	}
	return nil, desc, "", notFound("%s has no layer %s", short(id), show.Clean(part))
}

// files lists the archive in a layer. Reading ends with the last file that is
// shown, unless names are searched.
func (x *request) files(rest string) error {
	d, desc, part, err := x.blob(rest)
	if err != nil {
		return err
	}
	if x.fresh(x.snap.id) {
		return nil
	}
	ctx, done, err := x.reading()
	if err != nil {
		return err
	}
	defer done()
	l := links{base: "/r/" + x.repo.Name}
	v := &filesView{
		Text: strings.TrimSpace(x.r.URL.Query().Get("q")), Limit: maxFiles,
		Manifest: x.snap.view(l, d.desc, d), Layer: x.snap.layer(l, d, desc, part, nil),
	}
	v.frame = x.frame("Files of "+v.Layer.Name, append(x.way(d), crumb{d.name(), v.Manifest.Link})...)
	if err := v.read(ctx, x.repo.Source, desc); err != nil {
		if x.r.Context().Err() != nil {
			return err
		}
		v.Err = show.Clean(err.Error())
		if errors.Is(err, context.DeadlineExceeded) {
			v.Err = "reading was stopped after " + heavyTimeout.String()
		}
		x.w.Header().Del("ETag") // another try may do better
		x.w.Header().Set("Cache-Control", "no-store")
	}
	return x.render("files", v)
}

func (v *filesView) read(ctx context.Context, src layout.Source, desc ocispec.Descriptor) error {
	var size int64
	defer func() { v.Size = show.Size(size) }()
	want := strings.ToLower(v.Text)
	for h, err := range extract.List(ctx, src, desc) {
		if err != nil {
			return err
		}
		if want != "" && !strings.Contains(strings.ToLower(h.Name), want) {
			continue
		}
		if len(v.Files) == maxFiles {
			v.Partial = true
			return nil
		}
		v.Found++
		if h.Typeflag == tar.TypeReg {
			size += h.Size
		}
		v.Files = append(v.Files, newFileView(h))
	}
	return nil
}

func newFileView(h *tar.Header) fileView {
	f := fileView{
		Mode: h.FileInfo().Mode().String(), Owner: fmt.Sprintf("%d:%d", h.Uid, h.Gid), Name: show.Clean(h.Name),
		Link: show.Clean(h.Linkname), Size: show.Size(h.Size),
	}
	if h.Typeflag != tar.TypeReg {
		f.Size = ""
	}
	if !h.ModTime.IsZero() {
		f.Time = h.ModTime.UTC().Format("2006-01-02 15:04")
	}
	return f
}

// maxChecked is the largest download that is verified before its first byte
// leaves; of a larger one the last bytes are withheld unless all are right.
const maxChecked = 8 << 20 // 8 MiB

// download sends a manifest, config or layer as a file.
func (x *request) download(rest string) error {
	_, desc, part, err := x.blob(rest)
	if err != nil {
		return err
	}
	name := fileName(desc.Annotations[ocispec.AnnotationTitle])
	if name == "" {
		name = string(desc.Digest.Algorithm()) + "-" + short(string(desc.Digest))
		if part == "" || part == "config" {
			name += ".json"
		}
	}
	header := x.w.Header()
	header.Set("ETag", `"`+string(desc.Digest)+`"`)
	header.Set("Cache-Control", "no-cache")
	if x.r.Header.Get("If-None-Match") == header.Get("ETag") {
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	ctx := x.r.Context()
	var body []byte
	var rc io.ReadCloser
	if desc.Size <= maxChecked {
		body, err = layout.ReadAll(ctx, x.repo.Source, desc, maxChecked)
	} else {
		rc, err = x.repo.Source.Blob(ctx, desc)
	}
	if err != nil {
		return err
	}
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	header.Set("Docker-Content-Digest", string(desc.Digest))
	header.Set("Content-Length", strconv.FormatInt(desc.Size, 10))
	if rc == nil {
		if x.r.Method != http.MethodHead {
			_, _ = x.w.Write(body) // whoever hung up does not want it
		}
		return nil
	}
	defer rc.Close() //nolint:errcheck // only read
	if x.r.Method == http.MethodHead {
		return nil
	}
	// The reader gives its verdict with the last bytes, and Copy does not write
	// what came with an error: a damaged blob arrives cut short.
	if _, err := io.Copy(x.w, verified{rc}); err != nil {
		if ctx.Err() == nil {
			x.h.opts.Logger.Error("download", "digest", string(desc.Digest), "error", err.Error())
		}
		panic(http.ErrAbortHandler) // the status has left: only the connection can tell
	}
	return nil
}

// verified passes no bytes on that come together with an error.
type verified struct{ r io.Reader }

func (v verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return n, err
}

// fileName makes a name that is safe in a header and on every system; "" if
// nothing is left of it.
func fileName(title string) string {
	title = title[strings.LastIndexAny(title, `/\`)+1:]
	title = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-+", r) {
			return r
		}
		return '_'
	}, title[:min(len(title), 200)])
	title = strings.TrimLeft(title, ".-")
	if strings.Trim(title, "_") == "" {
		return ""
	}
	return title
}
