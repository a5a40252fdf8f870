package regtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// A Client is a program that sends one request at a time, and whose next request
// depends on nothing but the answers to those before. So what it does is a tree,
// of which each branch has to be run once, however many states of the registry
// lead there. A Client may not be shared between goroutines.
type Client struct {
	run   func(http.RoundTripper) error
	root  *Turn
	live  *session
	turns int
	// Runs is how often the program was started.
	Runs int
}

// A Turn is where a client stands after certain answers: it waits with a request,
// or has ended.
type Turn struct {
	// ID tells the turns of one client apart.
	ID int
	// Ended tells that the client has returned, with Err.
	Ended bool
	Err   error

	client *Client
	parent *Turn
	answer *answer // that led here from parent
	r      *http.Request
	body   []byte
	next   map[[sha256.Size]byte]*Turn
}

// NewClient returns a client that run is, with the transport that it gets.
func NewClient(run func(http.RoundTripper) error) *Client { return &Client{run: run} }

// Start returns the turn that begins everything.
func (c *Client) Start() (*Turn, error) {
	if c.root != nil {
		return c.root, nil
	}
	err := c.restart()
	if err == nil {
		c.root, err = c.turn(nil, nil)
	}
	return c.root, err
}

// Kill ends a run that is under way. It returns an error if the client, dead,
// says that all is well. To be called at the end.
func (c *Client) Kill() error {
	s := c.live
	if c.live = nil; s == nil || s.at != nil && s.at.Ended {
		return nil
	}
	close(s.dead)
	for a := range s.asked {
		if a.ended && a.err == nil {
			return errors.New("the client was killed and says that all is well")
		}
	}
	return nil
}

// A session is one run of the program.
type session struct {
	at    *Turn
	asked chan asked
	reply chan *answer
	dead  chan struct{}
}

type asked struct {
	r     *http.Request
	body  []byte
	ended bool
	err   error
}

func (c *Client) restart() error {
	if err := c.Kill(); err != nil {
		return err
	}
	s := &session{asked: make(chan asked), reply: make(chan *answer), dead: make(chan struct{})}
	c.live = s
	c.Runs++
	var one sync.Mutex
	go func() {
		defer close(s.asked)
		err := c.run(roundTripper(func(r *http.Request) (*http.Response, error) {
			if !one.TryLock() {
				return nil, errors.New("two requests at once")
			}
			defer one.Unlock()
			var body []byte
			if r.Body != nil {
				var err error
				if body, err = io.ReadAll(r.Body); err != nil {
					return nil, err
				}
				_ = r.Body.Close() // all of it was read
			}
			select {
			case <-s.dead:
				return nil, ErrCrashed
			case s.asked <- asked{r: r, body: body}:
			}
			select {
			case <-s.dead:
				return nil, ErrCrashed
			case a := <-s.reply:
				return a.response(r)
			}
		}))
		s.asked <- asked{ended: true, err: err}
	}()
	return nil
}

// turn takes what the live run asks after the answer to parent.
func (c *Client) turn(parent *Turn, a *answer) (*Turn, error) {
	next := <-c.live.asked
	t := &Turn{ID: c.turns, client: c, parent: parent, answer: a, r: next.r, body: next.body, Ended: next.ended, Err: next.err, next: map[[sha256.Size]byte]*Turn{}}
	c.turns++
	c.live.at = t
	return t, nil
}

// seek has a run stand at t.
func (c *Client) seek(t *Turn) error {
	if c.live != nil && c.live.at == t {
		return nil
	}
	if err := c.restart(); err != nil {
		return err
	}
	var path []*Turn
	for at := t; at != nil; at = at.parent {
		path = append(path, at)
	}
	slices.Reverse(path)
	for i, at := range path {
		if i > 0 {
			c.live.reply <- at.answer
		}
		got := <-c.live.asked
		if got.ended != at.Ended || !at.Ended && (got.r.Method != at.r.Method || got.r.URL.String() != at.r.URL.String() || !bytes.Equal(got.body, at.body)) {
			return fmt.Errorf("the client does something else after the same answers: request %d", i)
		}
		c.live.at = at
	}
	return nil
}

// Request returns the request that the client waits with.
func (t *Turn) Request() *http.Request { return t.r }

// Answer has m carry out the request, and returns where the client stands then.
func (t *Turn) Answer(m *Memory) (*Turn, error) {
	r := t.r.Clone(t.r.Context())
	r.Body = io.NopCloser(&wholeBody{t.body})
	a := m.answer(r)
	h := sha256.New()
	h.Write(fmt.Appendf(nil, "%d %t %q %q %q ", a.status, a.drop, a.header.Get("Docker-Content-Digest"), a.header.Get("Content-Type"), a.header.Get("Location")))
	h.Write(a.body)
	key := [sha256.Size]byte(h.Sum(nil))
	if next := t.next[key]; next != nil {
		return next, nil
	}
	if err := t.client.seek(t); err != nil {
		return nil, err
	}
	t.client.live.reply <- a
	next, err := t.client.turn(t, a)
	t.next[key] = next
	return next, err
}

// Local tells whether the request neither changes what others may see nor depends
// on what they do: one that asks for content by its digest, where that is there
// for good.
func (t *Turn) Local(m *Memory) bool { return !t.Ended && m.local(t.r) }

func (m *Memory) local(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	name, d, found := cutLast(r.URL.Path, "/")
	if !found || digest.Digest(d).Validate() != nil || strings.Contains(name, "/referrers") {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, repo := range m.repos {
		if _, have := repo.manifests[digest.Digest(d)]; have {
			return true
		}
		if _, have := repo.blobs[digest.Digest(d)]; have {
			return true
		}
	}
	return false
}

// Fork returns a registry in the same state, uploads that have begun included,
// without requests, history or faults.
func (m *Memory) Fork() *Memory {
	c := m.Clone()
	m.mu.Lock()
	defer m.mu.Unlock()
	c.uploads = m.uploads
	for name, r := range m.repos {
		to := maps.Clone(r.uploads)
		for id, data := range to {
			to[id] = slices.Clone(data)
		}
		c.repo(name).uploads = to
	}
	return c
}

// State is the same for two registries if, and only if, they answer the same.
func (m *Memory) State() [sha256.Size]byte {
	h := sha256.New()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hashState(h)
	return [sha256.Size]byte(h.Sum(nil))
}
