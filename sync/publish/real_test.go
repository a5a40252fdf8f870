package publish_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// Five publishers at once on the reference registry, of which some die at a
// random request, and then one pass that heals. The order is what the machine
// makes of it.
func TestPublishReferenceRegistry(t *testing.T) {
	reg := regtest.Start(t, nil)
	var kits []*kit
	for i := range 5 {
		kits = append(kits, flavorKit(t, i))
	}
	opts := pushtest.Options(t, reg)
	opts.Jobs = 2
	deaths := 0
	for seed := range pushtest.Seeds(t, 40) / 4 {
		name := fmt.Sprintf("seeds/%d", seed)
		dest := pushtest.Repository(t, reg, name)
		random := rand.New(rand.NewPCG(3, uint64(seed)))
		errs := make([]error, len(kits))
		var wg sync.WaitGroup
		for i, k := range kits {
			life := int64(1 << 30)
			if seed%2 == 1 && random.IntN(2) == 0 {
				life = int64(5 + random.IntN(60))
				deaths++
			}
			o := opts
			o.Transport = mortal(life)
			wg.Go(func() { _, errs[i] = publish.Run(t.Context(), k, dest, publishing(o, k)) })
		}
		wg.Wait()
		if _, err := publish.Run(t.Context(), nil, dest, publishing(opts, nil)); err != nil {
			t.Fatalf("seed %d: reindex: %v", seed, err)
		}
		tags := pushtest.ResolveTags(t, reg, name)
		src, err := layoutsync.OpenRemote(t.Context(), reference(reg, name, version), &opts)
		if err != nil && len(tags) > 0 {
			t.Fatalf("seed %d: %v", seed, err)
		}
		entries := map[string]bool{}
		if err == nil {
			x, err := src.Index(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range indexOf(t, src, x.Entries()[0]).Entries() {
				entries[string(e.Digest)] = true
			}
			src.Close()
		}
		tagged := 0
		for i := range kits {
			d := tags[flavorTag(i)]
			switch {
			case errs[i] == nil && d == "":
				t.Errorf("seed %d: flavour %d was published and has no tag", seed, i)
			case d != "" && !entries[string(d)]:
				t.Errorf("seed %d: flavour %d has a tag, and is not in the index", seed, i)
			}
			if d != "" {
				tagged++
			}
		}
		if len(entries) > tagged {
			t.Errorf("seed %d: %d entries for %d tags", seed, len(entries), tagged)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d publishers were to die", deaths)
}

// mortal returns a transport that ends with its client after so many requests.
func mortal(life int64) http.RoundTripper {
	var n atomic.Int64
	base := &http.Transport{MaxIdleConnsPerHost: 4}
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if n.Add(1) > life {
			return nil, regtest.ErrCrashed
		}
		return base.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
