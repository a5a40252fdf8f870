package filediff_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gardenlinux/gloci-layout/compress"
	"github.com/gardenlinux/gloci-layout/layout/diff/filediff"
)

// Two random archives, in any order, are compared as a table of their files
// would be; with memory for nothing, too.
func TestArchives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab](/[ab.-]){0,3}`), 0, 12, rapid.ID[string]).Draw(t, "names")
		a, b := map[string]string{}, map[string]string{}
		var orderA, orderB []string
		var want []string
		for _, n := range names {
			content := rapid.StringMatching(`[xy]{0,3}`).Draw(t, "content")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				a[n] = content
				want = append(want, "removed "+n)
			case 1:
				b[n] = content
				want = append(want, "added "+n)
			case 2:
				a[n], b[n] = content, content+"z"
				want = append(want, "changed "+n)
			default:
				a[n], b[n] = content, content
			}
		}
		switch rapid.IntRange(0, 2).Draw(t, "order") {
		case 0:
			orderA, orderB = keys(a, names), keys(b, names)
		case 1:
			sorted := slices.Sorted(slices.Values(names))
			orderA, orderB = keys(a, sorted), keys(b, sorted)
		default:
			orderA = keys(a, names)
			orderB = rapid.Permutation(keys(b, names)).Draw(t, "order of B")
		}
		var common []string
		for _, n := range orderA {
			if _, ok := b[n]; ok {
				common = append(common, n)
			}
		}
		commonB := slices.DeleteFunc(slices.Clone(orderB), func(n string) bool { _, ok := a[n]; return !ok })
		if !slices.Equal(common, commonB) {
			want = append(want, "reordered ")
		}
		if len(want) > 0 {
			want = append(want, "changed ")
		}
		tarA, tarB := archiveOf(t, a, orderA), archiveOf(t, b, orderB)
		if rapid.Bool().Draw(t, "compressed") {
			tarA = packed(t, compress.Gzip, 0, tarA)
		}
		for _, memory := range []int64{0, 1, 2000} {
			var have []string
			for ch, err := range filediff.Compare(t.Context(), content("", tarA), content("", tarB), &filediff.Options{Memory: memory, Ignore: filediff.Ignore{Compression: true, Encoding: true}}, nil) {
				if err != nil {
					t.Fatal(err)
				}
				path := ""
				if len(ch.Path) > 0 {
					path = ch.Path[0]
				}
				have = append(have, fmt.Sprintf("%s %s", ch.Kind, path))
			}
			slices.Sort(have)
			slices.Sort(want)
			if diff := cmp.Diff(want, have); diff != "" {
				t.Fatalf("memory %d (-want +have):\n%s", memory, diff)
			}
		}
	})
}

func keys(m map[string]string, order []string) []string {
	return slices.DeleteFunc(slices.Clone(order), func(n string) bool { _, ok := m[n]; return !ok })
}

func archiveOf(t *rapid.T, m map[string]string, order []string) []byte {
	var files []file
	for _, n := range order {
		files = append(files, file{name: n, content: m[n]})
	}
	return archive(t, files...)
}
