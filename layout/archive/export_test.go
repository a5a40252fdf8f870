package archive

import (
	"context"
	"io"
)

// Scan reads the headers of an archive of size bytes.
func Scan(ctx context.Context, r io.ReaderAt, size int64) error {
	_, err := scan(ctx, r, size)
	return err
}

// AppendHeader appends the header of a regular file.
func AppendHeader(b []byte, name string, size int64) []byte {
	return appendHeader(b, name, size, typeRegular, epoch)
}
