package compress

// An Encoder is what fixes the bytes that [NewWriter] writes, beside the input
// and the level.
type Encoder struct {
	Format  Format
	Library string // modules and versions that compress
	Block   int64  // bytes of input that are compressed as one piece
}

// EncoderOf returns the encoder of a format that is written; of any other its
// Library is empty. Two builds of this program with equal encoders write equal
// bytes.
func EncoderOf(f Format) Encoder {
	e := Encoder{Format: f}
	switch f {
	case Gzip:
		e.Library, e.Block = flateLibrary, gzipBlock
	case Zstd:
		e.Library, e.Block = zstdLibrary, zstdFrame
	}
	return e
}

// The versions are those of go.mod, and a test holds them to it.
const (
	zstdLibrary  = "github.com/klauspost/compress v1.20.3"
	flateLibrary = zstdLibrary + ", github.com/klauspost/pgzip v1.2.6"
)
