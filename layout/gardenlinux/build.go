package gardenlinux

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
)

// ErrSuffix reports a file that has no media type, under [UnknownError].
var ErrSuffix = errors.New("suffix without a media type")

// maxArtifacts bounds a list of files.
const maxArtifacts = 1 << 20 // 1 MiB

// cnameBootstrap is what the builder puts in the place of a cname for the bare
// Debian tree that it begins with. It is no flavor.
const cnameBootstrap = "bootstrap"

// BuildOptions says what a build directory is expected to hold.
type BuildOptions struct {
	// Want is what the caller knows of every flavor; parts that are not set are
	// free. Another value in the names of the files is [ErrDisagree].
	Want Name
	// Unknown is for files whose suffix has no media type.
	Unknown UnknownPolicy
	// Require names layers that every flavor must have: by a suffix of
	// [Suffixes], then any layer of its media type will do; by any other suffix
	// or whole title (esp.tar); or by a media type. See [Flavor.Required].
	Require []string
	// NoDefaultRequire leaves the layers to Require that [DefaultRequire] asks
	// for.
	NoDefaultRequire bool
	// Logger gets a warning for each file that is left out or has no media type
	// of its own. Nil is silent.
	Logger *slog.Logger
}

// A Flavor is one build of one flavor. [ReadBuild] makes it.
type Flavor struct {
	Name Name // all four parts are set
	// Release is what the .release file says; nil without one.
	Release *Release
	// Files become layers, in this order. The members of a .pxe.tar.gz join them
	// when it is unpacked, in [StageAll].
	Files []File
	// Required are the layers that the flavor must have, as in
	// [BuildOptions].Require, sorted.
	Required []string

	unknown UnknownPolicy
	limits  *compress.ReaderOptions // of a PXE archive; nil is the default
	log     *slog.Logger
}

// A File is a file of a build.
type File struct {
	Title     string // base name, the title of the layer
	MediaType string
	Path      string // where its bytes are; not the name where that is a symbolic link
}

// ReadBuild reads a build directory, such as the builder's .build: files named
// {base}.{suffix}, of any number of flavors. It writes nothing and opens only
// small files. The flavors come sorted by base name.
//
// If there is a {base}.artifacts, it lists the files of that build; others of
// the same base are left out with a warning. Else all of them count. A file
// with the bare name of a boot file (vmlinuz) belongs to the flavor if there is
// but one, unless that has a .pxe.tar.gz, which brings its own. Directories,
// hidden files, symbolic links with other names (the builder makes one per
// flavor) and the builder's bootstrap-* files are none of it. A symbolic link
// with the name of an artifact must lead to a file inside the directory.
//
// The error joins all that is wrong, one line each: a directory without a build
// ([layout.ErrNotFound]); what is listed but not there (the same); what is no
// regular file ([layout.ErrInvalid]) or outside ([layout.ErrUnsafe]); an unknown
// suffix, if so asked ([ErrSuffix]); a bad .release ([ErrRelease]) or two of
// them; names that contradict each other ([ErrDisagree]); missing layers
// ([ErrMissing]); and what [Check] finds.
func ReadBuild(dir string, opts BuildOptions) ([]Flavor, error) {
	b := &build{dir: dir, opts: opts, log: opts.Logger, groups: make(map[Name][]string)}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if err := b.checkOptions(); err != nil {
		return nil, err
	}
	if err := b.list(); err != nil {
		return nil, err
	}
	names := make([]Name, 0, len(b.groups))
	for n := range b.groups {
		names = append(names, n)
	}
	slices.SortFunc(names, func(x, y Name) int { return strings.Compare(x.BaseName(), y.BaseName()) })
	b.shareBare(names)
	flavors := make([]Flavor, 0, len(names))
	for _, n := range names {
		flavors = append(flavors, b.flavor(n))
	}
	if err := Check(flavors); err != nil {
		b.errs = append(b.errs, err)
	}
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	return flavors, nil
}

// A build is a build directory while it is read.
type build struct {
	dir    string
	opts   BuildOptions
	log    *slog.Logger
	groups map[Name][]string // file names
	bare   []string          // files named like a suffix
	errs   []error
}

func (b *build) fail(err error) { b.errs = append(b.errs, err) }

func (b *build) failf(format string, args ...any) { b.fail(fmt.Errorf(format, args...)) }

// checkOptions refuses what no build could meet.
func (b *build) checkOptions() error {
	var errs []error
	w := b.opts.Want
	// A name whose parts are not set from the front is no name; as a wish it is
	// fine, so each part is tried in a whole one.
	whole := Name{cmp.Or(w.CName, "x"), cmp.Or(w.Arch, architectures[0]), cmp.Or(w.Version, versionToday), cmp.Or(w.Commit, commitLocal)}
	if err := whole.check(); err != nil {
		errs = append(errs, fmt.Errorf("%w: %w", ErrName, err))
	}
	for _, r := range b.opts.Require {
		if strings.Trim(r, ".") == "" || strings.ContainsFunc(r, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			errs = append(errs, fmt.Errorf("required layer %.80q: %w, want a suffix, title or media type", r, layout.ErrInvalid))
		}
	}
	return errors.Join(errs...)
}

// list sorts the files of the directory into groups.
func (b *build) list() error {
	entries, err := os.ReadDir(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("build directory %s: %w", b.dir, layout.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("build directory: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		n, _, ok := splitFileName(name)
		switch {
		case ok && n.CName == cnameBootstrap:
		case ok:
			b.groups[n] = append(b.groups[n], name)
		case !e.Type().IsRegular() || strings.HasPrefix(name, ".") || strings.HasPrefix(name, cnameBootstrap+"-"):
		case slices.ContainsFunc(mappings, func(m mapping) bool { return m.suffix == name }):
			b.bare = append(b.bare, name)
		default:
			b.log.Warn("left out: the name is not that of a build's file", "file", filepath.Join(b.dir, name))
		}
	}
	if len(b.groups) == 0 {
		return layout.WithHint(fmt.Errorf("build directory %s: build %w", b.dir, layout.ErrNotFound),
			"a build's files are named {cname}-{arch}-{version}-{commit}.{suffix}, such as container-amd64-2150.1.0-abc12345.release")
	}
	return nil
}

// shareBare gives files without a base name to the flavor that they can only
// belong to.
func (b *build) shareBare(names []Name) {
	if len(b.bare) == 0 {
		return
	}
	if len(names) > 1 {
		for _, name := range b.bare {
			b.failf("%s: %w: there are %d flavors that it could belong to", filepath.Join(b.dir, name), layout.ErrAmbiguous, len(names))
		}
		return
	}
	n := names[0]
	if i := slices.IndexFunc(b.groups[n], isPXE); i >= 0 {
		for _, name := range b.bare {
			b.log.Warn("left out: the PXE archive has its own", "file", filepath.Join(b.dir, name), "archive", b.groups[n][i])
		}
		return
	}
	b.groups[n] = append(b.groups[n], b.bare...)
}

func isPXE(fileName string) bool {
	mediaType, _ := MediaType(fileName)
	return mediaType == mediaTypePXE
}

// flavor reads the files of one base name.
func (b *build) flavor(n Name) Flavor {
	f := Flavor{Name: n, unknown: b.opts.Unknown, log: b.log}
	names := b.listed(n)
	slices.Sort(names)
	var unread []File // not missing: there are errors of their own about them
	for _, name := range names {
		mediaType, ok, err := b.layerType(name)
		if err != nil {
			b.fail(err)
		}
		if !ok {
			continue
		}
		path, err := b.resolve(name)
		if err != nil {
			b.fail(err)
			unread = append(unread, File{Title: name, MediaType: mediaType})
			continue
		}
		f.Files = append(f.Files, File{Title: name, MediaType: mediaType, Path: path})
	}
	slices.SortFunc(f.Files, func(x, y File) int { return compareTitles(x.Title, y.Title) })
	if images := f.titles(MediaTypeOCI); len(images) > 1 {
		b.failf("%s: %w: %d files with its container image: %s", filepath.Join(b.dir, n.BaseName()), layout.ErrAmbiguous, len(images), strings.Join(images, ", "))
	}
	b.readRelease(&f)
	b.compareWant(n)
	f.require(b.opts)
	// What a PXE archive holds is only known when it is unpacked.
	if f.titles(mediaTypePXE) == nil {
		if err := f.missing(append(unread, f.Files...)); err != nil {
			b.fail(err)
		}
	}
	return f
}

// titles returns those of the files of one media type.
func (f *Flavor) titles(mediaType string) []string {
	var titles []string
	for _, file := range f.Files {
		if file.MediaType == mediaType {
			titles = append(titles, file.Title)
		}
	}
	return titles
}

// compareTitles is the order of layers.
func compareTitles(a, b string) int {
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

func (b *build) layerType(name string) (mediaType string, ok bool, err error) {
	return layerType(filepath.Join(b.dir, name), name, b.opts.Unknown, b.log)
}

// layerType applies the policy to one file; where names it in messages.
func layerType(where, title string, policy UnknownPolicy, logger *slog.Logger) (mediaType string, ok bool, err error) {
	if mediaType, ok = MediaType(title); ok {
		return mediaType, true, nil
	}
	why := "unknown suffix"
	if isUnmapped(title) {
		why = "Garden Linux has no media type for this suffix"
	}
	switch policy {
	case UnknownError:
		return "", false, fmt.Errorf("%s: %w: %s", where, ErrSuffix, why)
	case UnknownSkip:
		logger.Warn("left out: "+why, "file", where)
		return "", false, nil
	default:
		logger.Warn(why, "file", where, "mediaType", MediaTypeUnknown)
		return MediaTypeUnknown, true, nil
	}
}

// listed returns the names of a build's files: those in its .artifacts, or all.
func (b *build) listed(n Name) []string {
	list := n.BaseName() + "." + suffixArtifacts
	var names []string
	for _, name := range b.groups[n] {
		if name != list {
			names = append(names, name)
		}
	}
	if len(names) == len(b.groups[n]) {
		return names
	}
	raw, err := b.readSmall(list, maxArtifacts)
	if err != nil {
		b.fail(err)
		return names
	}
	var wanted []string
	for i, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || line == list || slices.Contains(wanted, line) {
			continue
		}
		where := fmt.Sprintf("%s: line %d", filepath.Join(b.dir, list), i+1)
		switch other, _, ok := splitFileName(line); {
		case strings.ContainsAny(line, `/\`):
			b.failf("%s: %w: %.200q", where, layout.ErrUnsafe, line)
		case !ok || other != n:
			b.failf("%s: %w: %.200q is not a file of %s", where, layout.ErrInvalid, line, n.BaseName())
		case !slices.Contains(names, line):
			b.failf("%s: %s: %w", where, line, layout.ErrNotFound)
		default:
			wanted = append(wanted, line)
		}
	}
	for _, name := range names {
		if !slices.Contains(wanted, name) && name != list+".log" {
			b.log.Warn("left out: not in the list of artifacts", "file", filepath.Join(b.dir, name), "list", list)
		}
	}
	return wanted
}

// resolve returns the path of a regular file, through a symbolic link if that
// stays inside the directory.
func (b *build) resolve(name string) (string, error) {
	path := filepath.Join(b.dir, name)
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		root, err := filepath.EvalSymlinks(b.dir)
		if err != nil {
			return "", err
		}
		if path, err = filepath.EvalSymlinks(path); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s: target of the symbolic link: %w", filepath.Join(b.dir, name), layout.ErrNotFound)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", filepath.Join(b.dir, name), err)
		}
		if rel, err := filepath.Rel(root, path); err != nil || !filepath.IsLocal(rel) {
			return "", fmt.Errorf("%s: %w: a symbolic link out of the directory", filepath.Join(b.dir, name), layout.ErrUnsafe)
		}
		if info, err = os.Lstat(path); err != nil {
			return "", err
		}
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: %w: not a regular file", filepath.Join(b.dir, name), layout.ErrInvalid)
	}
	return path, nil
}

// readSmall reads a file of at most limit bytes.
func (b *build) readSmall(name string, limit int64) (raw []byte, err error) {
	path, err := b.resolve(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	raw, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s: %w: more than %d bytes", filepath.Join(b.dir, name), layout.ErrInvalid, limit)
	}
	return raw, err
}
