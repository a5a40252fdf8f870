package registry

import (
	"context"
	"sync"
)

// shared are the clients that [Share] lets be used again.
type shared struct {
	mu      sync.Mutex
	clients map[sharedKey]*Client
	close   []func()
}

type sharedKey struct {
	name           string
	insecure, push bool
}

// Share returns options with which [Open] opens each repository once: who asks
// for it again gets the same client, which is logged in and has its connections.
// Close does nothing to such a client; done ends the connections of all.
func Share(o Options) (_ Options, done func()) {
	s := &shared{clients: map[sharedKey]*Client{}}
	o.shared = s
	return o, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, end := range s.close {
			end()
		}
	}
}

func (s *shared) open(ctx context.Context, e Endpoint, push bool, opts *Options) (*Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := sharedKey{e.Named.Name(), e.Insecure, push}
	if c := s.clients[key]; c != nil {
		return c, nil
	}
	c, err := open(ctx, e, push, opts)
	if err != nil {
		return nil, err
	}
	s.close, c.close = append(s.close, c.close), func() {}
	s.clients[key] = c
	return c, nil
}
