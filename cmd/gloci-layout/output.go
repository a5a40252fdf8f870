package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/gardenlinux/gloci-layout/layout/show"
)

// output is stdout, buffered until run ends. It remembers the first error, so
// that no lost result ends with status 0 even where a library does not look.
type output struct {
	w   io.Writer
	buf bytes.Buffer
	err error
}

// maxBuffered is how much output waits for more.
const maxBuffered = 64 << 10 // 64 KiB

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	o.buf.Write(p)
	if o.buf.Len() >= maxBuffered {
		o.flush()
	}
	return len(p), o.err
}

// flush writes what waits.
func (o *output) flush() {
	if o.err == nil && o.buf.Len() > 0 {
		_, o.err = o.w.Write(o.buf.Bytes())
		o.buf.Reset()
	}
}

// emit prints a result: v under --json, else text.
func (e *env) emit(v any, format string, args ...any) error {
	if e.json {
		return e.emitJSON(v)
	}
	_, err := io.WriteString(e.stdout, clean(fmt.Sprintf(format, args...))+"\n")
	return err
}

// confirm is emit for what a command did, which --quiet need not hear.
func (e *env) confirm(v any, format string, args ...any) error {
	if e.quiet && !e.json {
		return nil
	}
	return e.emit(v, format, args...)
}

func (e *env) emitJSON(v any) error {
	b, err := marshalJSON(v)
	if err != nil {
		return err
	}
	_, err = e.stdout.Write(append(b, '\n'))
	return err
}

// marshalJSON writes v on one line, as ASCII where a terminal could be moved
// by it.
func marshalJSON(v any) ([]byte, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return []byte(escapeJSON(strings.TrimSuffix(b.String(), "\n"))), nil
}

// escapeJSON is [show.JSON].
func escapeJSON(s string) string { return show.JSON(s) }

// A row is a result that has its line in a table.
type row interface{ columns() []string }

// table prints rows under a heading, aligned; under --json one object per line.
func table[T row](e *env, heading []string, rows []T) error {
	if e.json {
		for _, r := range rows {
			if err := e.emitJSON(r); err != nil {
				return err
			}
		}
		return nil
	}
	lines := make([][]string, 0, len(rows)+1)
	lines = append(lines, heading)
	for _, r := range rows {
		lines = append(lines, r.columns())
	}
	_, err := e.stdout.Write(align(lines))
	return err
}

// align makes lines of equal numbers of cells, each column as wide as its widest
// cell and two blanks. The last column has no blanks behind it.
func align(lines [][]string) []byte {
	var widths []int
	total := 0
	for _, cells := range lines {
		for i, cell := range cells {
			if cell = clean(cell); cell == "" {
				cell = "-"
			}
			cells[i] = cell
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			total += len(cell) + 2
		}
	}
	out := make([]byte, 0, 2*total)
	for _, cells := range lines {
		for i, cell := range cells {
			out = append(out, cell...)
			if i == len(cells)-1 {
				break
			}
			for range widths[i] + 2 - utf8.RuneCountInString(cell) {
				out = append(out, ' ')
			}
		}
		out = append(out, '\n')
	}
	return out
}

// clean is [show.Clean]: foreign text for a terminal.
func clean(s string) string { return show.Clean(s) }

// size is [show.Size].
func size(n int64) string { return show.Size(n) }

// plural is [show.Plural].
func plural(n int, thing string) string { return show.Plural(n, thing) }
