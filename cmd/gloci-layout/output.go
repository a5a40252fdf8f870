package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
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

// escapeJSON escapes unprintable characters in a JSON text. Outside of strings
// there are none but white space, so the meaning stays.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t' || r == '\r' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

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

// maxText is how much of one line of foreign text reaches a terminal.
const maxText = 4096

// clean returns s without anything that could move a terminal's cursor, forge a
// line or hide text: such characters are shown as Go escapes.
func clean(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	if !strings.ContainsFunc(s, needsEscape) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case needsEscape(r) && r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case needsEscape(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case needsEscape(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

func needsEscape(r rune) bool { return !unicode.IsPrint(r) }

// size shows bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1023.95 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// plural counts things: "1 blob", "2 blobs".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
