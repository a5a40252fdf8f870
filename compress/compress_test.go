package compress_test

import (
	"errors"
	"testing"

	"github.com/gardenlinux/gloci-layout/compress"
)

func TestDetect(t *testing.T) {
	for _, tt := range []struct {
		name   string
		prefix string
		want   compress.Format
	}{
		{"empty", "", compress.None},
		{"gzip", "\x1f\x8b\x08\x00", compress.Gzip},
		{"gzip cut short", "\x1f\x8b", compress.None},
		{"gzip with another method", "\x1f\x8b\x07\x00", compress.None},
		{"zstd", "\x28\xb5\x2f\xfd\x00", compress.Zstd},
		{"zstd cut short", "\x28\xb5\x2f", compress.None},
		{"zstd with a skippable frame", "\x50\x2a\x4d\x18\x04", compress.Zstd},
		{"zstd with the last skippable frame", "\x5f\x2a\x4d\x18\x04", compress.Zstd},
		{"not a skippable frame", "\x60\x2a\x4d\x18\x04", compress.None},
		{"skippable frame cut short", "\x50\x2a\x4d", compress.None},
		{"xz", "\xfd7zXZ\x00", compress.Xz},
		{"xz cut short", "\xfd7zXZ", compress.None},
		{"bzip2", "BZh91A", compress.Bzip2},
		{"text that begins like bzip2", "BZhang", compress.None},
		{"tar", "oci-layout\x00\x00", compress.None},
		{"json", `{"schemaVersion":2}`, compress.None},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := compress.Detect([]byte(tt.prefix)); got != tt.want {
				t.Errorf("Detect(%q) = %v, want %v", tt.prefix, got, tt.want)
			}
		})
	}
}

func TestFormatNames(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want compress.Format
	}{
		{"none", compress.None},
		{"gzip", compress.Gzip},
		{"gz", compress.Gzip},
		{"zstd", compress.Zstd},
		{"zst", compress.Zstd},
	} {
		got, err := compress.ParseFormat(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseFormat(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"", "xz", "bzip2", "GZIP", "lz4"} {
		if _, err := compress.ParseFormat(in); !errors.Is(err, compress.ErrUnsupported) {
			t.Errorf("ParseFormat(%q): error %v, want ErrUnsupported", in, err)
		}
	}
	for _, f := range []compress.Format{compress.None, compress.Gzip, compress.Zstd} {
		if got, err := compress.ParseFormat(f.String()); err != nil || got != f {
			t.Errorf("ParseFormat(%q) = %v, %v; want %v", f, got, err, f)
		}
	}
	for _, tt := range []struct {
		f    compress.Format
		want string
	}{{compress.Xz, "xz"}, {compress.Bzip2, "bzip2"}, {9, "Format(9)"}} {
		if got := tt.f.String(); got != tt.want {
			t.Errorf("String() = %q, want %q", got, tt.want)
		}
	}
}

func TestFormatOfName(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want compress.Format
	}{
		{"app.oci", compress.None},
		{"app.oci.gz", compress.Gzip},
		{"app.tgz", compress.Gzip},
		{"app.oci.zst", compress.Zstd},
		{"app.tar.zstd", compress.Zstd},
		{"app.tar.xz", compress.Xz},
		{"app.TXZ", compress.Xz},
		{"app.tar.bz2", compress.Bzip2},
		{"app.tbz2", compress.Bzip2},
		{"gz", compress.None},
		{"app.gz.oci", compress.None},
		{"", compress.None},
	} {
		if got := compress.FormatOfName(tt.in); got != tt.want {
			t.Errorf("FormatOfName(%q) = %v, want %v", tt.in, got, tt.want)
		}
	}
}
