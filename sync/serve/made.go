package serve

import (
	"context"
	"errors"

	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// sendMade sends what only its source can read, such as what a patch makes. It is
// made once, into a file, and sent from there; a large blob while it is made. Where
// there is no room for that, it is made for this request.
func (c *call) sendMade(ctx context.Context, p reply) error {
	m := c.s.content.Make(c.held, p.b)
	if m == nil {
		return c.sendSource(ctx, p)
	}
	defer m.Release()
	err := c.sendMaking(ctx, p, m)
	if !errors.Is(err, content.ErrNoRoom) {
		return err
	}
	p.start, p.length = p.start+c.bytes, p.length-c.bytes // goes on where it was
	return c.sendSource(ctx, p)
}

func (c *call) sendMaking(ctx context.Context, p reply, m *content.Making) error {
	follow := func() error { return c.stream(p, m.Reader(ctx, p.start, p.length), p.start) }
	if p.b.Size > c.s.opts.VerifyLimit && !m.Whole() {
		return c.waiting(follow) // for the first bytes
	}
	if err := c.waiting(func() error { return m.Wait(ctx) }); err != nil {
		return err
	}
	f, err := m.Files()
	if errors.Is(err, errors.ErrUnsupported) {
		return follow()
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	return c.sendFiles(p, f)
}

// sendSource sends what the source reads, and makes, for this request alone.
func (c *call) sendSource(ctx context.Context, p reply) error {
	rc, err := p.b.Open(ctx)
	if err != nil {
		return err
	}
	err = c.stream(p, rc, 0)
	if err == nil {
		c.s.content.Counters.Verified.Add(1)
		c.s.content.Counters.VerifiedBytes.Add(p.b.Size)
	}
	return errors.Join(err, rc.Close())
}
