package layout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// The kinds of damage that [Verify] finds.
const (
	FindingMissing  = "missing"  // named, but not there
	FindingSize     = "size"     // another size than a descriptor says
	FindingDigest   = "digest"   // the bytes hash to another digest
	FindingDocument = "document" // a manifest or index that the strict reader refuses
	FindingUnsafe   = "unsafe"   // a link or device in the place of a blob
	FindingStray    = "stray"    // a file in blobs/ that is no blob
	FindingLimit    = "limit"    // nested too deep, or too many manifests
	FindingRead     = "read"     // an input/output error
)

// A Finding is one thing that is wrong with a source.
type Finding struct {
	Kind   string        // one of the constants above
	Digest digest.Digest // "" for what is no blob
	Path   string        // in the layout, with slashes
	Detail string        // one line for a person
	Err    error         // the cause, for errors.Is; nil where nothing was read
}

// VerifyOptions changes what [Verify] does. Nil is the zero value.
type VerifyOptions struct {
	Jobs          int  // blobs hashed at once; 0 means one for each processor
	ReachableOnly bool // blobs that nothing names are not hashed
	Sparse        bool // members of indexes that the source lacks are no damage
	Progress      func(Event)
}

// A VerifyResult is what [Verify] saw.
type VerifyResult struct {
	Findings     []Finding // sorted by path, then kind
	Blobs        int       // hashed
	Documents    int       // manifests and indexes read
	Bytes        int64     // hashed
	Unreferenced int       // blobs that nothing names: no damage

	// Of a [Partial]: what is expected elsewhere, in blobs and bytes. It was not
	// looked for, which is no damage.
	Expected      int
	ExpectedBytes int64
}

// Verify hashes every blob of src, reads every manifest and index, and reports
// all damage. An error means that it could not look, as with an unreadable
// index.json; damage is no error.
func Verify(ctx context.Context, src Source, opts *VerifyOptions) (*VerifyResult, error) {
	v := verifier{src: src, result: &VerifyResult{}, stored: map[digest.Digest]int64{}, elsewhere: map[digest.Digest]int64{}, named: map[digest.Digest]bool{}, wrong: map[claim]bool{}}
	if opts != nil {
		v.opts = *opts
	}
	if v.opts.Progress == nil {
		v.opts.Progress = func(Event) {}
	}
	x, err := src.Index(ctx)
	if err != nil {
		return nil, err
	}
	if err := v.list(ctx); err != nil {
		return nil, err
	}
	if err := v.walk(ctx, x.Entries()); err != nil {
		return nil, err
	}
	if err := v.hash(ctx); err != nil {
		return nil, err
	}
	if err := v.hashOthers(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(v.result.Findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Detail, b.Detail))
	})
	return v.result, nil
}

type verifier struct {
	src    Source
	opts   VerifyOptions
	stored map[digest.Digest]int64 // sizes
	named  map[digest.Digest]bool
	wrong  map[claim]bool // reported

	elsewhere map[digest.Digest]int64 // sizes of what the source lacks and knows of
	others    []Part

	mu     sync.Mutex
	result *VerifyResult
}

func (v *verifier) report(f Finding) {
	if f.Path == "" && f.Digest != "" {
		f.Path = BlobPath(f.Digest)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.result.Findings = append(v.result.Findings, f)
}

// list takes stock of what is stored.
func (v *verifier) list(ctx context.Context) error {
	for info, err := range v.src.Blobs(ctx) {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			v.stored[info.Digest] = info.Size
		case info.Digest == "":
			v.report(Finding{Kind: kindOf(err), Path: blobsDir, Detail: err.Error(), Err: err})
		default:
			v.report(Finding{Kind: kindOf(err), Digest: info.Digest, Detail: err.Error(), Err: err})
			v.stored[info.Digest] = -1
		}
	}
	if p, ok := v.src.(Partial); ok {
		v.partial(p.Partial())
	}
	l, ok := v.src.(*Layout)
	if !ok {
		return nil // other sources refuse what does not belong when they are opened
	}
	strays, err := l.strays()
	for _, path := range strays {
		v.report(Finding{Kind: FindingStray, Path: path, Detail: "no blob has such a name"})
	}
	return err
}

// partial takes stock of what is elsewhere.
func (v *verifier) partial(p *Parts) {
	if p == nil {
		return
	}
	for _, info := range p.Elsewhere {
		v.elsewhere[info.Digest] = info.Size
	}
	for _, info := range p.Expected {
		v.result.Expected++
		v.result.ExpectedBytes += info.Size
	}
	v.others = p.Others
}

// strays returns what stands in blobs/ under names that no blob has.
func (l *Layout) strays() ([]string, error) {
	open := openDir
	if l.opts.FollowSymlinks {
		open = func(root *os.Root, name string) (*os.Root, error) {
			return openFollowing(filepath.Join(root.Name(), name))
		}
	}
	blobs, err := open(l.root, blobsDir)
	if err != nil {
		return nil, nil // list reports it, unless there are no blobs
	}
	defer blobs.Close() //nolint:errcheck // only read
	algorithms, err := readNames(blobs, ".")
	if err != nil {
		return nil, err
	}
	var strays []string
	for _, a := range algorithms {
		if a != string(digest.SHA256) && a != string(digest.SHA512) {
			strays = append(strays, blobsDir+"/"+a)
			continue
		}
		names, err := l.names(digest.Algorithm(a))
		if err != nil {
			continue // reported by list
		}
		for _, name := range names {
			if _, err := ParseDigest(a + ":" + name); err != nil {
				strays = append(strays, blobsDir+"/"+a+"/"+name)
			}
		}
	}
	return strays, nil
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, ErrUnsafe):
		return FindingUnsafe
	case errors.Is(err, ErrNotFound):
		return FindingMissing
	case errors.Is(err, ErrMismatch):
		return FindingDigest
	case errors.Is(err, ErrInvalid):
		return FindingDocument
	}
	return FindingRead
}

// walk follows everything that is named, and holds it against what is stored.
func (v *verifier) walk(ctx context.Context, roots []ocispec.Descriptor) error {
	v.sizes(roots, " in "+indexFile)
	for n, err := range Walk(ctx, v.src, roots, &WalkOptions{KeepGoing: true, Sparse: v.opts.Sparse}) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		v.named[n.Desc.Digest] = true
		size, stored := v.stored[n.Desc.Digest]
		_, elsewhere := v.elsewhere[n.Desc.Digest]
		switch {
		case elsewhere: // sizes reports what is wrong
		case n.Absent || n.Desc.Data != nil && !stored:
		case stored && size != n.Desc.Size: // sizes or list reports it
		case err != nil && errors.Is(err, ErrMismatch): // hash reports it
		case err != nil:
			kind := kindOf(err)
			if errors.Is(err, ErrInvalid) && stored && (len(n.Parents) >= DefaultMaxDepth || v.result.Documents >= DefaultMaxDocuments) {
				kind = FindingLimit
			}
			v.report(Finding{Kind: kind, Digest: n.Desc.Digest, Detail: err.Error(), Err: err})
		case n.Document != nil:
			v.result.Documents++
			v.sizes(n.Document.descriptors(), " in "+short(n.Desc.Digest))
		case !stored && len(n.Desc.URLs) == 0:
			v.report(Finding{Kind: FindingMissing, Digest: n.Desc.Digest, Detail: fmt.Sprintf("%s%s is not there", n.Role, in(n)), Err: ErrNotFound})
		}
	}
	return nil
}

// sizes holds descriptors against what is stored: all of them, for a blob that
// is named twice may be named wrongly once, and a walk shows it once.
func (v *verifier) sizes(descs []ocispec.Descriptor, where string) {
	for _, desc := range descs {
		size, stored := v.stored[desc.Digest]
		if other, ok := v.elsewhere[desc.Digest]; ok {
			size, stored = other, true
		}
		wrong := claim{desc.Digest, desc.Size}
		if !stored || size < 0 || size == desc.Size || v.wrong[wrong] {
			continue
		}
		v.wrong[wrong] = true
		v.report(Finding{
			Kind: FindingSize, Digest: desc.Digest,
			Detail: fmt.Sprintf("%d bytes, but the descriptor%s says %d", size, where, desc.Size), Err: ErrMismatch,
		})
	}
}

// A claim is a size that a descriptor gives a blob.
type claim struct {
	digest digest.Digest
	size   int64
}

func in(n Node) string {
	if len(n.Parents) == 0 {
		return " in " + indexFile
	}
	return " in " + short(n.Parents[len(n.Parents)-1].Digest)
}

// hash reads the stored blobs, the largest first so that the processors end
// together.
func (v *verifier) hash(ctx context.Context) error {
	var descs []ocispec.Descriptor
	for d, size := range v.stored {
		if !v.named[d] {
			v.result.Unreferenced++
		}
		if size >= 0 && (v.named[d] || !v.opts.ReachableOnly) {
			descs = append(descs, ocispec.Descriptor{Digest: d, Size: size})
		}
	}
	slices.SortFunc(descs, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(string(a.Digest), string(b.Digest)))
	})
	jobs := v.opts.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	next := make(chan ocispec.Descriptor)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(next)
		for _, desc := range descs {
			select {
			case next <- desc:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range jobs {
		g.Go(func() error {
			buf := make([]byte, copyBuffer)
			for desc := range next {
				if err := v.hashOne(ctx, desc, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (v *verifier) hashOne(ctx context.Context, desc ocispec.Descriptor, buf []byte) error {
	v.opts.Progress(Event{Kind: "start", Desc: desc})
	err := verifyBlob(ctx, v.src, desc, v.opts.Progress, buf)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, ErrNotFound) { // taken away since: gc
		cause := errors.Unwrap(err)
		v.report(Finding{Kind: kindOf(err), Digest: desc.Digest, Detail: cmp.Or(cause, err).Error(), Err: err})
	}
	v.mu.Lock()
	v.result.Blobs++
	v.result.Bytes += desc.Size
	v.mu.Unlock()
	v.opts.Progress(Event{Kind: "done", Desc: desc})
	return nil
}

// hashOthers reads the files that are no blobs.
func (v *verifier) hashOthers(ctx context.Context) error {
	for _, part := range v.others {
		desc := ocispec.Descriptor{Digest: part.Digest, Size: part.Size}
		v.opts.Progress(Event{Kind: "start", Desc: desc})
		rc, err := part.Open(ctx)
		if err == nil {
			_, err = io.Copy(io.Discard, rc)
			err = errors.Join(err, rc.Close())
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			v.report(Finding{Kind: kindOf(err), Path: part.Path, Detail: err.Error(), Err: err})
		}
		v.opts.Progress(Event{Kind: "done", Desc: desc})
	}
	return nil
}

// verifyBlob reads a stored blob to its end; progress may be nil.
func verifyBlob(ctx context.Context, src Source, desc ocispec.Descriptor, progress func(Event), buf []byte) error {
	desc.Data = nil // it is the stored bytes that are asked for
	rc, err := src.Blob(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close() //nolint:errcheck // only read
	for {
		n, err := rc.Read(buf)
		if n > 0 && progress != nil {
			progress(Event{Kind: "bytes", Desc: desc, Bytes: int64(n)})
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
