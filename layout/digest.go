package layout

import (
	_ "crypto/sha256" // digest.Digest finds its hashes among those that are linked in
	_ "crypto/sha512"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// ParseDigest returns s as a digest. Only sha256 and sha512 with lower-case
// hexadecimal of the right length pass (image-spec descriptor.md, "Registered
// algorithms"); all else is [ErrInvalid]. What has passed is safe as a file
// name.
func ParseDigest(s string) (digest.Digest, error) {
	algorithm, encoded, found := strings.Cut(s, ":")
	if found && isHex(encoded) {
		switch {
		case algorithm == "sha256" && len(encoded) == 64, algorithm == "sha512" && len(encoded) == 128:
			return digest.Digest(s), nil
		}
	}
	return "", fmt.Errorf("%w digest %.140q", ErrInvalid, s)
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// BlobPath returns where the layout keeps the blob d, with slashes
// (image-layout.md, "Blobs"). d must have passed [ParseDigest].
func BlobPath(d digest.Digest) string {
	return path.Join("blobs", string(d.Algorithm()), d.Encoded())
}

// ParseBlobPath is the inverse of [BlobPath]; false if p is no path of a blob.
func ParseBlobPath(p string) (digest.Digest, bool) {
	rest, ok := strings.CutPrefix(p, "blobs/")
	if !ok {
		return "", false
	}
	algorithm, encoded, ok := strings.Cut(rest, "/")
	if !ok {
		return "", false
	}
	d, err := ParseDigest(algorithm + ":" + encoded)
	return d, err == nil
}
