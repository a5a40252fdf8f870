package publish

import (
	"context"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SetSleep replaces the waits of a publish.
func SetSleep(opts *Options, sleep func(context.Context, time.Duration) error) {
	opts.sleep = sleep
}

// Index returns the bytes of the index of these entries.
func Index(entries []ocispec.Descriptor) ([]byte, error) {
	items := make([]item, len(entries))
	for i, desc := range entries {
		var err error
		if items[i], err = newItem(desc); err != nil {
			return nil, err
		}
	}
	x, err := makeIndex(items, nil)
	if err != nil {
		return nil, err
	}
	return x.Bytes(), nil
}
