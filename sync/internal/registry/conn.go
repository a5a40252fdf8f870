package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

const (
	// connBuffer is what a connection reads and writes at once but for the
	// content of uploads. There may be many connections, each of them has two.
	connBuffer = 16 << 10
	// sendBuffer is what is read of content, hashed and sent at once.
	sendBuffer = 256 << 10
)

var sendBuffers = sync.Pool{New: func() any { return new([sendBuffer]byte) }}

// A wideConn sends content in large pieces. net/http reads it by 32 KiB, and what
// comes from a file and is hashed on the way needs two system calls for each
// piece.
type wideConn struct{ net.Conn }

// ReadFrom implements [io.ReaderFrom].
func (c wideConn) ReadFrom(r io.Reader) (n int64, err error) {
	buf, _ := sendBuffers.Get().(*[sendBuffer]byte)
	defer sendBuffers.Put(buf)
	for {
		read, err := r.Read(buf[:])
		if read > 0 {
			written, err := c.Write(buf[:read])
			n += int64(written)
			if err != nil {
				return n, err
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// wide has dial give out connections that send content in large pieces.
func wide(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wideConn{conn}, nil
	}
}
