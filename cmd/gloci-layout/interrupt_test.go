package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A signal in the middle of an edit ends it with status 130, one line, and the
// layout as it was.
func TestInterrupt(t *testing.T) {
	for _, c := range []struct {
		name string
		sig  syscall.Signal
		args []string
	}{
		{"interrupt", syscall.SIGINT, []string{"add", "artifact", "app", "--ref", "big", "--artifact-type", "application/x", "dir/big"}},
		{"terminated", syscall.SIGTERM, []string{"add", "artifact", "app", "--ref", "big", "--artifact-type", "application/x", "dir/big"}},
		{"rootfs", syscall.SIGINT, []string{"add", "image", "app", "--ref", "big", "--platform", "linux/amd64", "--rootfs", "dir"}},
		{"rootfs zstd", syscall.SIGTERM, []string{"add", "image", "app", "--ref", "big", "--platform", "linux/amd64", "--rootfs", "dir", "--compress", "zstd"}},
		// An empty tar archive, and zeros behind it, which belong to the layer.
		{"layer", syscall.SIGINT, []string{"add", "image", "app", "--ref", "big", "--platform", "linux/amd64", "--layer", "big.tar"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if got := run([]string{"gloci-layout", "init", "-q", filepath.Join(dir, "app")}, t.Output(), t.Output()); got != 0 {
				t.Fatalf("init: exit status %d", got)
			}
			before, err := os.ReadFile(filepath.Join(dir, "app/index.json"))
			if err != nil {
				t.Fatal(err)
			}
			// Large enough that nobody hashes it in the time that a signal takes.
			if err := os.WriteFile(filepath.Join(dir, "big.tar"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(filepath.Join(dir, "big.tar"), 64<<30); err != nil {
				t.Skipf("no sparse files here: %v", err)
			}
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "dir"), 0o755), os.Link(filepath.Join(dir, "big.tar"), filepath.Join(dir, "dir/big"))); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(context.Background(), "gloci-layout", c.args...)
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				if blobs, _ := filepath.Glob(filepath.Join(dir, "app/.gloci/tmp-*/blob-*")); len(blobs) > 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the command does not begin: %s", stderr.String())
				}
			}
			if err := cmd.Process.Signal(c.sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the status tells
			if got := cmd.ProcessState.ExitCode(); got != exitInterrupted || stderr.String() != "gloci-layout: interrupted\n" || stdout.Len() > 0 {
				t.Errorf("exit status %d, want 130\n%s%s", got, stdout.String(), stderr.String())
			}
			after, err := os.ReadFile(filepath.Join(dir, "app/index.json"))
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("index.json was changed (%v)", err)
			}
			own, err := os.ReadDir(filepath.Join(dir, "app/.gloci"))
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range own {
				if strings.HasPrefix(entry.Name(), "tmp-") {
					t.Errorf("%s was left", entry.Name())
				}
			}
		})
	}
}
