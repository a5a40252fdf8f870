package compress_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/gardenlinux/gloci-layout/compress"
)

// The seek table says where each frame is, and each can be read alone.
func TestSeekTable(t *testing.T) {
	in := sample(2*compress.ZstdFrame + 5)
	z := pack(t, in, compress.Zstd, 1, len(in))
	frames, err := compress.SeekTable(bytes.NewReader(z), int64(len(z)))
	if err != nil || len(frames) != 3 {
		t.Fatalf("SeekTable = %v, %v; want 3 frames", frames, err)
	}
	at := int64(0)
	for i, f := range frames {
		want := in[:min(len(in), compress.ZstdFrame)]
		in = in[len(want):]
		if f.Uncompressed != int64(len(want)) {
			t.Errorf("frame %d has %d bytes, want %d", i, f.Uncompressed, len(want))
		}
		if got := unpack(t, z[at:at+f.Compressed], compress.Zstd); !bytes.Equal(got, want) {
			t.Errorf("frame %d has other content", i)
		}
		at += f.Compressed
	}
}

func TestSeekTableAbsent(t *testing.T) {
	for _, in := range [][]byte{nil, []byte("short"), pack(t, sample(100), compress.Zstd, 0, 100), make([]byte, 17)} {
		if frames, err := compress.SeekTable(bytes.NewReader(in), int64(len(in))); frames != nil || err != nil {
			t.Errorf("SeekTable of %d bytes = %v, %v", len(in), frames, err)
		}
	}
}

func TestSeekTableRefuses(t *testing.T) {
	in := make([]byte, compress.ZstdFrame+1)
	z := pack(t, in, compress.Zstd, 1, len(in))
	set := func(back int, value byte) []byte {
		b := bytes.Clone(z)
		b[len(b)-back] = value
		return b
	}
	many := bytes.Clone(z)
	binary.LittleEndian.PutUint32(many[len(many)-9:], 1<<21)
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"more frames than bytes", set(8, 200), compress.ErrCorrupt},
		{"fewer frames", set(9, 1), compress.ErrCorrupt},
		{"an unknown kind", set(5, 4), compress.ErrCorrupt},
		{"checksums that are not there", set(5, 1<<7), compress.ErrCorrupt},
		{"another size", set(17, 1), compress.ErrCorrupt}, // of the last entry
		{"another compressed size", set(15+2, 0xff), compress.ErrCorrupt},
		{"bytes before", append([]byte("x"), z...), compress.ErrCorrupt},
		{"too many frames", many, compress.ErrLimit},
	} {
		if frames, err := compress.SeekTable(bytes.NewReader(tt.in), int64(len(tt.in))); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.name, frames, err, tt.want)
		}
	}
}
