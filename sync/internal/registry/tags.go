package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	maxTagPages = 1000
	maxTags     = 100_000
)

// Tags returns the tags of the repository as the registry lists them
// (distribution-spec, "Listing Tags"). An answer that is no such list is
// [layout.ErrInvalid], as something between here and the registry may answer
// 200 to everything.
func (c *Client) Tags(ctx context.Context) (tags []string, err error) {
	err = c.run(ctx, "", func(ctx context.Context) error {
		tags = nil
		next, err := url.Parse(c.url("tags", "list"))
		if err != nil {
			return err
		}
		for range maxTagPages {
			var page []string
			last := ""
			if len(tags) > 0 {
				last = tags[len(tags)-1]
			}
			if page, next, err = c.tagPage(ctx, next); err != nil {
				return err
			}
			for _, tag := range page {
				if !ValidTag(tag) {
					return fmt.Errorf("%w tag %.200q in the registry's list", layout.ErrInvalid, tag)
				}
			}
			if len(page) > 0 && page[len(page)-1] == last {
				return fmt.Errorf("%w list of tags: page ends with %q again", layout.ErrInvalid, last)
			}
			if tags = append(tags, page...); len(tags) > maxTags {
				return fmt.Errorf("%w list of tags: more than %d", layout.ErrInvalid, maxTags)
			}
			if next == nil {
				return nil
			}
		}
		return fmt.Errorf("%w list of tags: more than %d pages", layout.ErrInvalid, maxTagPages)
	})
	return tags, err
}

// tagPage asks for one page and returns the address of the next, or nil.
func (c *Client) tagPage(ctx context.Context, u *url.URL) ([]string, *url.URL, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := c.repo.Client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if resp.StatusCode != http.StatusOK {
		return nil, nil, answered(resp)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, layout.MaxDocument+1))
	if err != nil {
		return nil, nil, err
	}
	var list struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}
	if err := json.Unmarshal(raw, &list); err != nil || list.Name == "" {
		return nil, nil, fmt.Errorf("%w list of tags: the answer is none", layout.ErrInvalid)
	}
	next, err := nextPage(resp)
	return list.Tags, next, err
}

// nextPage reads the Link header (RFC 8288); nil means that this was the last.
func nextPage(resp *http.Response) (*url.URL, error) {
	for _, link := range resp.Header.Values("Link") {
		target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		u, err := resp.Request.URL.Parse(target)
		if err != nil {
			return nil, fmt.Errorf("%w Link header of a list", layout.ErrInvalid)
		}
		if u.Scheme != resp.Request.URL.Scheme || u.Host != resp.Request.URL.Host {
			return nil, fmt.Errorf("%w Link header of a list: it leads to %.100q", layout.ErrInvalid, u.Host)
		}
		return u, nil
	}
	return nil, nil
}

// answered turns an answer into an error.
func answered(resp *http.Response) error {
	e := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	if raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<10)); err == nil && json.Unmarshal(raw, &body) == nil {
		e.Errors = body.Errors
	}
	return e
}
