package archive_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
)

// The same layout gives the same file, on any machine.
func ExamplePackFile() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := layout.Create(ctx, filepath.Join(dir, "app"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	info, err := archive.PackFile(ctx, l, filepath.Join(dir, "app.oci"), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Size, info.Digest)

	a, err := archive.Open(ctx, filepath.Join(dir, "app.oci"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer a.Close()
	x, err := a.Index(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(x.Bytes()))
	// Output:
	// 4096 sha256:6e23edae0b7f04b60496950814e7b11d44bc8f0bbc57df1ecf3a41ca55d7deb4
	// {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}
}
