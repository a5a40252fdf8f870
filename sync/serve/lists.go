package serve

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// maxPage is the most tags or repositories in one answer.
const maxPage = 10_000

// list answers with a part of names, which are sorted (distribution-spec,
// "Listing Tags").
func (c *call) list(names []string, body func(page []string) any) {
	query := c.r.URL.Query()
	n := maxPage
	if text := query.Get("n"); text != "" {
		k, err := strconv.Atoi(text)
		if err != nil || k < 0 {
			c.fail(http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is not a number", map[string]string{"n": text})
			return
		}
		n = min(k, maxPage)
	}
	from := 0
	if last := query.Get("last"); last != "" {
		found := false
		if from, found = slices.BinarySearch(names, last); found {
			from++
		}
	}
	page := names[from:]
	if len(page) > n {
		page = page[:n:n]
		if n > 0 {
			c.link(url.Values{"n": {strconv.Itoa(n)}, "last": {page[n-1]}})
		}
	}
	c.json(body(append([]string{}, page...)))
}

func (c *call) link(query url.Values) {
	next := url.URL{Path: c.r.URL.Path, RawQuery: query.Encode()}
	c.w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}

func (c *call) tags(rep *content.Repo) {
	c.list(rep.TagNames, func(page []string) any {
		return struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{rep.Name, page}
	})
}

func (c *call) catalog() {
	c.list(c.held.Names, func(page []string) any {
		return struct {
			Repositories []string `json:"repositories"`
		}{page}
	})
}
