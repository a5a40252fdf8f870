package sync_test

import (
	"context"
	"fmt"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
)

// A whole layout goes to a repository: each ref name becomes a tag.
func ExamplePush() {
	ctx := context.Background()
	l, err := layout.Open(ctx, "build/layout", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	dest, err := layoutsync.ParseRepository("docker://registry.example/gardenlinux")
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := layoutsync.Push(ctx, l, dest, nil)
	for _, tag := range report.Tags {
		fmt.Println(tag.Tag, tag.State)
	}
	if err != nil {
		fmt.Println(err)
	}
}

// The tags of a repository are read like the ref names of a layout.
func ExampleOpenSource() {
	ctx := context.Background()
	ref, err := layout.ParseReference("docker://registry.example/gardenlinux:latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	src, err := layoutsync.OpenSource(ctx, ref, &layoutsync.RegistryOptions{AuthFile: "auth.json"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer src.Close()
	x, err := src.Index(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, entry := range x.Entries() {
		fmt.Println(layout.RefName(entry), entry.Digest)
	}
}
