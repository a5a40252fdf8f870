package main

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
)

// A certificate is the pair of files that a server shows, read again when it is
// told to.
type certificate struct {
	cert, key string
	now       atomic.Pointer[tls.Certificate]
}

func (p *certificate) reload() error {
	if p.cert == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("certificate %s, key %s: %w", p.cert, p.key, err)
	}
	p.now.Store(&pair)
	return nil
}

func (p *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.now.Load(), nil }
