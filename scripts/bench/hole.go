package main

import (
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A hole is a registry that hashes what it is sent, answers as the
// specification says, and forgets the bytes of blobs; manifests it keeps. So
// what is measured is the client. With a layout it has that in every repository
// from the start, and gives out its blobs.
type hole struct {
	dir   string // of the layout, or ""
	tagOf map[string]ocispec.Descriptor
	kinds map[digest.Digest]string // media types of the layout's manifests

	mu    sync.Mutex
	repos map[string]*holeRepo
	next  int // number of the next upload
}

type holeRepo struct {
	blobs     map[digest.Digest]int64 // sizes
	manifests map[digest.Digest]holeManifest
	tags      map[string]digest.Digest
	uploads   map[string]*holeUpload
}

type holeManifest struct {
	mediaType string
	raw       []byte
}

type holeUpload struct {
	h hash.Hash
	n int64
}

func newHole(dir string) (*hole, error) {
	h := &hole{dir: dir, repos: map[string]*holeRepo{}, tagOf: map[string]ocispec.Descriptor{}, kinds: map[digest.Digest]string{}}
	if dir == "" {
		return h, nil
	}
	raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	return h, h.learn(raw, true)
}

// learn notes the manifests that an index names, and those below.
func (h *hole) learn(raw []byte, top bool) error {
	var x ocispec.Index
	if err := json.Unmarshal(raw, &x); err != nil {
		return err
	}
	for _, desc := range x.Manifests {
		if name := desc.Annotations[ocispec.AnnotationRefName]; top && name != "" {
			h.tagOf[name] = desc
		}
		h.kinds[desc.Digest] = desc.MediaType
		if desc.MediaType != ocispec.MediaTypeImageIndex {
			continue
		}
		below, err := os.ReadFile(h.path(desc.Digest))
		if err != nil {
			return err
		}
		if err := h.learn(below, false); err != nil {
			return err
		}
	}
	return nil
}

func (h *hole) path(d digest.Digest) string {
	return filepath.Join(h.dir, "blobs", string(d.Algorithm()), d.Encoded())
}

// reset forgets all that was pushed.
func (h *hole) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.repos)
}

// repo is called with the lock.
func (h *hole) repo(name string) *holeRepo {
	r := h.repos[name]
	if r == nil {
		r = &holeRepo{
			blobs: map[digest.Digest]int64{}, manifests: map[digest.Digest]holeManifest{},
			tags: map[string]digest.Digest{}, uploads: map[string]*holeUpload{},
		}
		for tag, desc := range h.tagOf {
			r.tags[tag] = desc.Digest
		}
		h.repos[name] = r
	}
	return r
}

func (h *hole) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, found := strings.CutPrefix(r.URL.Path, "/v2/")
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if found && path == "" {
		_, _ = io.WriteString(w, "{}") // the client may be gone
		return
	}
	for _, kind := range []string{"/blobs/uploads/", "/blobs/", "/manifests/", "/tags/list"} {
		i := strings.LastIndex(path, kind)
		if i < 0 {
			continue
		}
		name, rest := path[:i], path[i+len(kind):]
		switch kind {
		case "/blobs/uploads/":
			h.upload(w, r, name, rest)
		case "/blobs/":
			h.blob(w, r, name, digest.Digest(rest))
		case "/manifests/":
			h.manifest(w, r, name, rest)
		default:
			h.tags(w, name)
		}
		return
	}
	refuse(w, http.StatusNotFound, "UNSUPPORTED") // no referrers API: like the reference registry
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q}]}`, code) // the client may be gone
}

func (h *hole) upload(w http.ResponseWriter, r *http.Request, name, id string) {
	query := r.URL.Query()
	h.mu.Lock()
	repo := h.repo(name)
	up := repo.uploads[id]
	if r.Method == http.MethodPost {
		if d := digest.Digest(query.Get("mount")); d != "" {
			size, there := h.repo(query.Get("from")).blobs[d]
			if there && query.Get("from") != "" {
				repo.blobs[d] = size
				h.mu.Unlock()
				made(w, name, "blobs", d)
				return
			}
		}
		h.next++
		id, up = fmt.Sprint(h.next), &holeUpload{h: digest.Canonical.Hash()}
		repo.uploads[id] = up
	}
	h.mu.Unlock()
	if up == nil {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{up.h}, r.Body, make([]byte, 256<<10))
	if up.n += n; err != nil {
		return // the client is gone
	}
	if !query.Has("digest") {
		w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id+"?"+url.Values{"state": {"0"}}.Encode())
		w.Header().Set("Docker-Upload-Uuid", id)
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, up.n-1)))
		w.WriteHeader(http.StatusAccepted)
		return
	}
	d := digest.Digest(query.Get("digest"))
	if d != digest.NewDigest(digest.SHA256, up.h) {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
		return
	}
	h.mu.Lock()
	repo.blobs[d] = up.n
	delete(repo.uploads, id)
	h.mu.Unlock()
	made(w, name, "blobs", d)
}

func made(w http.ResponseWriter, name, kind string, d digest.Digest) {
	w.Header().Set("Location", "/v2/"+name+"/"+kind+"/"+string(d))
	w.Header().Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

func (h *hole) blob(w http.ResponseWriter, r *http.Request, name string, d digest.Digest) {
	h.mu.Lock()
	size, there := h.repo(name).blobs[d]
	h.mu.Unlock()
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("Content-Type", "application/octet-stream")
	if there && r.Method == http.MethodHead {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		return
	}
	if h.dir == "" || d.Validate() != nil {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	f, err := os.Open(h.path(d))
	if err != nil {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	http.ServeContent(w, r, "", info.ModTime(), f)
}

func (h *hole) manifest(w http.ResponseWriter, r *http.Request, name, ref string) {
	if r.Method == http.MethodPut {
		raw, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
		d := digest.FromBytes(raw)
		named := digest.Digest(ref)
		if err != nil || named.Validate() == nil && d != named {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		h.mu.Lock()
		repo := h.repo(name)
		repo.manifests[d] = holeManifest{r.Header.Get("Content-Type"), raw}
		if named.Validate() != nil {
			repo.tags[ref] = d
		}
		h.mu.Unlock()
		made(w, name, "manifests", d)
		return
	}
	h.mu.Lock()
	d := digest.Digest(ref)
	if d.Validate() != nil {
		d = h.repo(name).tags[ref]
	}
	found, there := h.repo(name).manifests[d]
	h.mu.Unlock()
	if kind := h.kinds[d]; !there && kind != "" {
		raw, err := os.ReadFile(h.path(d))
		found, there = holeManifest{kind, raw}, err == nil
	}
	if !there || r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("Content-Type", found.mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(found.raw)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(found.raw) // the client may be gone
	}
}

func (h *hole) tags(w http.ResponseWriter, name string) {
	h.mu.Lock()
	list := []string{}
	for tag := range h.repo(name).tags {
		list = append(list, tag)
	}
	h.mu.Unlock()
	if len(list) == 0 {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	}
	slices.Sort(list)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": list}) // the client may be gone
}
