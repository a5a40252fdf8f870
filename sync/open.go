package sync

import (
	"context"
	"fmt"

	"github.com/gardenlinux/gloci-layout/layout"
)

// OpenSource opens what ref names where that is no layout: a repository
// (docker://), the output of docker save (docker-archive:) or a directory of
// containers/image (dir:). A ref name that is not there is
// [layout.ErrNotFound]. The caller closes the source.
//
// The images of a docker-archive have no OCI digests: they are converted into a
// private layout, which is removed by Close. The same archive gives the same
// bytes each time.
func OpenSource(ctx context.Context, ref layout.Reference, opts *RegistryOptions) (layout.Source, error) {
	if opts == nil {
		opts = &RegistryOptions{}
	}
	switch ref.Transport {
	case "docker":
		r, err := OpenRemote(ctx, ref, opts)
		if err != nil {
			return nil, err // not a typed nil in the interface
		}
		return r, nil
	case "docker-archive":
		return openDockerArchive(ctx, ref, opts)
	case "dir":
		return openDir(ref.Location)
	}
	return nil, fmt.Errorf("%w transport %q", layout.ErrInvalid, ref.Transport)
}
