package serve

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// ValidateName tells whether name may be that of a repository
// (distribution-spec, "Pulling manifests"); if not, the error is
// [layout.ErrInvalid].
func ValidateName(name string) error {
	if !content.IsName(name) {
		return layout.WithHint(fmt.Errorf("%w repository name %.300q", layout.ErrInvalid, name),
			"a name has lower-case letters and digits, between them . _ - and /")
	}
	return nil
}

// SplitHost cuts the host off a name, as in ghcr.io/gardenlinux/gardenlinux. A
// host has a dot or a port, or is localhost; the host of other names is "".
func SplitHost(name string) (host, repository string) {
	return content.SplitHost(name)
}

// NameOf makes the name of a repository from the path of a source: its base name
// without the endings of archives, in lower case.
func NameOf(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs // "." has a name, too
	}
	name := strings.ToLower(strings.TrimSuffix(filepath.Base(path), layout.PartsSuffix))
	for _, suffix := range []string{".gz", ".zst", ".tgz", ".tar", ".oci"} {
		name = strings.TrimSuffix(name, suffix)
	}
	var b strings.Builder
	pending := byte(0)
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			if pending != 0 && b.Len() > 0 {
				b.WriteByte(pending)
			}
			pending = 0
			b.WriteByte(c)
		case pending == 0 && (c == '.' || c == '_'):
			pending = c
		default:
			pending = '-'
		}
	}
	if b.Len() == 0 {
		return "layout"
	}
	return b.String()
}
