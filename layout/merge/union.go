package merge

import (
	"fmt"
	"maps"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// Union returns an index with every member and entry of ours, and of theirs the
// entries whose numbers are in keep and the members that ours has not. Entries
// are as they stand there. The result is in the canonical form, so that the
// same entries always give the same digest.
func Union(ours, theirs *layout.Index, keep []int) (*layout.Index, error) {
	each := make([]*node, 2)
	kept, err := layout.ParseIndex(theirs.Bytes())
	if err != nil {
		return nil, err
	}
	var drop []int
	for i := range kept.Len() {
		if !slices.Contains(keep, i) {
			drop = append(drop, i)
		}
	}
	kept.Remove(drop...)
	for i, x := range []*layout.Index{ours, kept} {
		number := 0
		each[i], err = parseNode(x, func(ocispec.Descriptor) string { // all apart, and in their order
			number++
			return fmt.Sprintf("%d %06d", i, number)
		})
		if err != nil {
			return nil, err
		}
	}
	// Ours last, so that it writes over theirs.
	n := each[1]
	maps.Copy(n.members, each[0].members)
	maps.Copy(n.annotations, each[0].annotations)
	maps.Copy(n.groups, each[0].groups)
	return n.index()
}
