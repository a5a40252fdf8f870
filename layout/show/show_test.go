package show_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/gardenlinux/gloci-layout/layout/show"
)

// Whatever comes in, what comes out prints and stands on one line.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "größe", "a\x1b[2Kb", "left\u202eto", "\xff\x00", "\U000e0001", strings.Repeat("x", 5000), "</script>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, have := range map[string]string{"Clean": show.Clean(s), "Quoted": show.Quoted(s)} {
			if !utf8.ValidString(have) || strings.ContainsFunc(have, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s(%q) = %q", name, s, have)
			}
		}
	})
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1048524: "1023.9 KiB", 1048525: "1.0 MiB", 5 << 30: "5.0 GiB"} {
		if have := show.Size(n); have != want {
			t.Errorf("Size(%d) = %q, want %q", n, have, want)
		}
	}
}

func TestJSON(t *testing.T) {
	have, want := show.JSON("{\"a\":\t\"\u202e\U000e0001ü\"}\n"), "{\"a\":\t\"\\u202e\\udb40\\udc01ü\"}\n"
	if have != want {
		t.Errorf("have %q, want %q", have, want)
	}
}
