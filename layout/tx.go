package layout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

// maxAttempts bounds how often an update begins again because a program that
// does not know our lock changed index.json meanwhile.
const maxAttempts = 100

// lockPatience is how long an edit waits for the lock file of another machine.
var lockPatience = 30 * time.Second

// A Tx is one edit of index.json and of the indexes below it. It is valid
// inside the function that [Stage.Update] calls.
type Tx struct {
	stage *Stage
	index *Index
	docs  map[digest.Digest]*Document // made by this transaction
	order []digest.Digest
}

// A Change is a document that an edit has put in the place of another.
type Change struct{ Old, New ocispec.Descriptor }

// Update is [Stage.Update] without blobs staged before.
func (l *Layout) Update(ctx context.Context, fn func(tx *Tx) error) error {
	s, err := l.Stage(ctx)
	if err != nil {
		return err
	}
	return errors.Join(s.Update(ctx, fn), s.Close())
}

// Update commits. Alone with the index lock, it reads index.json, lets fn edit
// it, gives the staged blobs and the documents that fn made their names, and
// swaps index.json last. fn runs again if another program changed index.json
// meanwhile, so it may only change what belongs to tx. If fn or a write fails
// the layout stays as it was. Update may be called again for further blobs.
func (s *Stage) Update(ctx context.Context, fn func(tx *Tx) error) (err error) {
	// Before the lock, for it may take long; publish does the rest.
	if err := s.syncStaged(); err != nil {
		return err
	}
	lock, _, err := s.l.openRegular(s.l.root, markerFile, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("edit %s: %w", s.l.dir, readOnly(err))
	}
	defer lock.Close() //nolint:errcheck // gives back the lock; nothing was written to it
	if err := durable.Lock(ctx, lock, durable.Exclusive); err != nil {
		return err
	}
	if onNetwork(lock) {
		unlock, err := s.lockNetwork(ctx)
		if err != nil {
			return fmt.Errorf("edit %s: %w", s.l.dir, err)
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	for range maxAttempts {
		done, err := s.attempt(ctx, fn)
		if err != nil || done {
			return err
		}
		s.l.warn("index.json was changed by another program, trying again", "layout", s.l.dir)
	}
	return fmt.Errorf("edit %s: %w: another program keeps changing index.json", s.l.dir, ErrConflict)
}

// onNetwork is durable.OnNetwork, but in tests.
var onNetwork = durable.OnNetwork

// lockNetwork adds a lock file to the index lock where flock may not reach the
// other machines.
func (s *Stage) lockNetwork(ctx context.Context) (unlock func() error, err error) {
	const name = ownDir + "/index.lock"
	s.l.warn("the layout is on a network file system; edits from several machines are safe only if all use this program", "layout", s.l.dir)
	unlock, err = durable.LockFile(ctx, s.l.root, name, lockPatience)
	if errors.Is(err, durable.ErrHeld) {
		err = WithHint(fmt.Errorf("%w: %w", ErrConflict, err), "if that process is dead, remove "+filepath.Join(s.l.dir, filepath.FromSlash(name)))
	}
	return unlock, err
}

// attempt runs fn once; false means that index.json changed under it.
func (s *Stage) attempt(ctx context.Context, fn func(tx *Tx) error) (bool, error) {
	before, err := s.l.snapshot()
	if err != nil {
		return false, err
	}
	index, err := ParseIndex(before.raw)
	if err != nil {
		return false, fmt.Errorf("%s/%s: %w", s.l.dir, indexFile, err)
	}
	tx := &Tx{stage: s, index: index, docs: map[digest.Digest]*Document{}}
	if err := fn(tx); err != nil {
		return false, err
	}
	raw := index.Bytes()
	// What we write must be readable, by the limits too.
	if _, err := ParseIndex(raw); err != nil {
		return false, fmt.Errorf("edit %s: %s would become unreadable: %w", s.l.dir, indexFile, err)
	}
	if err := tx.stageDocuments(ctx); err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	after, err := s.l.snapshot()
	if err != nil {
		return false, err
	}
	if !before.same(after) {
		return false, nil
	}
	if err := s.publish(); err != nil {
		return false, fmt.Errorf("edit %s: %w", s.l.dir, err)
	}
	if bytes.Equal(raw, before.raw) {
		// Done before, perhaps by a process that was killed before its sync.
		return true, durable.SyncRootDir(s.l.root, ".")
	}
	if err := s.swapIndex(raw); err != nil {
		return false, fmt.Errorf("edit %s: %w", s.l.dir, err)
	}
	return true, nil
}

// A snapshot is index.json at one moment.
type snapshot struct {
	raw  []byte
	info fs.FileInfo
}

func (l *Layout) snapshot() (snapshot, error) {
	f, info, err := l.openRegular(l.root, indexFile, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return snapshot{}, fmt.Errorf("%s: no file %s: %w", l.dir, indexFile, ErrInvalid)
	}
	if err != nil {
		return snapshot{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(io.LimitReader(f, MaxDocument+1))
	return snapshot{raw: raw, info: info}, err
}

func (a snapshot) same(b snapshot) bool {
	return os.SameFile(a.info, b.info) && a.info.Size() == b.info.Size() && a.info.ModTime().Equal(b.info.ModTime()) &&
		sha256.Sum256(a.raw) == sha256.Sum256(b.raw)
}

func (s *Stage) swapIndex(raw []byte) error {
	const name = "index"
	f, err := s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(raw); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := durable.Finish(f, fileMode); err != nil {
		return err
	}
	if err := s.l.root.Rename(s.temp+"/"+name, indexFile); err != nil {
		return err
	}
	return durable.SyncRootDir(s.l.root, ".")
}

// Index returns index.json, to be edited.
func (tx *Tx) Index() *Index { return tx.index }

// Source returns what is stored, staged and made by this transaction.
func (tx *Tx) Source() Source { return txSource{tx.stage, tx} }

// txSource is the stage and the documents of the transaction.
type txSource struct {
	*Stage
	tx *Tx
}

func (s txSource) Index(context.Context) (*Index, error) { return ParseIndex(s.tx.index.Bytes()) }

func (s txSource) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if doc, ok := s.tx.docs[desc.Digest]; ok {
		return OpenBlob(ctx, desc, func(digest.Digest) (io.ReadCloser, error) { return readCloser(doc.Raw), nil })
	}
	return s.Stage.Blob(ctx, desc)
}

func (s txSource) Stat(ctx context.Context, d digest.Digest) (BlobInfo, error) {
	if doc, ok := s.tx.docs[d]; ok {
		return BlobInfo{Digest: d, Size: int64(len(doc.Raw))}, nil
	}
	return s.Stage.Stat(ctx, d)
}

func (txSource) Close() error { return nil }

func readCloser(raw []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(raw)) }

// PutDocument makes a manifest or index part of the edit. It is written when
// the edit is committed, if index.json reaches it by then.
func (tx *Tx) PutDocument(raw []byte, mediaType string) (ocispec.Descriptor, error) {
	desc := describe(raw, mediaType)
	doc, err := ParseDocument(desc, raw)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, ok := tx.docs[desc.Digest]; !ok {
		tx.docs[desc.Digest] = doc
		tx.order = append(tx.order, desc.Digest)
	}
	return desc, nil
}

// stageDocuments stages those documents of the transaction that its index.json
// reaches; steps on the way to it, which nothing names any more, are dropped.
func (tx *Tx) stageDocuments(ctx context.Context) error {
	needed := map[digest.Digest]bool{}
	var need func(descs []ocispec.Descriptor)
	need = func(descs []ocispec.Descriptor) {
		for _, desc := range descs {
			doc, ok := tx.docs[desc.Digest]
			if !ok || needed[desc.Digest] {
				continue
			}
			needed[desc.Digest] = true
			need(doc.Manifests)
			need(doc.Layers)
			if doc.Subject != nil {
				need([]ocispec.Descriptor{*doc.Subject})
			}
		}
	}
	need(tx.index.Entries())
	for _, d := range tx.order {
		if !needed[d] {
			continue
		}
		doc := tx.docs[d]
		if err := tx.stage.AddExpect(ctx, bytes.NewReader(doc.Raw), doc.Descriptor); err != nil {
			return err
		}
	}
	return nil
}

// SetRef makes name the ref name of desc, and of nothing else: entries that
// have exactly this ref name go. If one of them has desc's digest, its other
// annotations and unknown fields stay. index.json is left sorted.
func (tx *Tx) SetRef(name string, desc ocispec.Descriptor) {
	desc = cloneDescriptor(desc)
	keep := -1
	var remove []int
	for i, old := range tx.index.Entries() {
		if RefName(old) != name {
			continue
		}
		if old.Digest != desc.Digest || keep >= 0 {
			remove = append(remove, i)
			continue
		}
		keep = i
		for k, v := range old.Annotations {
			setDefault(&desc, k, v)
		}
		if desc.Platform == nil {
			desc.Platform = old.Platform
		}
		if desc.ArtifactType == "" {
			desc.ArtifactType = old.ArtifactType
		}
	}
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[ocispec.AnnotationRefName] = name
	if keep >= 0 {
		tx.index.Set(keep, desc)
	} else {
		tx.index.Add(desc)
	}
	tx.index.Remove(remove...)
	tx.index.Sort()
}

func setDefault(desc *ocispec.Descriptor, key, value string) {
	if _, ok := desc.Annotations[key]; ok {
		return
	}
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	desc.Annotations[key] = value
}

// EditIndex lets fn edit the index that refName names, and re-links that ref
// name, and no other, to the result, which is left sorted. An absent ref name
// is [ErrNotFound], or with create the name of a new empty index. A ref name
// of something else than an index is [ErrConflict].
func (tx *Tx) EditIndex(ctx context.Context, refName string, create bool, fn func(x *Index) error) (ocispec.Descriptor, error) {
	found := tx.index.FindRef(refName)
	entries := tx.index.Entries()
	x := NewIndex()
	var old ocispec.Descriptor
	switch {
	case len(found) > 1:
		matches := make([]Match, len(found))
		for i, n := range found {
			matches[i] = Match{Desc: entries[n], RefName: refName}
		}
		return ocispec.Descriptor{}, &AmbiguousError{What: tx.stage.String() + ":" + refName, Candidates: matches}
	case len(found) == 0 && !create:
		return ocispec.Descriptor{}, noRef(tx.stage, refName, entries)
	case len(found) == 1:
		old = entries[found[0]]
		if !IsIndex(old.MediaType) {
			return ocispec.Descriptor{}, fmt.Errorf("%s: ref name %q names a %s, no index: %w", tx.stage, refName, old.MediaType, ErrConflict)
		}
		doc, err := ReadDocument(ctx, tx.Source(), old)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if x, err = ParseIndex(doc.Raw); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	before := x.ArtifactType()
	if err := fn(x); err != nil {
		return ocispec.Descriptor{}, err
	}
	x.Sort()
	desc, err := tx.putIndex(x)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(found) == 0 {
		tx.SetRef(refName, desc)
		return desc, nil
	}
	tx.index.Set(found[0], link(old, outcome{desc: desc, changed: true, retype: desc.ArtifactType != before, data: x.Bytes()}))
	return desc, nil
}
