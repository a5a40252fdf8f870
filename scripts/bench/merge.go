package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	mergeFiles = 7        // small files beside the disk of each flavour
	mergeFile  = 20 << 10 // bytes of each
	mergeRef   = "1877.3" // the index that all layouts have
	mergeArch  = "amd64"  // of all flavours
	mergeHash  = "a1b2c3d4"
)

// benchMerge: layouts of one flavour each, as build jobs make them, become one.
func (b *bench) benchMerge(ctx context.Context, s sizes) error {
	for _, at := range b.places() {
		in, out := filepath.Join(at.dir, "jobs"), filepath.Join(at.dir, "out")
		jobs, err := makeJobs(in, s.jobs, s.disk)
		if err != nil {
			return err
		}
		// On a disk each run writes to a new directory, and nothing is removed
		// before the end: ext4 is slow to make files for a minute after others
		// were removed (it keeps their inodes from being used at once).
		run := 0
		next := func(prepare func(dir string) error) func(context.Context) error {
			return func(context.Context) error {
				if at.dir == b.tmpfs {
					if err := os.RemoveAll(out); err != nil {
						return err
					}
				}
				run++
				if err := os.MkdirAll(out, 0o755); err != nil {
					return err
				}
				return prepare(filepath.Join(out, strconv.Itoa(run)))
			}
		}
		dest := func() string { return filepath.Join(out, strconv.Itoa(run)) }
		merge := func(name string, flags ...string) *contender {
			return &contender{name: ours + " " + name, prepare: next(emptyLayout), commands: func() [][]string {
				return [][]string{slices.Concat([]string{b.program, "merge", "--quiet"}, flags, []string{dest()}, jobs)}
			}}
		}
		copied := func(name string, more ...string) *contender {
			return &contender{name: name, prepare: next(func(string) error { return nil }), commands: func() [][]string {
				commands := [][]string{{"cp", "-r", in, dest()}}
				if more != nil {
					commands = append(commands, append(more, dest()))
				}
				return commands
			}}
		}
		first, linked := merge("merge"), merge("merge --link", "--link")
		cp, synced := copied("cp -r of the same directories"), copied("cp -r, then sync -f", "sync", "-f")
		contenders := []*contender{first, linked, cp, synced}
		if err := b.compete(ctx, at.dir, b.rounds, contenders...); err != nil {
			return err
		}
		b.table(fmt.Sprintf("merge of %d layouts, %s each, %s", s.jobs, bytesText(s.disk+mergeFiles*mergeFile), at.name), contenders...)
		text, err := b.syncTime(ctx, first)
		if err != nil {
			return err
		}
		b.printf("  %s\n", text)
		b.goalRatio(fmt.Sprintf("merge of %d layouts / cp -r, %s", s.jobs, at.name), first, cp, 1.2)
		b.goalRatio(fmt.Sprintf("merge --link of %d layouts / cp -r, %s", s.jobs, at.name), linked, cp, 1.2)
		if err := remove(in, out)(ctx); err != nil {
			return err
		}
	}
	return nil
}

// makeJobs makes layouts with one flavour each: a disk and some small files.
func makeJobs(dir string, n int, disk int64) (jobs []string, err error) {
	for i := range n {
		job := filepath.Join(dir, fmt.Sprintf("job-%03d", i))
		if err := os.MkdirAll(job, 0o755); err != nil {
			return nil, err
		}
		if err := makeJob(job, i, disk); err != nil {
			return nil, err
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

func makeJob(dir string, number int, disk int64) error {
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	config, err := l.blob("application/vnd.unknown.config.v1+json", func(w io.Writer) error {
		_, err := io.WriteString(w, "{}")
		return err
	})
	if err != nil {
		return err
	}
	var layers []ocispec.Descriptor
	for i := range mergeFiles + 1 {
		size := int64(mergeFile)
		if i == 0 {
			size = disk
		}
		desc, err := l.blob("application/io.gardenlinux.image.archive.format.raw", func(w io.Writer) error {
			_, err := io.Copy(w, noise(uint64(1000*number+i), size))
			return err
		})
		if err != nil {
			return err
		}
		layers = append(layers, desc)
	}
	entry, err := l.json(ocispec.MediaTypeImageManifest, manifest(config, layers))
	if err != nil {
		return err
	}
	entry.Annotations = map[string]string{
		"cname": fmt.Sprintf("flavour%03d-%s-%s-%s", number, mergeArch, mergeRef, mergeHash), "architecture": mergeArch,
	}
	entry.Platform = &ocispec.Platform{OS: "gardenlinux", Architecture: mergeArch, OSVersion: mergeRef}
	index, err := l.json(ocispec.MediaTypeImageIndex, imageIndex([]ocispec.Descriptor{entry}))
	if err != nil {
		return err
	}
	l.entry(index, mergeRef)
	return l.finish()
}
