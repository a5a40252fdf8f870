package regtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

const defaultManifestLimit = 4 << 20 // 4 MiB

// manifest answers below manifests/ (distribution-spec, "Pulling manifests",
// "Pushing manifests", "Deleting manifests").
func (m *Memory) manifest(q *request) *answer {
	switch q.r.Method {
	case http.MethodGet, http.MethodHead:
		return m.getManifest(q)
	case http.MethodPut:
		return m.putManifest(q)
	case http.MethodDelete:
		return m.deleteManifest(q)
	}
	return notAllowed()
}

func (m *Memory) getManifest(q *request) *answer {
	r := m.repo(q.name)
	d := digest.Digest(q.rest)
	if d.Validate() != nil {
		if !validTag(q.rest) {
			return fault(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		}
		d = r.tagged(q.rest, q.n-m.opts.LagTags)
	}
	found, there := r.manifests[d]
	if !there {
		return fault(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	}
	if !accepts(q.r.Header.Values("Accept"), found.mediaType) {
		return fault(http.StatusNotFound, "MANIFEST_UNKNOWN", "OCI manifest found, but accept header does not support it")
	}
	a := ok(http.StatusOK, found.raw).with("Content-Type", found.mediaType).with("Docker-Content-Digest", d.String()).with("Etag", `"`+d.String()+`"`)
	if match := q.r.Header.Get("If-None-Match"); match == d.String() || match == `"`+d.String()+`"` {
		return ok(http.StatusNotModified, nil)
	}
	return a
}

// accepts tells whether a client takes mediaType. Docker's types are given out
// to everybody.
func accepts(headers []string, mediaType string) bool {
	if !strings.HasPrefix(mediaType, "application/vnd.oci.") {
		return true
	}
	for _, h := range headers {
		for item := range strings.SplitSeq(h, ",") {
			item, _, _ = strings.Cut(item, ";")
			if item = strings.TrimSpace(item); item == mediaType || item == "*/*" {
				return true
			}
		}
	}
	return false
}

func (m *Memory) putManifest(q *request) *answer {
	limit := m.opts.ManifestLimit
	if limit == 0 {
		limit = defaultManifestLimit
	}
	if int64(len(q.body)) > limit {
		return fault(http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid: http: request body too large")
	}
	mediaType := q.r.Header.Get("Content-Type")
	d := digest.FromBytes(q.body)
	tag := ""
	if named := digest.Digest(q.rest); named.Validate() == nil {
		if d = named.Algorithm().FromBytes(q.body); d != named {
			return fault(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
		}
	} else if tag = q.rest; !validTag(tag) {
		return &answer{status: http.StatusNotFound, header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, body: []byte("404 page not found\n")}
	}
	r := m.repo(q.name)
	doc, a := m.checkManifest(r, d, mediaType, q.body)
	if a != nil {
		return a
	}
	if tag != "" {
		before := r.tags[tag]
		if m.opts.Conditional && !matches(q.r.Header, before) {
			return fault(http.StatusPreconditionFailed, "DENIED", "the tag names something else")
		}
		if m.opts.ImmutableTags && before != "" && before != d {
			return fault(http.StatusForbidden, "DENIED", "tag is immutable")
		}
	}
	if _, have := r.manifests[d]; !have {
		r.manifests[d] = manifest{mediaType, q.body}
		m.note(q, Mutation{Kind: "manifest", Digest: d})
	}
	if tag != "" {
		m.setTag(q, r, tag, d)
	}
	a = created("/v2/"+q.name+"/manifests/"+d.String(), d)
	if doc.Subject != nil && m.opts.Referrers {
		a.with("OCI-Subject", string(doc.Subject.Digest))
	}
	return a
}

func (m *Memory) setTag(q *request, r *repo, tag string, d digest.Digest) {
	before := r.tags[tag]
	if m.opts.LagTags+m.opts.LagList > 0 && before != d {
		r.moves = append(r.moves, tagMove{tag, before, q.n})
	}
	kind := "tag"
	if r.tags[tag] = d; d == "" {
		kind = "untag"
		delete(r.tags, tag)
	}
	m.note(q, Mutation{Kind: kind, Tag: tag, Digest: d, Before: before})
}

// tagged returns what a tag named when request n came, or before it.
func (r *repo) tagged(tag string, n int) digest.Digest {
	for _, move := range r.moves {
		if move.tag == tag && move.request >= n {
			return move.before
		}
	}
	return r.tags[tag]
}

// matches checks the conditions of a PUT (RFC 9110, section 13.1).
func matches(h http.Header, have digest.Digest) bool {
	if want := h.Get("If-Match"); want != "" && (have == "" || want != "*" && want != `"`+string(have)+`"`) {
		return false
	}
	if h.Get("If-None-Match") == "*" && have != "" {
		return false
	}
	return true
}

// checkManifest does what the reference registry does before it takes a
// manifest, and what the options ask for.
func (m *Memory) checkManifest(r *repo, d digest.Digest, mediaType string, raw []byte) (*layout.Document, *answer) {
	invalid := func(message string) *answer { return fault(http.StatusBadRequest, "MANIFEST_INVALID", message) }
	doc, err := layout.ParseDocument(ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}, raw)
	if err != nil {
		return nil, invalid("manifest invalid: " + err.Error())
	}
	leaves := doc.Layers
	if doc.Config != nil {
		leaves = append([]ocispec.Descriptor{*doc.Config}, leaves...)
	}
	if m.opts.MediaTypes != nil {
		types := []string{mediaType}
		for _, l := range leaves {
			types = append(types, l.MediaType)
		}
		for _, t := range types {
			if !slices.Contains(m.opts.MediaTypes, t) {
				return nil, invalid("media type " + t + " is not allowed")
			}
		}
	}
	var absent []digest.Digest
	for _, l := range leaves {
		if _, have := r.blobs[l.Digest]; !have && len(l.URLs) == 0 {
			absent = append(absent, l.Digest)
		}
	}
	for _, e := range doc.Manifests {
		if m.opts.RefuseNested && layout.IsIndex(e.MediaType) {
			return nil, invalid("an index in an index is not supported")
		}
		if _, have := r.manifests[e.Digest]; !have {
			absent = append(absent, e.Digest)
		}
	}
	if len(absent) > 0 && !m.opts.Lax {
		return nil, fault(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", fmt.Sprintf("manifest blob unknown to registry: %v", absent))
	}
	return doc, nil
}

func (m *Memory) deleteManifest(q *request) *answer {
	if !m.opts.Delete {
		return notAllowed()
	}
	r := m.repo(q.name)
	d := digest.Digest(q.rest)
	if d.Validate() != nil {
		if r.tags[q.rest] == "" {
			return fault(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		}
		m.setTag(q, r, q.rest, "")
		return ok(http.StatusAccepted, nil).with("Content-Length", "0")
	}
	if _, there := r.manifests[d]; !there {
		return fault(http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	}
	delete(r.manifests, d)
	m.note(q, Mutation{Kind: "delete", Digest: d})
	for _, tag := range sorted(r.tags) {
		if r.tags[tag] == d {
			m.setTag(q, r, tag, "")
		}
	}
	return ok(http.StatusAccepted, nil).with("Content-Length", "0")
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// tags answers tags/list (distribution-spec, "Listing tags").
func (m *Memory) tags(q *request) *answer {
	if q.r.Method != http.MethodGet && q.r.Method != http.MethodHead {
		return notAllowed()
	}
	r := m.repo(q.name)
	if len(r.manifests) == 0 && len(r.tags) == 0 {
		return fault(http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
	}
	all := map[string]bool{}
	for tag := range r.tags {
		all[tag] = true
	}
	for _, move := range r.moves {
		all[move.tag] = true
	}
	query := q.r.URL.Query()
	list := []string{}
	for _, tag := range sorted(all) {
		if tag > query.Get("last") && r.tagged(tag, q.n-m.opts.LagList) != "" {
			list = append(list, tag)
		}
	}
	size, a := len(list), ok(http.StatusOK, nil).with("Content-Type", "application/json")
	if n := query.Get("n"); n != "" {
		var err error
		if size, err = strconv.Atoi(n); err != nil || size < 0 {
			return fault(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
		}
	}
	if m.opts.PageSize > 0 {
		size = min(size, m.opts.PageSize)
	}
	if size < len(list) {
		list = list[:size]
		if size > 0 {
			a.with("Link", "<"+location("/v2/"+q.name+"/tags/list", url.Values{"last": {list[size-1]}, "n": {strconv.Itoa(size)}})+`>; rel="next"`)
		}
	}
	return a.json(map[string]any{"name": q.name, "tags": list})
}

// json sets the body.
func (a *answer) json(v any) *answer {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // made above
	}
	a.body = append(raw, '\n')
	return a
}

// referrers answers the referrers API (distribution-spec, "Listing referrers").
func (m *Memory) referrers(q *request) *answer {
	d := digest.Digest(q.rest)
	if d.Validate() != nil {
		return fault(http.StatusBadRequest, "DIGEST_INVALID", "invalid digest")
	}
	r := m.repo(q.name)
	filter := q.r.URL.Query().Get("artifactType")
	x := layout.NewIndex()
	byDigest := map[string]manifest{}
	for child, raw := range r.manifests {
		byDigest[string(child)] = raw
	}
	for _, child := range sorted(byDigest) {
		found := byDigest[child]
		doc, err := layout.ParseDocument(ocispec.Descriptor{MediaType: found.mediaType, Digest: digest.Digest(child), Size: int64(len(found.raw))}, found.raw)
		if err != nil || doc.Subject == nil || doc.Subject.Digest != d || filter != "" && doc.ArtifactType != filter {
			continue
		}
		x.Add(ocispec.Descriptor{
			MediaType: found.mediaType, Digest: digest.Digest(child), Size: int64(len(found.raw)),
			ArtifactType: doc.ArtifactType, Annotations: doc.Annotations,
		})
	}
	a := ok(http.StatusOK, x.Bytes()).with("Content-Type", ocispec.MediaTypeImageIndex)
	if filter != "" {
		a.with("OCI-Filters-Applied", "artifactType")
	}
	return a
}

func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}
