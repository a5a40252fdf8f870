package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// env is all that a command may touch besides its operands.
type env struct {
	stdout *output   // results only
	stderr io.Writer // progress, warnings, errors
	log    *slog.Logger

	json, quiet, verbose, noProgress bool
}

func (e *env) globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "json", Usage: "print results as JSON, one object per line", Destination: &e.json},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print no progress and no confirmations", Destination: &e.quiet},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "say on stderr what is done", Destination: &e.verbose},
		&cli.BoolFlag{Name: "no-progress", Usage: "print no progress", Destination: &e.noProgress},
	}
}

// setup makes what depends on the global flags.
func (e *env) setup() {
	level := slog.LevelWarn
	if e.verbose {
		level = slog.LevelDebug
	}
	e.log = slog.New(&logHandler{w: e.stderr, level: level, mu: new(sync.Mutex)})
}

// showsProgress tells whether progress is wanted at all.
func (e *env) showsProgress() bool { return !e.quiet && !e.noProgress }

// terminal returns w as a terminal, or nil.
func terminal(w io.Writer) *os.File {
	if o, ok := w.(*output); ok {
		w = o.w
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// sourceDateEpoch returns the time that SOURCE_DATE_EPOCH asks for; the zero
// Time when it is not set. See reproducible-builds.org/specs/source-date-epoch.
func sourceDateEpoch(c *cli.Context) (time.Time, error) {
	s, ok := os.LookupEnv("SOURCE_DATE_EPOCH")
	if !ok || s == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, usagef(c, "SOURCE_DATE_EPOCH is %q, want seconds since 1970", s)
	}
	return time.Unix(n, 0).UTC(), nil
}

// logHandler writes records as single lines for people: "warning: message (key
// value)".
type logHandler struct {
	w      io.Writer
	level  slog.Level
	mu     *sync.Mutex
	prefix string
	attrs  string
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	word := map[slog.Level]string{slog.LevelWarn: "warning: ", slog.LevelError: "error: "}[r.Level]
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs += h.attr(a)
		return true
	})
	line := clean(word + r.Message)
	if attrs != "" {
		line += " (" + strings.TrimPrefix(attrs, ", ") + ")"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintln(h.w, line)
	return err
}

func (h *logHandler) attr(a slog.Attr) string {
	return fmt.Sprintf(", %s%s %s", h.prefix, clean(a.Key), clean(a.Value.Resolve().String()))
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		c.attrs += h.attr(a)
	}
	return &c
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.prefix += name + "."
	return &c
}
