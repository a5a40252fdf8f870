package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A registry is the reference registry, with a new store.
type registry struct {
	address string
	missing string // why there is none
	store   string
	cmd     *exec.Cmd
}

const registryConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: %q}
`

// startRegistry starts a registry at address, "" for a free one, that lasts as
// long as ctx at most.
func (b *bench) startRegistry(ctx context.Context, address string) (*registry, error) {
	if why := missing("registry"); why != "" {
		return &registry{missing: why}, nil
	}
	store, err := os.MkdirTemp(b.dir, "registry-")
	if err != nil {
		return nil, err
	}
	r := &registry{store: store, address: address}
	if address == "" {
		if r.address, err = freeAddress(ctx); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(store, "config.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, registryConfig, store, r.address), 0o600); err != nil {
		return nil, err
	}
	r.cmd = exec.CommandContext(ctx, "registry", "serve", config)
	r.cmd.Env = append([]string{"OTEL_TRACES_EXPORTER=none"}, b.env...)
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if ready(ctx, r.address) {
			return r, nil
		}
		if now().After(deadline) || ctx.Err() != nil {
			r.stop()
			return nil, errors.New("the registry does not answer")
		}
	}
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func ready(ctx context.Context, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v2/", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}

// stop ends the registry and removes its store. What it says on its way is of
// no interest.
func (r *registry) stop() {
	if r == nil || r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	_ = os.RemoveAll(r.store)
	r.cmd = nil
}
