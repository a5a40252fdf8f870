package patch

import (
	"cmp"
	"math/bits"
	"slices"
)

const (
	sketchWindow = 64 // bytes, of which a sample is the hash
	// A sketch has a sample for each 256 bytes of a small file, for each 16 KiB of
	// a larger one, and never more than maxSamples.
	smallSample, largeSample = 1 << 8, 1 << 14
	smallSamples, maxSamples = 1 << 10, 1 << 16
)

// A Sketch takes samples of what is written to it: hashes of 64 bytes each, the
// same wherever in a file these stand. It needs 16 KiB and a thousandth of the
// size of the file, and never more than 1 MiB.
type Sketch struct {
	shift   int // one of 2^shift windows is a sample: those whose hash begins with so many zeros
	hash    uint64
	n       int64
	samples []uint64 // sorted, each once, when it is done
	most    int
}

// NewSketch returns a sketch of a file of about size bytes.
func NewSketch(size int64) *Sketch {
	want := max(1, min(size/smallSample, smallSamples+size/largeSample, maxSamples))
	return &Sketch{shift: bits.Len64(uint64(max(size, 1)/want - 1)), most: int(2*want) + 64}
}

// Write takes samples of b.
func (s *Sketch) Write(b []byte) (int, error) {
	h, n, limit := s.hash, s.n, ^uint64(0)>>s.shift
	for _, c := range b {
		h = h<<1 + gear[c]
		if n++; h <= limit && n >= sketchWindow {
			s.hash = h
			s.add(h)
			limit = ^uint64(0) >> s.shift
		}
	}
	s.hash, s.n = h, n
	return len(b), nil
}

// add takes a sample. Where there are more than there should be, fewer are kept.
func (s *Sketch) add(h uint64) {
	if k := len(s.samples); k > 0 && s.samples[k-1] == h {
		return // of a run
	}
	s.samples = append(s.samples, h)
	for len(s.samples) >= s.most {
		if s.sort(); len(s.samples) < s.most*3/4 {
			return
		}
		s.shift++
		s.samples = s.samples[:below(s.samples, s.shift)]
	}
}

func (s *Sketch) sort() {
	slices.Sort(s.samples)
	s.samples = slices.Compact(s.samples)
}

// below returns how many of the sorted samples have hashes that begin with
// shift zeros.
func below(samples []uint64, shift int) int {
	n, _ := slices.BinarySearch(samples, ^uint64(0)>>shift)
	if n < len(samples) && samples[n] == ^uint64(0)>>shift {
		n++
	}
	return n
}

// gear has a random number for each byte. They are the same for ever: which
// files a patch is made of depends on them.
var gear = func() (g [256]uint64) {
	x := uint64(prime)
	for i := range g { // splitmix64
		x += prime
		z := x
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		g[i] = z ^ z>>31
	}
	return g
}()

// A Chooser finds files that others have much in common with.
type Chooser struct {
	sketches []*Sketch
	samples  []sample // of all, sorted
}

type sample struct {
	hash uint64
	file int32
}

// NewChooser returns a chooser among files, which are known by their numbers
// from here on. The sketches are complete.
func NewChooser(files []*Sketch) *Chooser {
	c := &Chooser{sketches: files}
	n := 0
	for _, s := range files {
		s.sort()
		n += len(s.samples)
	}
	c.samples = make([]sample, 0, n)
	for i, s := range files {
		for _, h := range s.samples {
			c.samples = append(c.samples, sample{h, int32(i)})
		}
	}
	slices.SortFunc(c.samples, func(a, b sample) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.file, b.file)) })
	return c
}

// Choose returns at most n of the files that have in common with file what
// those in chosen have not, the one with the most first; of equals, the first. It
// asks may which files may be chosen. What makes less than a 256th of the file, or
// is too little to be known, is left.
func (c *Chooser) Choose(file int, chosen []int, n int, may func(file int) bool) []int {
	s := c.sketches[file]
	shift, left := s.shift, s.samples
	take := func(i int) { // what is not in file i is left
		// A sketch with fewer samples says nothing of the others.
		shift = max(shift, c.sketches[i].shift)
		var rest []uint64
		for _, h := range left[:below(left, shift)] {
			if _, ok := slices.BinarySearch(c.sketches[i].samples, h); !ok {
				rest = append(rest, h)
			}
		}
		left = rest
	}
	for _, i := range chosen {
		take(i)
	}
	var found []int
	for len(found) < n {
		counts := map[int32]int{}
		for _, h := range left {
			at, _ := slices.BinarySearchFunc(c.samples, h, func(s sample, h uint64) int { return cmp.Compare(s.hash, h) })
			for ; at < len(c.samples) && c.samples[at].hash == h; at++ {
				counts[c.samples[at].file]++
			}
		}
		best, most := -1, max(s.n/256, 4<<10)-1
		for i, count := range counts {
			bytes := int64(count) << max(shift, c.sketches[i].shift)
			if count < 4 || bytes < most || bytes == most && (best < 0 || int(i) > best) || int(i) == file || !may(int(i)) {
				continue
			}
			best, most = int(i), bytes
		}
		if best < 0 {
			return found
		}
		found = append(found, best)
		take(best)
	}
	return found
}
