package regtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// Binary returns the path of the registry's binary; the package comment says
// where it is looked for.
func Binary() (string, error) {
	if path := os.Getenv("GLOCI_REGISTRY"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("GLOCI_REGISTRY: %w", err)
		}
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, ".tools", "bin", "registry")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	path, err := exec.LookPath("registry")
	if err != nil {
		return "", errors.New("the reference registry was not found: set GLOCI_REGISTRY, or run make tools")
	}
	return path, nil
}

// writeConfig writes the configuration of a registry that listens on socket and
// returns its path.
func writeConfig(dir, socket string, opts *Options, tokens *tokenServer) (string, error) {
	var b strings.Builder
	b.WriteString("version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n")
	// Not inmemory: that driver of v3.1.2 answers tags/list with 404.
	fmt.Fprintf(&b, "  filesystem:\n    rootdirectory: %s\n", filepath.Join(dir, "root"))
	fmt.Fprintf(&b, "  delete:\n    enabled: %t\n  maintenance:\n    uploadpurging:\n      enabled: false\n", opts.Delete)
	// relativeurls: the registry does not know the proxy's scheme.
	fmt.Fprintf(&b, "http:\n  net: unix\n  addr: %s\n  relativeurls: true\n  secret: regtest\n", socket)
	// Without this, layers with URLs are refused as an internal error.
	b.WriteString("validation:\n  manifests:\n    urls:\n      allow:\n        - .*\n")
	if len(opts.Users) > 0 && !opts.Bearer {
		file, err := writeUsers(dir, opts.Users)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "auth:\n  htpasswd:\n    realm: regtest\n    path: %s\n", file)
	}
	if tokens != nil {
		fmt.Fprintf(&b, "auth:\n  token:\n    realm: %s\n    service: regtest\n    issuer: %s\n    rootcertbundle: %s\n", tokens.realm, tokenIssuer, tokens.certs)
	}
	config := filepath.Join(dir, "config.yml")
	return config, os.WriteFile(config, []byte(b.String()), 0o600)
}

// writeUsers writes a file in htpasswd's form.
func writeUsers(dir string, users map[string]string) (string, error) {
	var b strings.Builder
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s:%s\n", user, hash)
	}
	file := filepath.Join(dir, "htpasswd")
	return file, os.WriteFile(file, []byte(b.String()), 0o600)
}

// run starts the registry; it is killed when t ends.
func run(t testing.TB, binary, config, logFile string) error {
	output, err := os.Create(logFile)
	if err != nil {
		return err
	}
	// No context: t's is done before its cleanups run, and clients that are
	// still at work must not see the registry vanish.
	cmd := exec.Command(binary, "serve", config) //nolint:noctx // ended by the cleanup below
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	wait, err := StartChild(cmd)
	if closeErr := output.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = wait() // killed: never a success
	})
	return nil
}

// StartChild starts a process that ends with this one, on Linux even where this
// one is killed and so runs no cleanup. wait waits for its end and returns what
// [exec.Cmd.Wait] does; it may be called again.
func StartChild(cmd *exec.Cmd) (wait func() error, err error) {
	cmd.SysProcAttr = dieWithParent()
	started, ended := make(chan error), make(chan struct{})
	var result error
	go func() {
		// The signal of a parent's death is sent when the thread ends that
		// started the child. Threads end, so this one is kept for the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			result = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return func() error {
		<-ended
		return result
	}, nil
}
