package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/cmd/gloci-layout/internal/cmdline"
	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/gardenlinux"
)

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain größe 日本":          "plain größe 日本",
		"\x1b[31mred":             `\x1b[31mred`,
		"two\nlines\r\tx":         `two\x0alines\x0d\x09x`,
		"\u009b31m":               `\u009b31m`,
		"right\u202eleft":         `right\u202eleft`,
		"\U000e0041":              `\U000e0041`,
		"\xff\xfe":                `\xff\xfe`,
		"del\x7f":                 `del\x7f`,
		"":                        "",
		strings.Repeat("a", 5000): strings.Repeat("a", 4096) + "...",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOf(rapid.Byte()).Draw(t, "in"))
		if got := clean(in); !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("clean(%q) = %q", in, got)
		}
	})
}

// What is printed as JSON is harmless on a terminal and means the same.
func TestMarshalJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := map[string]string{rapid.String().Draw(t, "key"): rapid.String().Draw(t, "value") + "\u009b\U000e0041<&>"}
		b, err := marshalJSON(in)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q holds what does not print", b)
		}
		var out map[string]string
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		for k, v := range in {
			if out[k] != v {
				t.Fatalf("%q came back as %q by %s", in, out, b)
			}
		}
	})
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB",
		5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{errors.New("anything"), 2},
		{syscall.ENOSPC, 2},
		{layout.ErrReadOnly, 2},
		{fmt.Errorf("%w: %w", layout.ErrNotLayout, fs.ErrNotExist), 2},
		{layout.ErrNotFound, 3},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, 3},
		{gardenlinux.ErrMissing, 3},
		{&layout.AmbiguousError{What: "x"}, 4},
		{layout.ErrMismatch, 5},
		{layout.ErrInvalid, 5},
		{gardenlinux.ErrRelease, 5},
		{compress.ErrCorrupt, 5},
		{layout.ErrConflict, 6},
		{layout.ErrUnsafe, 6},
		{layout.ErrExists, 6},
		{gardenlinux.ErrDisagree, 6},
		{&cmdline.UsageError{Msg: "x"}, 64},
		{errInterrupted, 130},
		{context.Canceled, 130},
	} {
		for _, err := range []error{tt.err, fmt.Errorf("a: %w", layout.WithHint(tt.err, "do it"))} {
			if got := exitStatus(err); got != tt.want {
				t.Errorf("exitStatus(%v) = %d, want %d", err, got, tt.want)
			}
		}
	}
}

func TestReport(t *testing.T) {
	var b strings.Builder
	e := &env{stderr: &b}
	e.report(layout.WithHint(errors.New("first \x1b[2J\nsecond\n  third"), "try\nthis"))
	const want = "gloci-layout: first \\x1b[2J\n  second\n  third\nhint: try\\x0athis\n"
	if b.String() != want {
		t.Errorf("report wrote %q, want %q", b.String(), want)
	}
}

func TestLog(t *testing.T) {
	var b strings.Builder
	e := &env{stderr: &b}
	e.setup()
	e.log.Debug("not told")
	e.log.With("layout", "x").WithGroup("g").Warn("odd \x1b", slog.Int("n", 3), slog.Any("err", errors.New("bad\rluck")))
	e.verbose = true
	e.setup()
	e.log.Debug("told")
	const want = "warning: odd \\x1b (layout x, g.n 3, g.err bad\\x0dluck)\ntold\n"
	if b.String() != want {
		t.Errorf("log wrote %q, want %q", b.String(), want)
	}
}

// A result that is lost is no success, and a reader who has seen enough gets no
// complaint.
func TestOutputErrors(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full")
	}
	defer full.Close()
	var stderr strings.Builder
	if got := run([]string{"gloci-layout", "version"}, full, &stderr); got != exitFailed || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("version > /dev/full: exit status %d, %q", got, stderr.String())
	}
	stderr.Reset()
	if got := run([]string{"gloci-layout", "--help"}, full, &stderr); got != exitFailed {
		t.Errorf("--help > /dev/full: exit status %d, %q", got, stderr.String())
	}
	stderr.Reset()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	if got := run([]string{"gloci-layout", "version"}, w, &stderr); got != exitFailed || stderr.String() != "" {
		t.Errorf("version to a closed pipe: exit status %d, %q", got, stderr.String())
	}
}

// Flags of one name take a value in all commands or in none, but for --config
// (inspect shows it, attach layer takes a file for it) and --rootfs (extract
// makes one, add image takes a directory).
func TestFlagsAgree(t *testing.T) {
	app := newApp(&env{stdout: &output{w: t.Output()}, stderr: t.Output()})
	for name, kinds := range cmdline.FlagKinds(app) {
		if (len(kinds) > 1) != (name == "config" || name == "rootfs") {
			t.Errorf("flag --%s takes a value in some commands and none in others: %t", name, len(kinds) > 1)
		}
	}
	for _, early := range [][]string{{"--config", "inspect", "l"}, {"attach", "--config", "f", "layer", "l", "r"}, {"--config", "f", "attach", "layer", "l", "r"}} {
		_, err := cmdline.Order(app, append([]string{"gloci-layout"}, early...))
		if fails := early[0] == "--config"; (err != nil) != fails {
			t.Errorf("%q: %v", early, err)
		}
	}
}

type benchRow []string

func (r benchRow) columns() []string { return append([]string(nil), r...) }

// BenchmarkTable prints a table as ls does for 2,000 entries.
func BenchmarkTable(b *testing.B) {
	rows := make([]benchRow, 2000)
	for i := range rows {
		rows[i] = benchRow{fmt.Sprintf("kvm-gardener_prod-amd64-%d", i), "artifact", "gardenlinux/amd64", "1.5 GiB", "sha256:" + strings.Repeat("0", 64)}
	}
	b.ReportAllocs()
	for b.Loop() {
		e := &env{stdout: &output{w: io.Discard}}
		if err := table(e, []string{"REF NAME", "KIND", "PLATFORMS", "SIZE", "DIGEST"}, rows); err != nil {
			b.Fatal(err)
		}
		e.stdout.flush()
	}
}
