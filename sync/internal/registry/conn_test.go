package registry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/layout"
)

// A writeCounter is the other end of a pipe: each read sees one write.
type writeCounter struct {
	net.Conn
	writes int
}

func (c *writeCounter) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.writes++
	}
	return n, err
}

// TestWrites counts the writes that an upload takes: one for a small one with its
// header, few for a large one.
func TestWrites(t *testing.T) {
	for _, test := range []struct {
		size, writes int
	}{
		{1, 1},
		{10 << 10, 1},
		{60 << 10, 2},          // what fits in the buffer, and the rest
		{1 << 20, 1 + 4},       // the header, and 256 KiB at once
		{1<<20 + 1, 1 + 4 + 1}, // and the rest
	} {
		client, server := net.Pipe()
		counter := &writeCounter{Conn: server}
		done := make(chan error, 1)
		var got []byte
		go func() {
			done <- func() error {
				req, err := http.ReadRequest(bufio.NewReaderSize(counter, 2<<20))
				if err != nil {
					return err
				}
				if got, err = io.ReadAll(req.Body); err != nil {
					return err
				}
				_, err = io.WriteString(server, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
				return err
			}()
		}()
		base := &http.Transport{
			WriteBufferSize: connBuffer,
			DialContext:     wide(func(context.Context, string, string) (net.Conn, error) { return client, nil }),
		}
		rt := &watcher{base: base, stall: time.Minute}
		content := bytes.Repeat([]byte("x"), test.size)
		// Not of a type that net/http knows to be in memory.
		body := io.MultiReader(bytes.NewReader(content))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://registry.test/v2/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = int64(test.size)
		resp, err := rt.RoundTrip(req)
		if err := errors.Join(err, <-done); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		base.CloseIdleConnections()
		if !bytes.Equal(got, content) {
			t.Errorf("%d bytes: %d other ones arrived", test.size, len(got))
		}
		if counter.writes != test.writes {
			t.Errorf("%d bytes: %d writes, want %d", test.size, counter.writes, test.writes)
		}
	}
}

// TestSmallBodyFails: what cannot be read, or is not as long as it should be, is
// not sent at all.
func TestSmallBodyFails(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		body io.Reader
		want error
	}{
		{io.MultiReader(bytes.NewReader(make([]byte, 5)), failing{broken}), broken},
		{io.MultiReader(bytes.NewReader(make([]byte, 10)), failing{broken}), broken},
		{bytes.NewReader(make([]byte, 9)), io.ErrUnexpectedEOF},
		{bytes.NewReader(make([]byte, 11)), layout.ErrMismatch},
	} {
		sent := false
		rt := &watcher{stall: time.Minute, base: roundTripperFunc(func(*http.Request) (*http.Response, error) {
			sent = true
			return nil, io.EOF
		})}
		body := &closing{Reader: test.body}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://registry.test/v2/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 10
		resp, err := rt.RoundTrip(req)
		if resp != nil {
			_ = resp.Body.Close()
		}
		if !errors.Is(err, test.want) || sent || !body.closed {
			t.Errorf("RoundTrip = %v, want %v; sent %v, closed %v", err, test.want, sent, body.closed)
		}
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// TestAskers: many at once where the registry is far away, few where a connection
// costs more than it saves.
func TestAskers(t *testing.T) {
	for _, test := range []struct {
		answers []time.Duration
		jobs, n int
		want    int
	}{
		{nil, 0, 1000, 4},
		{[]time.Duration{time.Second, 20 * time.Millisecond}, 0, 25, 32},
		{[]time.Duration{20 * time.Millisecond, 300 * time.Microsecond}, 0, 25, 4},
		{[]time.Duration{300 * time.Microsecond}, 0, 200, 10},
		{[]time.Duration{300 * time.Microsecond}, 0, 100000, 32},
		{[]time.Duration{300 * time.Microsecond}, 1, 200, 1},
		{[]time.Duration{time.Second}, 1, 200, 1},
	} {
		c := &Client{opts: &Options{Jobs: test.jobs}}
		for _, d := range test.answers {
			c.answer.see(d)
		}
		if got := c.Askers(test.n); got != test.want {
			t.Errorf("answers after %v, %d jobs: Askers(%d) = %d, want %d", test.answers, test.jobs, test.n, got, test.want)
		}
	}
}
