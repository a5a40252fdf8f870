package delta

import "sync"

// An output holds what a writer of package compress has written until it is
// read. Such writers write beside their caller, and never more than a few pieces
// ahead, so that it stays small.
type output struct {
	mu sync.Mutex
	b  []byte
	at int // of b, what was read
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.at == len(o.b) {
		o.b, o.at = o.b[:0], 0
	}
	o.b = append(o.b, p...)
	return len(p), nil
}

// read takes what is there, which may be nothing.
func (o *output) read(p []byte) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := copy(p, o.b[o.at:])
	o.at += n
	return n
}
