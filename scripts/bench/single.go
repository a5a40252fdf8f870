package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// places are where the experiments that write run.
func (b *bench) places() []place {
	places := []place{{"on the disk", b.dir}}
	if b.tmpfs != "" {
		places = append(places, place{"in memory (tmpfs)", b.tmpfs})
	}
	return places
}

type place struct{ name, dir string }

// benchAdd: a file becomes a blob.
func (b *bench) benchAdd(ctx context.Context, s sizes) error {
	for _, at := range b.places() {
		file, lay, out := filepath.Join(at.dir, "file"), filepath.Join(at.dir, "layout"), filepath.Join(at.dir, "copy")
		if err := writeNoise(file, 1, s.file); err != nil {
			return err
		}
		add := &contender{
			name:    ours + " add artifact",
			prepare: func(context.Context) error { return emptyLayout(lay) },
			commands: func() [][]string {
				return [][]string{{b.program, "add", "artifact", "--quiet", "--ref", "a", "--artifact-type", "application/vnd.example.bench", lay, file}}
			},
		}
		pass := b.peer("sha256, one pass", nil, "hash", file)
		contenders := []*contender{
			add, pass,
			b.peer("sha256 + write + fsync", remove(out), "hash-write", file, out),
			b.peer("write + fsync, no sha256", remove(out), "write", file, out),
		}
		if err := b.compete(ctx, at.dir, b.rounds, contenders...); err != nil {
			return err
		}
		b.table(fmt.Sprintf("add: a file of %s, %s", bytesText(s.file), at.name), contenders...)
		text, err := b.syncTime(ctx, add)
		if err != nil {
			return err
		}
		b.printf("  %s\n", text)
		b.goalRatio(fmt.Sprintf("add %s / one sha256 pass, %s", bytesText(s.file), at.name), add, pass, 1.2)
		if err := remove(file, lay, out)(ctx); err != nil {
			return err
		}
	}
	return nil
}

// peer is this program as a peer.
func (b *bench) peer(name string, prepare func(context.Context) error, args ...string) *contender {
	return &contender{name: name, prepare: prepare, commands: func() [][]string {
		return [][]string{append([]string{b.self, "peer"}, args...)}
	}}
}

func emptyLayout(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	return l.finish()
}

// benchVerify: every blob is hashed.
func (b *bench) benchVerify(ctx context.Context, s sizes) error {
	lay := filepath.Join(b.dir, "layout")
	files, err := makeBlobs(lay, s.blobs, s.blob)
	if err != nil {
		return err
	}
	verify := &contender{name: ours + " verify", commands: func() [][]string {
		return [][]string{{b.program, "verify", "--quiet", lay}}
	}}
	all := b.peer(fmt.Sprintf("sha256, %d processors", runtime.NumCPU()), nil, append([]string{"hash-all"}, files...)...)
	if err := b.compete(ctx, b.dir, b.rounds, verify, all); err != nil {
		return err
	}
	b.table("verify: a layout of "+b.blobsText(s), verify, all)
	b.goalRatio(fmt.Sprintf("verify %s / sha256 on all processors", bytesText(int64(s.blobs)*s.blob)), verify, all, 1.1)
	return remove(lay)(ctx)
}

func (b *bench) blobsText(s sizes) string {
	return fmt.Sprintf("%s, %d blobs of %s", bytesText(int64(s.blobs)*s.blob), s.blobs, bytesText(s.blob))
}

// benchPack: a layout becomes a file.
func (b *bench) benchPack(ctx context.Context, s sizes) error {
	for _, at := range b.places() {
		lay, out := filepath.Join(at.dir, "layout"), filepath.Join(at.dir, "layout.oci")
		files, err := makeBlobs(lay, s.blobs, s.blob)
		if err != nil {
			return err
		}
		tar := "tar --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 -C " + lay
		shell := func(script string) []string { return []string{"sh", "-c", script} }
		hashed := shell(fmt.Sprintf("%s -cf - . | %s peer hash-stdin %s", tar, b.self, out))
		prepare := remove(out)
		pack := &contender{name: ours + " pack", prepare: prepare, commands: func() [][]string {
			return [][]string{{b.program, "pack", "--quiet", lay, out}}
		}}
		tarHashed := &contender{name: "tar | sha256 + write + fsync", prepare: prepare, commands: func() [][]string {
			return [][]string{hashed}
		}}
		catFiles := shell("cat " + strings.Join(files, " ") + " > " + out)
		cat := &contender{name: "cat, no sha256, no fsync", prepare: prepare, commands: func() [][]string {
			return [][]string{catFiles}
		}}
		contenders := []*contender{
			pack, tarHashed,
			{name: "the same, after sha256 of all blobs", prepare: prepare, commands: func() [][]string {
				return [][]string{append([]string{b.self, "peer", "hash-all"}, files...), hashed}
			}},
			{name: "tar | tee | sha256sum, no fsync", missing: missing("sha256sum"), prepare: prepare, commands: func() [][]string {
				return [][]string{shell(fmt.Sprintf("%s -cf - . | tee %s | sha256sum", tar, out))}
			}},
			{name: "tar, no sha256, no fsync", prepare: prepare, commands: func() [][]string {
				return [][]string{append(strings.Fields(tar), "-cf", out, ".")}
			}},
			cat,
			{name: "cat, then fsync", prepare: prepare, commands: func() [][]string {
				return [][]string{catFiles, {"sync", out}}
			}},
			{name: "sha256sum, then cat", missing: missing("sha256sum"), prepare: prepare, commands: func() [][]string {
				return [][]string{append([]string{"sha256sum"}, files...), catFiles}
			}},
			{name: fmt.Sprintf("sha256, %d processors, then cat, then fsync", runtime.NumCPU()), prepare: prepare, commands: func() [][]string {
				return [][]string{append([]string{b.self, "peer", "hash-all"}, files...), catFiles, {"sync", out}}
			}},
		}
		if err := b.compete(ctx, at.dir, b.rounds, contenders...); err != nil {
			return err
		}
		b.table(fmt.Sprintf("pack: a layout of %s, %s", b.blobsText(s), at.name), contenders...)
		text, err := b.syncTime(ctx, pack)
		if err != nil {
			return err
		}
		b.printf("  %s\n", text)
		b.goalRatio(fmt.Sprintf("pack %s / tar with sha256, %s", bytesText(int64(s.blobs)*s.blob), at.name), pack, tarHashed, 1.3)
		b.goalRatio(fmt.Sprintf("pack %s / cat, %s", bytesText(int64(s.blobs)*s.blob), at.name), pack, cat, 1.3)
		if err := remove(lay, out)(ctx); err != nil {
			return err
		}
	}
	return nil
}

// benchOpen: a large archive of many images is opened in place.
func (b *bench) benchOpen(ctx context.Context, s sizes) error {
	lay, out := filepath.Join(b.dir, "layout"), filepath.Join(b.dir, "layout.oci")
	n := s.images[1]
	if err := makeImages(lay, n, int64(s.blobs)*s.blob/int64(n)); err != nil {
		return err
	}
	for _, args := range [][]string{{"pack", "--quiet", lay, out}, {"pack", "--quiet", lay, out + "2", "--split", fmt.Sprint(s.blob)}} {
		if _, err := b.output(ctx, b.program, args...); err != nil {
			return err
		}
	}
	ls := &contender{name: ours + " ls", commands: func() [][]string { return [][]string{{b.program, "ls", "--quiet", out}} }}
	list := &contender{name: "tar --list", commands: func() [][]string { return [][]string{{"tar", "-tf", out}} }}
	inParts := &contender{name: ours + " ls, in parts", commands: func() [][]string { return [][]string{{b.program, "ls", "--quiet", out + "2"}} }}
	if err := b.compete(ctx, b.dir, b.rounds, ls, inParts, list); err != nil {
		return err
	}
	b.table(fmt.Sprintf("open: an archive of %s, %d images", bytesText(int64(s.blobs)*s.blob), n), ls, inParts, list)
	b.goalTime(fmt.Sprintf("ls of an archive of %d images", n), ls, 500*time.Millisecond)
	parts, err := filepath.Glob(out + "2.*")
	if err != nil {
		return err
	}
	return remove(append(parts, lay, out)...)(ctx)
}

// benchMemory: one blob that is larger than memory should ever be. The blob is
// sparse where the file system knows that.
func (b *bench) benchMemory(ctx context.Context, s sizes) error {
	const limit = 64 << 20
	file, lay, empty, out := filepath.Join(b.dir, "file"), filepath.Join(b.dir, "layout"), filepath.Join(b.dir, "empty"), filepath.Join(b.dir, "layout.oci")
	if err := truncated(file, s.big); err != nil {
		return err
	}
	if err := makeSparse(lay, s.big); err != nil {
		return err
	}
	if err := emptyLayout(empty); err != nil {
		return err
	}
	registry, err := b.startRegistry(ctx, "")
	if err != nil {
		return err
	}
	defer registry.stop()
	floor := &contender{name: "true, the least that can be seen", commands: func() [][]string { return [][]string{{"true"}} }}
	contenders := []*contender{
		{name: ours + " add artifact", commands: func() [][]string {
			return [][]string{{b.program, "add", "artifact", "--quiet", "--ref", "big", "--artifact-type", "application/vnd.example.bench", empty, file}}
		}},
		{name: ours + " verify", commands: func() [][]string { return [][]string{{b.program, "verify", "--quiet", lay}} }},
		{name: ours + " pack", commands: func() [][]string { return [][]string{{b.program, "pack", "--quiet", lay, out}} }},
		{name: ours + " pack to gzip", commands: func() [][]string { return [][]string{{b.program, "pack", "--quiet", lay, out + ".gz"}} }},
		{name: ours + " pack to zstd", commands: func() [][]string { return [][]string{{b.program, "pack", "--quiet", lay, out + ".zst"}} }},
		{name: ours + " verify of the packed file", commands: func() [][]string { return [][]string{{b.program, "verify", "--quiet", out}} }},
		{name: ours + " sync", missing: registry.missing, commands: func() [][]string {
			return [][]string{{b.program, "sync", "--quiet", "--tls-verify=false", lay, "docker://" + registry.address + "/bench"}}
		}},
		floor,
	}
	for _, c := range contenders {
		if c.missing == "" {
			s, err := b.measure(ctx, c.commands())
			if err != nil {
				return err
			}
			c.samples = []sample{s}
		}
	}
	b.printf("\nmemory: a blob of %s, one run\n", bytesText(s.big))
	b.printf("  %-45s  %9s  %9s  %9s\n", "", "wall", "CPU", "max RSS")
	for _, c := range contenders {
		if c.missing != "" {
			b.printf("  %-45s  not measured: %s\n", c.name, c.missing)
			continue
		}
		b.printf("  %-45s  %9s  %9s  %9s\n", c.name, seconds(c.median()), seconds(c.medianCPU()), bytesText(c.rss()))
	}
	for _, c := range contenders[:len(contenders)-1] {
		b.goal(fmt.Sprintf("memory of %s, a blob of %s, under %s", strings.TrimPrefix(c.name, ours+" "), bytesText(s.big), bytesText(limit)),
			float64(c.rss()), limit, bytesText(c.rss()))
	}
	return remove(file, lay, empty, out, out+".gz", out+".zst")(ctx)
}

// benchMany: a layout of many images.
func (b *bench) benchMany(ctx context.Context, s sizes) error {
	const rounds = 3 // times those of the others: these take milliseconds
	type step struct {
		name  string
		limit time.Duration
		ours  func(lay string) []string
		peers func(lay string) []*contender
	}
	from, to := "image-00050", "bench"
	tool := func(name, program string, args ...string) *contender {
		return &contender{name: name, missing: missing(program), commands: func() [][]string {
			return [][]string{append([]string{program}, args...)}
		}}
	}
	steps := []step{
		{
			"ls", 50 * time.Millisecond,
			func(lay string) []string { return []string{"ls", lay} },
			func(lay string) []*contender {
				return []*contender{
					tool("umoci list", "umoci", "list", "--layout", lay),
					tool("regctl tag ls", "regctl", "tag", "ls", "ocidir://"+lay),
				}
			},
		},
		{
			"inspect", 50 * time.Millisecond,
			func(lay string) []string { return []string{"inspect", lay + ":" + from} },
			func(lay string) []*contender {
				return []*contender{
					tool("umoci stat", "umoci", "stat", "--image", lay+":"+from),
					tool("regctl manifest get", "regctl", "manifest", "get", "ocidir://"+lay+":"+from),
				}
			},
		},
		{
			"tag", 50 * time.Millisecond,
			func(lay string) []string { return []string{"tag", "--quiet", lay, from, to} },
			func(lay string) []*contender {
				return []*contender{
					tool("umoci tag", "umoci", "tag", "--image", lay+":"+from, to),
					tool("regctl image copy (and its gc)", "regctl", "image", "copy", "ocidir://"+lay+":"+from, "ocidir://"+lay+":"+to),
				}
			},
		},
		{
			"gc", 300 * time.Millisecond,
			func(lay string) []string { return []string{"gc", "--quiet", "--grace", "0s", lay} },
			func(lay string) []*contender {
				return []*contender{
					tool("umoci gc", "umoci", "gc", "--layout", lay),
					tool("regctl tag delete (and its gc)", "regctl", "tag", "delete", "ocidir://"+lay+":"+to),
				}
			},
		},
	}
	places := b.places()
	medians := map[string][]time.Duration{}
	for i, at := range places {
		for k, n := range s.images {
			if i > 0 && k != 1 {
				continue
			}
			lay := filepath.Join(at.dir, "layout")
			if err := makeImages(lay, n, 1000); err != nil {
				return err
			}
			for _, step := range steps {
				// Each run finds the same index.json, and the same garbage.
				prepare, err := restore(lay, from, to, step.name == "gc")
				if err != nil {
					return err
				}
				own := &contender{name: ours + " " + step.name, prepare: prepare, commands: func() [][]string {
					return [][]string{append([]string{b.program}, step.ours(lay)...)}
				}}
				contenders := []*contender{own}
				if k == 1 {
					contenders = append(contenders, step.peers(lay)...)
				}
				for _, c := range contenders {
					c.prepare = prepare
				}
				if err := b.compete(ctx, at.dir, rounds*b.rounds, contenders...); err != nil {
					return err
				}
				b.table(fmt.Sprintf("%s: a layout of %d images, %s", step.name, n, at.name), contenders...)
				if step.name == "tag" || step.name == "gc" {
					text, err := b.syncTime(ctx, own)
					if err != nil {
						return err
					}
					b.printf("  %s\n", text)
				}
				if i == 0 {
					medians[step.name] = append(medians[step.name], own.median())
				}
				if k == 1 {
					b.goalTime(fmt.Sprintf("%s among %d manifests, %s", step.name, n, at.name), own, step.limit)
				}
			}
			if err := remove(lay)(ctx); err != nil {
				return err
			}
		}
	}
	first, last := s.images[0], s.images[len(s.images)-1]
	for _, step := range steps {
		m := medians[step.name]
		growth := float64(m[len(m)-1]) / float64(m[0])
		// Linear is last/first at most; quadratic would be its square.
		limit := 1.25 * float64(last) / float64(first)
		b.goal(fmt.Sprintf("%s: time at %d manifests / at %d at most %.3g", step.name, last, first, limit), growth, limit, fmt.Sprintf("%.2f", growth))
	}
	return nil
}

// restore returns a prepare that gives the layout the index.json that it has
// now, if tagged with the ref name to for what from names, and garbage.
func restore(lay, from, to string, tagged bool) (func(context.Context) error, error) {
	file := filepath.Join(lay, ocispec.ImageIndexFile)
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var x ocispec.Index
	if err := json.Unmarshal(raw, &x); err != nil {
		return nil, err
	}
	l := &builder{dir: lay}
	for _, desc := range x.Manifests {
		switch name := desc.Annotations[ocispec.AnnotationRefName]; {
		case name == to: // left by the step before
			continue
		case name == from && tagged:
			l.entry(desc, to)
		}
		l.entries = append(l.entries, desc)
	}
	return func(context.Context) error {
		return errors.Join(l.finish(), garbage(lay, 10))
	}, nil
}
