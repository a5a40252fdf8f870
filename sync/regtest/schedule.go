package regtest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/opencontainers/go-digest"
)

// ErrCrashed is what a client gets for every request after [Scheduler.Crash].
var ErrCrashed = errors.New("the client is dead")

// A Scheduler holds each request of some clients until it is told to let one
// go, so that a test can walk through the ways in which they may interleave.
// Each client sends one request at a time, and does nothing in between that
// depends on anything but the answers.
type Scheduler struct {
	m       *Memory
	mu      sync.Mutex
	changed *sync.Cond
	clients []*scheduled
}

type scheduled struct {
	pending *held
	ended   bool
	crashed bool
	seen    []byte // hash of all requests and answers
}

type held struct {
	r     *http.Request
	body  []byte
	reply chan reply
}

type reply struct {
	resp *http.Response
	err  error
}

// Schedule returns a scheduler of so many clients of m.
func (m *Memory) Schedule(clients int) *Scheduler {
	s := &Scheduler{m: m}
	s.changed = sync.NewCond(&s.mu)
	for range clients {
		s.clients = append(s.clients, &scheduled{})
	}
	return s
}

// Transport is how client i reaches the registry.
func (s *Scheduler) Transport(i int) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		h := &held{r: r, reply: make(chan reply, 1)}
		if r.Body != nil {
			var err error
			if h.body, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
			_ = r.Body.Close() // all of it was read
		}
		s.mu.Lock()
		c := s.clients[i]
		if c.crashed {
			s.mu.Unlock()
			return nil, ErrCrashed
		}
		if c.pending != nil || c.ended {
			s.mu.Unlock()
			return nil, fmt.Errorf("client %d sends two requests at once, or one after its end", i)
		}
		c.pending = h
		s.changed.Broadcast()
		s.mu.Unlock()
		answer := <-h.reply
		return answer.resp, answer.err
	})
}

// End tells that client i has returned. The test calls it from the client's
// goroutine.
func (s *Scheduler) End(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[i].ended = true
	s.changed.Broadcast()
}

// Waiting returns the clients that have a request, once every client has one or
// has ended. None means that all have ended.
func (s *Scheduler) Waiting() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var ready []int
		busy := false
		for i, c := range s.clients {
			switch {
			case c.ended:
			case c.pending != nil:
				ready = append(ready, i)
			default:
				busy = true
			}
		}
		if !busy {
			return ready
		}
		s.changed.Wait()
	}
}

// Pending returns the request that client i waits with.
func (s *Scheduler) Pending(i int) *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients[i].pending.r
}

// Local tells whether the request that client i waits with neither changes what
// others may see nor depends on what they do: one that asks for content by its
// digest, where that is there for good.
func (s *Scheduler) Local(i int) bool { return s.m.local(s.Pending(i)) }

// Step carries out the request of client i.
func (s *Scheduler) Step(i int) {
	s.mu.Lock()
	c := s.clients[i]
	h := c.pending
	s.mu.Unlock()
	h.r.Body = io.NopCloser(&wholeBody{h.body})
	a := s.m.answer(h.r)
	resp, err := a.response(h.r)
	sum := sha256.New()
	sum.Write(c.seen)
	sum.Write(fmt.Appendf(nil, "%s %s?%s %s %d %t %s %s\n", h.r.Method, h.r.URL.Path, h.r.URL.RawQuery, digest.FromBytes(h.body), a.status, a.drop,
		a.header.Get("Docker-Content-Digest"), digest.FromBytes(a.body)))
	s.mu.Lock()
	defer s.mu.Unlock()
	c.seen, c.pending = sum.Sum(nil), nil
	h.reply <- reply{resp, err}
}

// Crash kills client i: the request that it waits with, and all after it, are
// not carried out.
func (s *Scheduler) Crash(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clients[i]
	c.crashed = true
	c.seen = []byte("crashed")
	if c.pending != nil {
		c.pending.reply <- reply{nil, ErrCrashed}
		c.pending = nil
	}
}

// State is the same in two runs if, and only if, what is to come may be the
// same: it stands for what the registry has and for all that each client has
// seen.
func (s *Scheduler) State() string {
	sum := sha256.New()
	s.m.mu.Lock()
	s.m.hashState(sum)
	s.m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		sum.Write(fmt.Appendf(nil, "%x %t\n", c.seen, c.crashed))
	}
	return string(sum.Sum(nil))
}
