package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A remoteStep is one experiment with registries: a layout that make writes, and
// what becomes of it.
type remoteStep struct {
	name, title string
	at          []venue
	minimum     int      // requests
	tags        []string // of the layout
	make        func(dir string) error
	done        bool                   // all is pushed before
	change      func(dir string) error // before each run; may be nil
}

// remoteSteps are the experiments. Where bytes are what takes long, latency is
// not measured, and where requests are, at one registry only.
func remoteSteps(s sizes) []remoteStep {
	everywhere := []venue{realAtOnce, realLate, holeAtOnce, holeLate}
	some := []venue{realAtOnce, holeAtOnce, holeLate}
	tags := make([]string, s.tags)
	for i := range tags {
		tags[i] = tagName(i)
	}
	shared := func(dir string) error { return makeShared(dir, s) }
	sharedNeed := need{tags: s.tags, documents: s.tags, blobs: 1 + 2*s.tags}
	sharedTitle := fmt.Sprintf("%s in %d tags", bytesText(s.shared+int64(s.tags)*s.ownLayer), s.tags)
	small := func(dir string) error { return makeFlavours(dir, s.small, 0) }
	smallNeed := need{tags: 1, documents: 1 + s.small, blobs: 2 * s.small}
	smallTitle := fmt.Sprintf("an index of %d manifests", s.small)
	state := 0
	return []remoteStep{
		{
			name: "sync-first", title: "sync: first push, " + sharedTitle, at: everywhere,
			minimum: sharedNeed.push(s.tags), tags: tags, make: shared,
		},
		{
			name: "sync-again", title: "sync: nothing to do, " + sharedTitle, at: everywhere,
			minimum: 1 + s.tags, tags: tags, make: shared, done: true,
		},
		{
			name: "sync-few", title: "sync: first push, four blobs of " + bytesText(s.few), at: []venue{realAtOnce, holeAtOnce},
			minimum: need{tags: 1, documents: 1, blobs: 5}.push(1), tags: []string{"bench"},
			make: func(dir string) error { _, err := makeBlobs(dir, 4, s.few); return err },
		},
		{
			name: "sync-small", title: "sync: first push, " + smallTitle, at: some,
			minimum: smallNeed.push(1), tags: []string{"all"}, make: small,
		},
		{
			name: "sync-changed", title: fmt.Sprintf("sync: one of %d manifests has changed", s.flavours), at: everywhere,
			minimum: need{tags: 1, documents: 2, blobs: 2}.push(1) + s.flavours - 1, tags: []string{"all"}, done: true,
			make: func(dir string) error { return makeFlavours(dir, s.flavours, 0) },
			// No repository has seen a state before.
			change: func(dir string) error {
				state++
				return errors.Join(os.RemoveAll(dir), makeFlavours(dir, s.flavours, state))
			},
		},
		{
			name: "pull", title: "pull: " + sharedTitle, at: everywhere,
			minimum: sharedNeed.pull(), tags: tags, make: shared,
		},
		{
			name: "pull-small", title: "pull: " + smallTitle, at: []venue{holeAtOnce, holeLate},
			minimum: smallNeed.pull(), tags: []string{"all"}, make: small,
		},
	}
}

// need is what a push or pull is about.
type need struct {
	tags, documents, blobs int
}

// push is what the distribution specification needs at least: is anybody there,
// is the tag, is the manifest, POST and PUT of each blob, PUT of each manifest
// and tag, of which a single root's is that of its tag; and one more question for
// each root, whether what the registry has taken is there.
func (n need) push(roots int) int {
	puts := n.documents + n.tags
	if roots == 1 && n.tags == 1 {
		puts--
	}
	return 1 + n.tags + n.documents + 2*n.blobs + roots + puts
}

// pull is: is anybody there, the list of tags, what each names, each manifest and
// blob, and whether the registry lists referrers.
func (n need) pull() int { return 3 + n.tags + n.documents + n.blobs }

// remote runs one of these experiments everywhere.
func (b *bench) remote(step remoteStep) func(context.Context, sizes) error {
	return func(ctx context.Context, s sizes) error {
		dir, copied := filepath.Join(b.dir, "layout"), filepath.Join(b.dir, "copy")
		if err := step.make(dir); err != nil {
			return err
		}
		var faults []error
		for _, at := range b.venues(step.at) {
			if why := missing("registry"); at.real && why != "" {
				b.printf("\n%s, %s: not measured: %s\n", step.title, at.name, why)
				continue
			}
			faults = append(faults, b.raceAt(ctx, step, at, dir, copied, s.patience))
			if ctx.Err() != nil {
				break
			}
		}
		return errors.Join(append(faults, remove(dir, copied)(context.WithoutCancel(ctx)))...)
	}
}

// venues returns those of all that -at has not left out.
func (b *bench) venues(all []venue) (some []venue) {
	for _, at := range all {
		if b.at.MatchString(at.name) {
			some = append(some, at)
		}
	}
	return some
}

// raceAt races at one registry and judges: ahead of every peer, little memory, no
// more requests than needed.
func (b *bench) raceAt(ctx context.Context, step remoteStep, at venue, dir, copied string, patience time.Duration) error {
	pull, seed := strings.HasPrefix(step.name, "pull"), ""
	if pull {
		seed = dir
	}
	where, err := b.open(ctx, at, seed)
	if err != nil {
		return err
	}
	defer where.close()
	all := where.pushers(dir, step.tags...)
	switch {
	case pull:
		all = where.pullers(copied, step.tags...)
	case step.done:
		var change func(context.Context) error
		if step.change != nil {
			change = func(context.Context) error { return step.change(dir) }
		}
		where.pushed(ctx, all, change, patience)
	default:
		for _, c := range all {
			c.prepare = where.empty
		}
	}
	if err := where.race(ctx, patience, all); err != nil {
		return err
	}
	title := step.title + ", " + at.name
	ratio := float64(all[0].traffic.Requests) / float64(step.minimum)
	b.remoteTable(title, all)
	b.printf("  needed: %d requests; ours are %.2f times that\n", step.minimum, ratio)
	for _, c := range all[1:] {
		if len(c.samples) > 0 && !c.less {
			b.goalRatio(title+" / "+c.name, all[0], c, 1)
		}
	}
	b.goal(title+": memory at most 64 MiB", float64(all[0].rss()), 64<<20, bytesText(all[0].rss()))
	b.goal(fmt.Sprintf("%s: requests / needed at most %.2g", title, mostRequests), ratio, mostRequests, fmt.Sprintf("%.2f", ratio))
	if ratio > mostRequests {
		return fmt.Errorf("%s: %d requests where %d are needed", title, all[0].traffic.Requests, step.minimum)
	}
	return nil
}

// pushed has all contenders push once, and sets what comes before each run. What
// they cannot do is said in the race.
func (s *site) pushed(ctx context.Context, all []*contender, change func(context.Context) error, patience time.Duration) {
	s.counting = true
	for _, c := range all {
		if c.prepare = change; c.missing == "" {
			_, _ = s.b.measureFor(ctx, c, 4*patience)
		}
	}
}
