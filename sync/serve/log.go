package serve

import (
	"context"
	"log/slog"
)

// done counts and logs the request. broken is what the handler panicked with.
func (c *call) done(broken any) {
	took := now().Sub(c.start)
	c.s.metrics.count(c.route, c.r.Method, c.status, c.bytes, took)
	access := c.s.opts.Access
	if access == nil {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs,
		slog.String("remote", c.r.RemoteAddr),
		slog.String("method", short(c.r.Method)),
		slog.String("path", short(c.r.URL.RequestURI())),
		slog.Int("status", c.status),
		slog.Int64("bytes", c.bytes),
		slog.Duration("took", took),
	)
	if agent := c.r.UserAgent(); agent != "" {
		attrs = append(attrs, slog.String("agent", short(agent)))
	}
	if c.user != "" {
		attrs = append(attrs, slog.String("user", short(c.user)))
	}
	if broken != nil {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	if c.err != nil {
		attrs = append(attrs, slog.String("error", c.err.Error()))
	}
	access.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

// short bounds what a client can put into one line of the log.
func short(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
