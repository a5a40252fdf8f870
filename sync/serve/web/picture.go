package web

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/gardenlinux/gloci-layout/layout/show"
)

// A pictureView shows where the bytes are: a bar for all, by kind, and one for
// each name, with what only it has by kind, and what it shares.
type pictureView struct {
	Total  string
	Legend []legendView
	All    barView
	Bars   []barView
	Rest   int // names without a bar
}

type legendView struct {
	Class, Name, Size, Percent string
}

// A barView is drawn in a box that is 1000 wide.
type barView struct {
	Name        string
	Size        string // of all it has
	Own, Shared string
	Label       string
	Segments    []segment
}

type segment struct {
	X, W  string
	Class string
	Title string
}

const (
	maxBars  = 14
	maxKinds = 7 // that have a tone of their own
)

// picture counts each blob once, for the names in all.
func (s *snapshot) picture(all []listed, q query) pictureView {
	type blob struct {
		size int64
		kind string
		name int // of the one name that has it, -1 if several have
	}
	blobs := map[digest.Digest]*blob{}
	index := map[string]int{}
	var names []string
	has := []map[digest.Digest]bool{}
	kindsOf := map[string]string{} // by media type: few for many layers
	for _, l := range all {
		if !q.fits(l) || l.doc.absent {
			continue
		}
		i, ok := index[l.title]
		if !ok {
			i = len(names)
			index[l.title], names, has = i, append(names, l.title), append(has, map[digest.Digest]bool{})
		}
		take := func(d digest.Digest, size int64, kind string) {
			b := blobs[d]
			if b == nil {
				b = &blob{max(size, 0), kind, i}
				blobs[d] = b
			}
			if b.name != i {
				b.name = -1
			}
			has[i][d] = true
		}
		for _, layer := range l.doc.layers {
			kind, ok := kindsOf[layer.MediaType]
			if !ok {
				kind = kindOf(layer.MediaType)
				kindsOf[layer.MediaType] = kind
			}
			take(layer.Digest, layer.Size, kind)
		}
		if l.doc.config != nil {
			take(l.doc.config.Digest, l.doc.config.Size, "manifests and configs")
		}
		take(l.doc.desc.Digest, l.doc.desc.Size, "manifests and configs")
	}
	var total int64
	kinds := map[string]int64{}
	for _, b := range blobs {
		kinds[b.kind] += b.size
		total += b.size
	}
	order := sortedKeys(kinds)
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(kinds[b], kinds[a]) })
	v := pictureView{Total: show.Size(total)}
	if total == 0 {
		return v
	}
	class := map[string]int{}
	for i, k := range order {
		class[k] = min(i, maxKinds)
	}
	sums := make([]int64, maxKinds+1)
	for _, k := range order {
		sums[class[k]] += kinds[k]
	}
	label := func(i int) string {
		switch {
		case i == maxKinds:
			return "all others"
		case i >= len(order):
			return ""
		}
		return show.Clean(order[i])
	}
	for i, n := range sums {
		if n > 0 {
			v.Legend = append(v.Legend, legendView{kindClass(i), label(i), show.Size(n), percent(n, total)})
		}
	}
	v.All = bar("everything", total, sums, 0, total, label)

	type sum struct {
		name   string
		own    []int64
		shared int64
		all    int64
	}
	rows := make([]sum, len(names))
	for i, name := range names {
		rows[i] = sum{name: name, own: make([]int64, maxKinds+1)}
		for d := range has[i] {
			b := blobs[d]
			if rows[i].all += b.size; b.name < 0 {
				rows[i].shared += b.size
			} else {
				rows[i].own[class[b.kind]] += b.size
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b sum) int { return cmp.Or(cmp.Compare(b.all, a.all), natural(a.name, b.name)) })
	for i, r := range rows {
		if i == maxBars {
			v.Rest = len(rows) - maxBars
			break
		}
		v.Bars = append(v.Bars, bar(show.Clean(r.name), r.all, r.own, r.shared, rows[0].all, label))
	}
	return v
}

func kindClass(i int) string { return "k" + strconv.Itoa(i) }

func percent(n, of int64) string {
	p := 100 * float64(n) / float64(of)
	if p > 0 && p < 1 {
		return "<1 %"
	}
	return fmt.Sprintf("%.0f %%", p)
}

// bar draws own by kind, then shared, where full is 1000 wide.
func bar(name string, all int64, own []int64, shared, full int64, label func(int) string) barView {
	b := barView{Name: name, Size: show.Size(all), Shared: show.Size(shared), Own: show.Size(all - shared)}
	b.Label = name + ": " + b.Size + ", of which " + b.Shared + " shared with others"
	x := 0.0
	add := func(n int64, class, title string) {
		if n == 0 || full == 0 {
			return
		}
		w := 1000 * float64(n) / float64(full)
		b.Segments = append(b.Segments, segment{fmt.Sprintf("%.2f", x), fmt.Sprintf("%.2f", w), class, title + " " + show.Size(n)})
		x += w
	}
	for i, n := range own {
		add(n, kindClass(i), label(i))
	}
	add(shared, "shared", "shared")
	return b
}
