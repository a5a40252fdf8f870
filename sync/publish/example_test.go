package publish_test

import (
	"context"
	"fmt"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
)

// What a layout has of version 1.0 is published, whatever other machines publish
// of it meanwhile. The project's Scheme says which tag each part has.
func ExampleRun() {
	ctx := context.Background()
	l, err := layout.Open(ctx, "build/layout", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	roots, err := layout.Resolve(ctx, l, "1.0", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	dest, err := layoutsync.ParseRepository("docker://registry.example/app")
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := publish.Run(ctx, l, dest, &publish.Options{Version: "1.0", Scheme: scheme{}, Roots: roots})
	for _, tag := range report.Parts {
		fmt.Println(tag.Tag, tag.State)
	}
	if err != nil {
		fmt.Println(err)
	}
}
