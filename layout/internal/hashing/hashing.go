// Package hashing hashes a stream beside whoever writes it.
package hashing

import "github.com/opencontainers/go-digest"

const (
	chunk  = 256 << 10 // 256 KiB
	chunks = 12        // enough that neither side waits for the other
)

// A Hasher hashes in a goroutine of its own, with sha256.
type Hasher struct {
	free chan []byte
	full chan []byte // nil asks for the digest of what came since the last
	sums chan digest.Digest
	cur  []byte
}

// New starts a hasher. Stop must be called.
func New() *Hasher {
	h := &Hasher{free: make(chan []byte, chunks), full: make(chan []byte, chunks+1), sums: make(chan digest.Digest)}
	for range chunks {
		h.free <- nil // made when it is needed
	}
	go func() {
		defer close(h.sums)
		digester := digest.SHA256.Digester()
		for b := range h.full {
			if b == nil {
				h.sums <- digester.Digest()
				digester = digest.SHA256.Digester()
				continue
			}
			digester.Hash().Write(b)
			h.free <- b[:0]
		}
	}()
	return h
}

// Write takes a copy of p. It returns no error.
func (h *Hasher) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if h.cur == nil {
			if h.cur = <-h.free; h.cur == nil {
				h.cur = make([]byte, 0, chunk)
			}
		}
		k := min(len(p), cap(h.cur)-len(h.cur))
		h.cur = append(h.cur, p[:k]...)
		p = p[k:]
		if len(h.cur) == cap(h.cur) {
			h.flush()
		}
	}
	return n, nil
}

func (h *Hasher) flush() {
	h.full <- h.cur
	h.cur = nil
}

// Sum returns the digest of what was written since the last Sum.
func (h *Hasher) Sum() digest.Digest {
	if h.cur != nil {
		h.flush()
	}
	h.full <- nil
	return <-h.sums
}

// Stop ends the goroutine. The hasher is of no use any more.
func (h *Hasher) Stop() { close(h.full) }
