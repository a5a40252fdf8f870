package durable_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gardenlinux/gloci-layout/layout/internal/durable"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, commit := range []bool{false, true} {
		f, err := durable.Replace(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("new"); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); string(got) != "old" || err != nil {
			t.Errorf("before Commit: %q, %v", got, err)
		}
		want := "old"
		if commit {
			want = "new"
			if err := f.Commit(0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Discard(); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(path); string(got) != want || err != nil {
			t.Errorf("commit %v: %q, %v; want %q", commit, got, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v; want 0644", info.Mode(), err)
	}
	if names, err := os.ReadDir(dir); len(names) != 1 || err != nil {
		t.Errorf("%v, %v: temporary files are left", names, err)
	}
}

func TestCommitNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for i, want := range []error{nil, fs.ErrExist} {
		f, err := durable.Replace(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString([]string{"first", "second"}[i]); err != nil {
			t.Fatal(err)
		}
		if err := f.CommitNew(0o644); !errors.Is(err, want) {
			t.Errorf("CommitNew = %v, want %v", err, want)
		}
		_ = f.Discard()
	}
	if got, err := os.ReadFile(path); string(got) != "first" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestReplaceNamesThePath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "f")
	_, err := durable.Replace(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path+":") {
		t.Errorf("Replace = %v, want fs.ErrNotExist that names %s", err, path)
	}
}

func TestRenameNoReplace(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := errors.Join(os.Mkdir(a, 0o755), os.Mkdir(b, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := durable.RenameNoReplace(a, b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an empty directory: %v, want fs.ErrExist", err)
	}
	if err := errors.Join(os.Remove(b), durable.RenameNoReplace(a, b)); err != nil {
		t.Error(err)
	}
}

func openLock(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := openLock(t, path), openLock(t, path)
	if err := errors.Join(durable.Lock(t.Context(), a, durable.Shared), durable.Lock(t.Context(), b, durable.Shared)); err != nil {
		t.Fatal(err)
	}
	if ok, err := durable.TryLock(a, durable.Exclusive); ok || err != nil {
		t.Errorf("exclusive beside a shared lock: %v, %v", ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := durable.Lock(ctx, a, durable.Exclusive); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock = %v, want the end of its context", err)
	}
	got := make(chan error)
	go func() { got <- durable.Lock(context.Background(), a, durable.Exclusive) }()
	if err := durable.Unlock(b); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if ok, err := durable.TryLock(b, durable.Shared); ok || err != nil {
		t.Errorf("shared beside an exclusive lock: %v, %v", ok, err)
	}
	if err := a.Close(); err != nil { // ends the lock
		t.Fatal(err)
	}
	if ok, err := durable.TryLock(b, durable.Exclusive); !ok || err != nil {
		t.Errorf("after the holder closed: %v, %v", ok, err)
	}
}

func TestLockFile(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	unlock, err := durable.LockFile(t.Context(), root, "l", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.LockFile(t.Context(), root, "l", 20*time.Millisecond); !errors.Is(err, durable.ErrHeld) {
		t.Errorf("a second lock: %v, want ErrHeld", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := durable.LockFile(ctx, root, "l", time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("LockFile = %v, want the end of its context", err)
	}
	got := make(chan error)
	go func() {
		again, err := durable.LockFile(context.Background(), root, "l", time.Minute)
		if err == nil {
			err = again()
		}
		got <- err
	}()
	if err := errors.Join(unlock(), <-got); err != nil {
		t.Error(err)
	}
}
