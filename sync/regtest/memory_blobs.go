package regtest

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// upload answers below blobs/uploads/ (distribution-spec, "Pushing blobs").
func (m *Memory) upload(q *request) *answer {
	r := m.repo(q.name)
	if q.r.Method == http.MethodPost && q.rest == "" {
		query := q.r.URL.Query()
		if d := digest.Digest(query.Get("mount")); d.Validate() == nil {
			from := q.name
			if f := query.Get("from"); f != "" {
				from = f
			}
			if data, there := m.repo(from).blobs[d]; there && query.Get("from") != "" {
				if _, have := r.blobs[d]; !have {
					r.blobs[d] = data
					m.note(q, Mutation{Kind: "blob", Digest: d})
				}
				return created("/v2/"+q.name+"/blobs/"+d.String(), d)
			}
		}
		m.uploads++
		id := fmt.Sprintf("upload-%d", m.uploads)
		r.uploads[id] = []byte{}
		return m.uploading(q, id).with("Range", "0-0")
	}
	data, there := r.uploads[q.rest]
	if !there {
		return fault(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
	}
	switch q.r.Method {
	case http.MethodGet:
		a := m.uploading(q, q.rest)
		a.status = http.StatusNoContent
		return a.with("Range", rangeOf(len(data)))
	case http.MethodPatch:
		if a := checkStart(q, len(data)); a != nil {
			return a
		}
		r.uploads[q.rest] = append(data, q.body...)
		return m.uploading(q, q.rest).with("Range", rangeOf(len(data)+len(q.body)))
	case http.MethodPut:
		return m.finish(q, r, append(data, q.body...))
	case http.MethodDelete:
		delete(r.uploads, q.rest)
		return ok(http.StatusNoContent, nil)
	}
	return notAllowed()
}

// finish makes a blob of an upload.
func (m *Memory) finish(q *request, r *repo, data []byte) *answer {
	d, err := digest.Parse(q.r.URL.Query().Get("digest"))
	if err != nil {
		return fault(http.StatusBadRequest, "DIGEST_INVALID", "digest missing or invalid")
	}
	if a := checkStart(q, len(data)-len(q.body)); a != nil {
		return a
	}
	delete(r.uploads, q.rest)
	if d.Algorithm().FromBytes(data) != d {
		return fault(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
	}
	if _, have := r.blobs[d]; !have {
		r.blobs[d] = data
		m.note(q, Mutation{Kind: "blob", Digest: d})
	}
	return created("/v2/"+q.name+"/blobs/"+d.String(), d)
}

// checkStart refuses a chunk that does not begin where the last has ended.
func checkStart(q *request, at int) *answer {
	span := q.r.Header.Get("Content-Range")
	if span == "" {
		return nil
	}
	from, to, found := strings.Cut(span, "-")
	start, err := strconv.Atoi(from)
	end, endErr := strconv.Atoi(to)
	if !found || err != nil || endErr != nil || start != at || end-start+1 != len(q.body) {
		return fault(http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", "invalid content range")
	}
	return nil
}

func (m *Memory) uploading(q *request, id string) *answer {
	return ok(http.StatusAccepted, nil).with("Location", location("/v2/"+q.name+"/blobs/uploads/"+id, url.Values{"state": {"0"}})).
		with("Docker-Upload-UUID", id).with("Content-Length", "0")
}

func rangeOf(n int) string { return fmt.Sprintf("0-%d", max(0, n-1)) }

func created(path string, d digest.Digest) *answer {
	return ok(http.StatusCreated, nil).with("Location", location(path, nil)).with("Docker-Content-Digest", d.String()).with("Content-Length", "0")
}

func notAllowed() *answer {
	return fault(http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.")
}

// blob answers below blobs/ (distribution-spec, "Pulling blobs").
func (m *Memory) blob(q *request) *answer {
	d, err := digest.Parse(q.rest)
	if err != nil {
		return fault(http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
	}
	r := m.repo(q.name)
	data, there := r.blobs[d]
	switch q.r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodDelete:
		if !m.opts.Delete {
			return notAllowed()
		}
		if !there {
			return fault(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		}
		delete(r.blobs, d)
		m.note(q, Mutation{Kind: "delete", Digest: d})
		return ok(http.StatusAccepted, nil).with("Content-Length", "0")
	default:
		return notAllowed()
	}
	if !there {
		return fault(http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
	}
	if m.opts.Redirect && q.r.Method == http.MethodGet {
		return ok(http.StatusTemporaryRedirect, nil).with("Location", m.elsewhere+"/storage/"+q.name+"/"+d.String()+"?signature=secret")
	}
	return serveBlob(q.r, d, data)
}

// serveBlob gives out data, or the part that the Range of r asks for.
func serveBlob(r *http.Request, d digest.Digest, data []byte) *answer {
	a := ok(http.StatusOK, data).with("Content-Type", "application/octet-stream").with("Docker-Content-Digest", d.String()).
		with("Etag", `"`+d.String()+`"`).with("Accept-Ranges", "bytes").with("Cache-Control", "max-age=31536000")
	span, found := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !found {
		return a
	}
	from, to, _ := strings.Cut(span, "-")
	start, err := strconv.Atoi(from)
	end := len(data) - 1
	if to != "" {
		if n, toErr := strconv.Atoi(to); toErr == nil {
			end = min(end, n)
		}
	}
	if err != nil || start > end {
		a.status, a.body = http.StatusRequestedRangeNotSatisfiable, []byte("invalid range: failed to overlap\n")
		a.header.Del("Etag")
		a.header.Del("Accept-Ranges")
		return a.with("Content-Type", "text/plain; charset=utf-8").with("Content-Range", fmt.Sprintf("bytes */%d", len(data)))
	}
	a.status, a.body = http.StatusPartialContent, data[start:end+1]
	return a.with("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end, len(data)))
}

// other answers at the other origin, where blobs are. Whoever brings
// credentials there has leaked them.
func (m *Memory) other(n int, r *http.Request) *answer {
	if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
		m.leaks = append(m.leaks, m.requests[n-1])
	}
	name, hex, found := cutLast(strings.TrimPrefix(r.URL.Path, "/storage/"), "/")
	data, there := m.repo(name).blobs[digest.Digest(hex)]
	if !found || !there || r.URL.Query().Get("signature") != "secret" {
		return ok(http.StatusForbidden, nil)
	}
	return serveBlob(r, digest.Digest(hex), data)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Leaks returns the requests that have brought credentials to the other origin.
func (m *Memory) Leaks() []Request {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Request{}, m.leaks...)
}
