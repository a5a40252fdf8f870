package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// remoteRounds is how often all is measured against registries at most.
	remoteRounds = 3
	// long is how long a peer may take before its first run is its only one.
	long = 2 * time.Second
	// mostRequests is how many more requests we may need than the
	// distribution specification does.
	mostRequests = 1.3
)

// A venue is a registry to be measured against.
type venue struct {
	name    string
	real    bool // the reference registry; else one that forgets what it gets
	latency time.Duration
}

var (
	realAtOnce = venue{"reference registry", true, 0}
	realLate   = venue{"reference registry, 20 ms", true, 20 * time.Millisecond}
	holeAtOnce = venue{"registry that forgets", false, 0}
	holeLate   = venue{"registry that forgets, 20 ms", false, 20 * time.Millisecond}
)

// A site is a venue that runs.
type site struct {
	venue
	b        *bench
	registry *registry
	server   *server // counts; is the registry, or stands before it
	counting bool
}

// open starts a registry that has nothing, or the layout at seed.
func (b *bench) open(ctx context.Context, at venue, seed string) (s *site, err error) {
	s = &site{venue: at, b: b}
	args := []string{"-latency", at.latency.String()}
	if at.real {
		if s.registry, err = b.startRegistry(ctx, ""); err != nil {
			return nil, err
		}
		args = append(args, "-upstream", s.registry.address)
	} else {
		args = append(args, "-layout", seed)
	}
	if s.server, err = b.startServer(ctx, args...); err != nil {
		s.close()
		return nil, err
	}
	if at.real && seed != "" {
		for _, p := range peerNames {
			if _, err := b.output(ctx, b.program, "sync", "--quiet", "--tls-verify=false", seed, "docker://"+s.registry.address+"/"+p); err != nil {
				s.close()
				return nil, err
			}
		}
	}
	return s, nil
}

// peerNames are the repositories, one for each contender.
var peerNames = []string{"gloci", "regctl", "crane", "skopeo", "oras"}

func (s *site) close() {
	s.registry.stop()
	s.server.stop()
}

// empty has the registry begin anew.
func (s *site) empty(ctx context.Context) (err error) {
	if s.real {
		s.registry.stop()
		if s.registry, err = s.b.startRegistry(ctx, s.registry.address); err != nil {
			return err
		}
	}
	return s.server.forget(ctx)
}

// address is where to reach it. Without latency the reference registry is
// reached past the proxy, but in the round that counts.
func (s *site) address() string {
	if s.real && s.latency == 0 && !s.counting {
		return s.registry.address
	}
	return s.server.address
}

// race runs the contenders in turn. The first round counts requests. It is not
// measured, but where it takes long: then it is one of our three, and the only
// one of a peer. Peers that take longer than patience, and twice as long as we
// did, are ended.
func (s *site) race(ctx context.Context, patience time.Duration, contenders []*contender) error {
	b := s.b
	b.others, b.elapsed = 0, 0
	rounds := min(b.rounds, remoteRounds)
	var once []*contender
	for round := range rounds + 1 {
		s.counting = round == 0
		for _, c := range contenders {
			if c.missing != "" || slices.Contains(once, c) {
				continue
			}
			if c.prepare != nil {
				if err := c.prepare(ctx); err != nil {
					return err
				}
			}
			if err := settle(b.dir); err != nil {
				return err
			}
			if _, err := s.server.traffic(ctx); err != nil {
				return err
			}
			own := strings.HasPrefix(c.name, ours)
			before, start := busyTime(), now()
			sample, err := b.measureFor(ctx, c, patience)
			b.others += busyTime() - before - sample.cpu
			b.elapsed += now().Sub(start)
			seen, seenErr := s.server.traffic(ctx)
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case seenErr != nil:
				return seenErr
			case err != nil && own:
				return err
			case err != nil && len(c.samples) > 0:
				once = append(once, c) // n says how often it went well
				continue
			case err != nil:
				c.missing = fmt.Sprintf("%s (%d requests)", oneLine(err.Error()), seen.Requests)
				continue
			}
			if round == 0 {
				c.traffic = seen
			}
			if own {
				patience = max(patience, 2*sample.wall)
			}
			if round > 0 || sample.wall > long {
				c.samples = append(c.samples, sample)
			}
			if round == 0 && sample.wall > long && !own || len(c.samples) == rounds {
				once = append(once, c)
			}
		}
	}
	return nil
}

// measureFor is measure with an end.
func (b *bench) measureFor(ctx context.Context, c *contender, patience time.Duration) (sample, error) {
	if strings.HasPrefix(c.name, ours) {
		return b.measure(ctx, c.commands())
	}
	inner, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := b.measure(inner, c.commands())
	if errors.Is(inner.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		return s, fmt.Errorf("it was ended after %s", seconds(patience))
	}
	return s, err
}

// remoteTable prints what contenders needed, and what they asked for.
func (b *bench) remoteTable(title string, contenders []*contender) {
	b.table(title, contenders...)
	for _, c := range contenders {
		if c.missing != "" {
			continue
		}
		var kinds []string
		for kind, n := range c.traffic.Kinds {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, kind))
		}
		slices.Sort(kinds)
		b.printf("  %s: %d requests, %s sent (%s)\n", c.name, c.traffic.Requests, bytesText(c.traffic.In), strings.Join(kinds, ", "))
	}
}

// pushers push the tags of a layout, each to a repository of its own. A tool
// that takes one tag is started for each.
func (s *site) pushers(dir string, tags ...string) []*contender {
	perTag := func(name string, command func(tag string) []string) *contender {
		label := name
		if len(tags) > 1 {
			label += ", per tag"
		}
		tool, _, _ := strings.Cut(name, " ")
		return &contender{name: label, missing: missing(tool), commands: func() (all [][]string) {
			for _, tag := range tags {
				all = append(all, command(tag))
			}
			return all
		}}
	}
	crane := &contender{name: "crane push --index", missing: missing("crane"), commands: func() [][]string {
		return [][]string{{"crane", "push", "--insecure", "--index", dir, s.address() + "/crane:all"}}
	}}
	if len(tags) > 1 {
		crane.name += ", one tag for all"
		crane.less = true
	}
	return []*contender{
		{name: ours + " sync", commands: func() [][]string {
			return [][]string{{s.b.program, "sync", "--quiet", "--tls-verify=false", dir, "docker://" + s.address() + "/gloci"}}
		}},
		perTag("regctl image copy", func(tag string) []string {
			return []string{"regctl", "--host", "reg=" + s.address() + ",tls=disabled", "image", "copy", "ocidir://" + dir + ":" + tag, s.address() + "/regctl:" + tag}
		}),
		crane,
		perTag("skopeo copy --all", func(tag string) []string {
			return []string{"skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:" + dir + ":" + tag, "docker://" + s.address() + "/skopeo:" + tag}
		}),
		{name: "oras-go oras.Copy", commands: func() [][]string {
			return [][]string{append([]string{s.b.self, "peer", "oras-send", dir, s.address() + "/oras"}, tags...)}
		}},
	}
}

// pullers fetch tags into a new layout.
func (s *site) pullers(dir string, tags ...string) []*contender {
	perTag := func(name string, command func(tag string) []string) *contender {
		label := name
		if len(tags) > 1 {
			label += ", per tag"
		}
		tool, _, _ := strings.Cut(name, " ")
		return &contender{name: label, missing: missing(tool), commands: func() (all [][]string) {
			for _, tag := range tags {
				all = append(all, command(tag))
			}
			return all
		}}
	}
	all := []*contender{
		{name: ours + " pull", commands: func() [][]string {
			return [][]string{{s.b.program, "pull", "--quiet", "--tls-verify=false", "--all-tags", "docker://" + s.address() + "/gloci", dir}}
		}},
		perTag("regctl image copy", func(tag string) []string {
			return []string{"regctl", "--host", "reg=" + s.address() + ",tls=disabled", "image", "copy", s.address() + "/regctl:" + tag, "ocidir://" + dir + ":" + tag}
		}),
		{name: "crane pull --format=oci", missing: missing("crane"), commands: func() [][]string {
			command := []string{"crane", "pull", "--insecure", "--format=oci"}
			for _, tag := range tags {
				command = append(command, s.address()+"/crane:"+tag)
			}
			return [][]string{append(command, dir)}
		}},
		perTag("skopeo copy --all", func(tag string) []string {
			return []string{"skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://" + s.address() + "/skopeo:" + tag, "oci:" + dir + ":" + tag}
		}),
		{name: "oras-go oras.Copy", commands: func() [][]string {
			return [][]string{append([]string{s.b.self, "peer", "oras-fetch", dir, s.address() + "/oras"}, tags...)}
		}},
	}
	for _, c := range all {
		c.prepare = remove(dir)
	}
	return all
}
