// Package show makes text of what layouts have, for people to read: names,
// sizes and values of strangers, in which nothing can move a cursor, forge a
// line, hide what follows or turn it around.
package show

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gardenlinux/gloci-layout/layout"
)

// MaxText is how much of one line of foreign text is shown, in bytes.
const MaxText = 4096

// Clean returns s with Go escapes in the place of bytes that are no UTF-8 and of
// characters that do not print: controls, line ends, marks of direction. What
// is longer than [MaxText] is cut, and ends in "...".
func Clean(s string) string {
	if len(s) > MaxText {
		s = strings.ToValidUTF8(s[:MaxText], "") + "..."
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

// JSON escapes unprintable characters in a JSON text, but for line ends and
// tabs. Outside of strings there are none but white space, so the meaning stays.
func JSON(s string) string {
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

// Quoted shows a name so that it cannot be taken for something else: in quotes,
// with escapes, unless it is plain.
func Quoted(s string) string {
	if len(s) > MaxText {
		s = s[:MaxText] + "..."
	}
	for _, r := range s {
		if r <= ' ' || r == '"' || r == '\\' || r == '\ufffd' || needsEscape(r) {
			return strconv.Quote(s)
		}
	}
	return cmp.Or(s, `""`)
}

// Size shows bytes: "1023 B", "1.5 MiB".
func Size(n int64) string {
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

// Plural counts things: "1 blob", "2 blobs".
func Plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Kind is one word for what a document is: index, image or artifact.
func Kind(doc *layout.Document) string {
	switch {
	case doc.IsIndex:
		return "index"
	case doc.IsImage():
		return "image"
	default:
		return "artifact"
	}
}
