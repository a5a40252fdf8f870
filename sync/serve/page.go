package serve

import (
	"context"
	"net/http"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// A Repository is what there is to see of one source.
type Repository struct {
	Name   string        // the repository that holds all of it, unique unless sources share it
	Source layout.Source // as it was when it was loaded: its index.json does not change
}

type repositoriesKey struct{}

// Repositories returns what the registry served when the request that ctx
// belongs to came in, in the order of [Options].Sources. It may be used until
// the handler of that request returns. Other contexts have none.
func Repositories(ctx context.Context) []Repository {
	held, _ := ctx.Value(repositoriesKey{}).(*content.Set)
	if held == nil {
		return nil
	}
	var repos []Repository
	for name, src := range held.Sources {
		repos = append(repos, Repository{name, src})
	}
	return repos
}

// page lets the page answer, and sees what it sends.
func (c *call) page() {
	w := &pageWriter{ResponseWriter: c.w, c: c}
	ctx := context.WithValue(c.r.Context(), repositoriesKey{}, c.held)
	c.s.opts.Page.ServeHTTP(w, c.r.WithContext(ctx))
	if c.status == 0 {
		c.status = http.StatusOK
	}
}

// A pageWriter sees what a page sends.
type pageWriter struct {
	http.ResponseWriter
	c *call
}

func (w *pageWriter) WriteHeader(status int) {
	if w.c.status == 0 {
		w.c.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *pageWriter) Write(p []byte) (int, error) {
	if w.c.status == 0 {
		w.c.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.c.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *pageWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
