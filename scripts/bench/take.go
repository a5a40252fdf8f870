package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Clients that take a blob. They differ in what they do with the bytes.
const (
	takeDiscard = "discard" // nothing: the kernel counts them and lets them go
	takeHash    = "hash"    // read by 32 KiB and hashed, as those who pull do
)

// take is the process of a client that takes what is at a URL on so many
// connections at once, again and again for some time and to the end of what has
// begun by then, and prints how many
// bytes it got in how many nanoseconds: HOW TIME CONNECTIONS URL. A response
// that is not whole, or that a hash of it finds wrong, is an error.
func take(ctx context.Context, args []string, stdout io.Writer) error {
	how, url := args[0], args[3]
	long, err := time.ParseDuration(args[1])
	connections, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	var sum atomic.Int64
	begin := now()
	end := begin.Add(long)
	g, ctx := errgroup.WithContext(ctx)
	for range connections {
		g.Go(func() error {
			t := taker{how: how, end: end, sum: &sum}
			return t.run(ctx, url)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, sum.Load(), now().Sub(begin).Nanoseconds())
	return err
}

// A taker is one connection.
type taker struct {
	how string
	end time.Time
	sum *atomic.Int64
}

func (t *taker) run(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.URL.Host)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // all was taken
	// A buffer of the size of a header holds little of the body.
	br := bufio.NewReaderSize(c, 1<<10)
	for now().Before(t.end) {
		if err := r.Write(c); err != nil {
			return err
		}
		resp, err := http.ReadResponse(br, r)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || resp.ContentLength <= 0 {
			return fmt.Errorf("%s: %s, %d bytes", url, resp.Status, resp.ContentLength)
		}
		if err := t.body(c.(*net.TCPConn), br, resp); err != nil { //nolint:errcheck // the dialer was told so
			return fmt.Errorf("%s: %w", url, err)
		}
	}
	return nil
}

// body takes a response to its end.
func (t *taker) body(c *net.TCPConn, br *bufio.Reader, resp *http.Response) error {
	left := resp.ContentLength
	if t.how == takeHash {
		_, want, _ := strings.Cut(resp.Request.URL.Path, "sha256:")
		h, buf := sha256.New(), make([]byte, 32<<10)
		for left > 0 {
			n, err := resp.Body.Read(buf)
			h.Write(buf[:n])
			left -= int64(n)
			t.sum.Add(int64(n))
			if err != nil && left > 0 {
				return err
			}
		}
		if have := hex.EncodeToString(h.Sum(nil)); have != want {
			return fmt.Errorf("wrong bytes: sha256 %s", have)
		}
		return nil
	}
	buffered, err := br.Discard(int(min(int64(br.Buffered()), left)))
	left -= int64(buffered)
	t.sum.Add(int64(buffered))
	for err == nil && left > 0 {
		var n int
		n, err = discard(c, min(left, 1<<20))
		left -= int64(n)
		t.sum.Add(int64(n))
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
	}
	return err
}

// A load is what a client got.
type load struct {
	bytes  float64 // per second
	client float64 // CPU time of the client, seconds for each GiB
	server float64 // that of the server
}

// take runs such a client against x.
func (b *bench) take(ctx context.Context, x *contestant, how string, seconds, connections int, url string) (load, error) {
	cmd := exec.CommandContext(ctx, b.self, "peer", "take", how, strconv.Itoa(seconds)+"s", strconv.Itoa(connections), url)
	cmd.Env = b.env
	before := cpuTime(x.cmd)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, oneLine(string(exit.Stderr)))
		}
		return load{}, err
	}
	var bytes, ns float64
	if _, err := fmt.Sscan(string(out), &bytes, &ns); err != nil || bytes == 0 {
		return load{}, fmt.Errorf("%s: nothing was taken: %w", url, err)
	}
	gib := bytes / (1 << 30)
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return load{bytes / ns * 1e9, used.Seconds() / gib, (cpuTime(x.cmd) - before).Seconds() / gib}, nil
}

// whole wants that a server gives out the blob as it is.
func whole(ctx context.Context, url, want string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	h := sha256.New()
	if _, err := io.Copy(h, resp.Body); err != nil {
		return err
	}
	if have := hex.EncodeToString(h.Sum(nil)); resp.StatusCode != http.StatusOK || have != want {
		return fmt.Errorf("%s: %s, sha256 %s", url, resp.Status, have)
	}
	return nil
}
