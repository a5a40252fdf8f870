package consumer_test

import (
	"context"
	"errors"
	"io"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/sourcetest"
)

// A counter counts what is opened.
type counter struct {
	*sourcetest.Memory
	opened int
}

func (c *counter) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	c.opened++
	return c.Memory.Blob(ctx, desc)
}

func TestRemember(t *testing.T) {
	src, other := &counter{Memory: sourcetest.NewMemory(t)}, &counter{Memory: sourcetest.NewMemory(t)}
	desc := src.Image("a", "linux/amd64")
	if other.Image("a", "linux/amd64").Digest != desc.Digest {
		t.Fatal("two images")
	}
	ctx := consumer.Remember(t.Context(), src)
	for _, title := range []string{"one", "two", "three"} {
		doc, err := consumer.ReadDocument(ctx, src, sourcetest.With(desc, "title", title))
		if err != nil {
			t.Fatal(err)
		}
		if have := doc.Descriptor.Annotations["title"]; have != title {
			t.Errorf("the entry says %q, want %q", have, title)
		}
	}
	if src.opened != 1 {
		t.Errorf("opened %d times, want once", src.opened)
	}
	if _, err := consumer.ReadDocument(ctx, other, desc); err != nil || other.opened != 1 {
		t.Errorf("another source: %v, opened %d times", err, other.opened)
	}
	wrong := desc
	wrong.Size++
	if _, err := consumer.ReadDocument(ctx, src, wrong); !errors.Is(err, layout.ErrMismatch) {
		t.Errorf("another size: %v", err)
	}
}
