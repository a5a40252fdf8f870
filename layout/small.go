package layout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// readAtOnce is the size in bytes up to which the file of a blob is read when it
// is opened.
const readAtOnce = 64 << 10 // 64 KiB

// A smallReader is a source that can read a small blob with few system calls.
type smallReader interface {
	// readSmall returns the content of desc, of at most MaxDocument bytes,
	// unverified. False means that it has to be had from Blob, which also
	// tells what is wrong.
	readSmall(desc ocispec.Descriptor) ([]byte, bool)
}

// readSmall opens, reads and closes: three system calls for each of the
// thousands of manifests and configs that a walk or a push may come to. O_NOFOLLOW in a directory
// that is open refuses links as openRegular does.
func (l *Layout) readSmall(desc ocispec.Descriptor) (content []byte, ok bool) {
	if l.opts.FollowSymlinks {
		return nil, false
	}
	d, err := ParseDigest(string(desc.Digest))
	if err != nil {
		return nil, false
	}
	dir := l.blobDir(d.Algorithm())
	if dir == nil {
		return nil, false
	}
	conn, err := dir.SyscallConn()
	if err != nil {
		return nil, false
	}
	err = conn.Control(func(fd uintptr) { content, ok = readAt(int(fd), d.Encoded(), desc.Size) })
	return content, ok && err == nil
}

func readAt(dir int, name string, size int64) ([]byte, bool) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	// One byte more, so that the end shows without another call.
	content := make([]byte, size+1)
	for n := 0; ; {
		k, err := unix.Read(fd, content[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n+k > int(size):
			return nil, false
		case k == 0:
			return content[:n:n], n == int(size)
		default:
			n += k
			if n == int(size) {
				return content[:n:n], true
			}
		}
	}
}

// blobDir returns the open directory of the blobs of one algorithm, or nil.
func (l *Layout) blobDir(a digest.Algorithm) *os.File {
	root, err := l.blobRoot(a)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dir := l.dirs[a]
	if dir == nil && l.blobs != nil {
		if dir, err = root.Open("."); err != nil {
			return nil
		}
		l.dirs[a] = dir
	}
	return dir
}

// readVerified is ReadAll for a smallReader.
func readVerified(ctx context.Context, src smallReader, desc ocispec.Descriptor) (content []byte, ok bool, err error) {
	if ctx.Err() != nil {
		return nil, true, context.Cause(ctx)
	}
	content, ok = src.readSmall(desc)
	if !ok {
		return nil, false, nil
	}
	if got := sum(desc.Digest.Algorithm(), content); got != desc.Digest.Encoded() {
		return nil, true, &BlobError{Op: "read", Desc: desc, Err: fmt.Errorf("%w: the bytes hash to %s:%s", ErrMismatch, desc.Digest.Algorithm(), got)}
	}
	return content, true, nil
}

func sum(a digest.Algorithm, content []byte) string {
	if a == digest.SHA256 {
		s := sha256.Sum256(content)
		return hex.EncodeToString(s[:])
	}
	return a.FromBytes(content).Encoded()
}
