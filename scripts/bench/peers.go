package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// peerBuffer is what a peer reads at once.
const peerBuffer = 1 << 20 // 1 MiB

// runPeer does one thing in the plainest way, to be compared with.
func runPeer(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	name := strings.Join(args[:min(1, len(args))], "")
	args = args[min(1, len(args)):]
	switch {
	case name == "hash" && len(args) == 1: // one pass over a file
		return fromFile(args[0], sha256.New(), io.Discard)
	case name == "hash-all" && len(args) > 0: // all processors over many files
		var g errgroup.Group
		g.SetLimit(runtime.NumCPU())
		for _, file := range args {
			g.Go(func() error { return fromFile(file, sha256.New(), io.Discard) })
		}
		return g.Wait()
	case name == "hash-write" && len(args) == 2: // a copy on the disk, hashed on the way
		return toFile(args[1], true, func(w io.Writer) error { return fromFile(args[0], sha256.New(), w) })
	case name == "write" && len(args) == 2: // a copy on the disk
		return toFile(args[1], true, func(w io.Writer) error { return fromFile(args[0], nil, w) })
	case name == "compress" && len(args) == 3: // FORMAT FILE OUT
		return compressFile(args[0], args[1], args[2])
	case name == "oras-pull" && len(args) == 3: // an artifact of a layout to a directory, unpacked
		return orasPull(ctx, args[0], args[1], args[2])
	case name == "hash-stdin" && len(args) == 1: // stdin to a file on the disk, hashed on the way
		return toFile(args[0], true, func(w io.Writer) error { return pass(stdin, sha256.New(), w) })
	case name == "oras-send" && len(args) > 2: // LAYOUT HOST/REPO TAG...
		return orasSend(ctx, args[0], args[1], args[2:])
	case name == "oras-fetch" && len(args) > 2:
		return orasFetch(ctx, args[0], args[1], args[2:])
	case name == "take" && len(args) == 4:
		return take(ctx, args, stdout)
	case name == "serve":
		return serve(args, stdin, stdout)
	}
	return fmt.Errorf("no peer %q with %d arguments", name, len(args))
}

func fromFile(file string, h hash.Hash, w io.Writer) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return pass(f, h, w)
}

// pass reads r to its end, hashes it unless h is nil, and writes it to w.
func pass(r io.Reader, h hash.Hash, w io.Writer) error {
	buf := make([]byte, peerBuffer)
	for {
		n, err := r.Read(buf)
		if h != nil {
			h.Write(buf[:n])
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func toFile(file string, sync bool, write func(io.Writer) error) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return err
	}
	if sync {
		return f.Sync()
	}
	return nil
}
