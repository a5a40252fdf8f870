package serve

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
)

const (
	// nearBuffer is how much of a file is copied at once to a client on this
	// machine.
	nearBuffer = 256 << 10 // 256 KiB
	// maxNear is how many such copies go on at once: memory stays flat.
	maxNear = 16
)

// nearBuffers are those that are in use, and some that are not.
type nearBuffers struct {
	used chan struct{}
	free chan []byte
}

func newNearBuffers() nearBuffers {
	return nearBuffers{make(chan struct{}, maxNear), make(chan []byte, maxNear)}
}

// take returns nil if all are in use.
func (b nearBuffers) take() []byte {
	select {
	case b.used <- struct{}{}:
	default:
		return nil
	}
	select {
	case buf := <-b.free:
		return buf
	default:
		return make([]byte, nearBuffer)
	}
}

func (b nearBuffers) put(buf []byte) {
	b.free <- buf
	<-b.used
}

// copy sends n bytes of f, from where it stands, and returns how many it did.
//
// A client elsewhere gets them by sendfile(2), on a plain connection: that takes
// the least time of this machine's processors. A client on this machine would
// have to fetch them out of the page cache then, page by page, which takes it
// longer than a copy takes here (docs/benchmarks.md): it gets them by read(2) and
// write(2).
func (c *call) copy(f *os.File, n int64) (sent int64, err error) {
	if !c.s.isNear(c.r) {
		return io.Copy(c.w, &io.LimitedReader{R: f, N: n}) // by the ReadFrom of the writer
	}
	buf := c.s.near.take()
	if buf == nil {
		return io.Copy(c.w, &io.LimitedReader{R: f, N: n})
	}
	defer c.s.near.put(buf)
	for sent < n {
		k, err := f.Read(buf[:min(n-sent, nearBuffer)])
		if k > 0 {
			k, err := c.w.Write(buf[:k])
			sent += int64(k)
			if err != nil {
				return sent, err
			}
		}
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// isNear tells whether a request comes from this machine.
func isNear(r *http.Request) bool {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	if remote.Addr().IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap() == remote.Addr().Unmap()
}
