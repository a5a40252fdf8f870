package serve

import (
	"net"
	"sync"
)

// newListener returns l with no more than limit connections at once: others wait
// in the queue of the kernel.
func newListener(l net.Listener, limit int) net.Listener {
	return &listener{Listener: l, free: make(chan struct{}, limit), done: make(chan struct{})}
}

type listener struct {
	net.Listener
	free chan struct{}
	once sync.Once
	done chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	release := sync.OnceFunc(func() { <-l.free })
	if tcp, ok := c.(*net.TCPConn); ok {
		return &tcpConn{tcp, release}, nil
	}
	return &conn{c, release}, nil
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// A tcpConn keeps ReadFrom, and with it sendfile(2).
type tcpConn struct {
	*net.TCPConn
	release func()
}

func (c *tcpConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}

type conn struct {
	net.Conn
	release func()
}

func (c *conn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
