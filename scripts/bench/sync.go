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

// startRegistry starts a registry that lasts as long as ctx at most.
func (b *bench) startRegistry(ctx context.Context) (*registry, error) {
	if why := missing("registry"); why != "" {
		return &registry{missing: why}, nil
	}
	store, err := os.MkdirTemp(b.dir, "registry-")
	if err != nil {
		return nil, err
	}
	r := &registry{store: store}
	if r.address, err = freeAddress(ctx); err != nil {
		return nil, err
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

// benchSync: a layout with many ref names goes to a registry that has nothing,
// and to one that has everything.
func (b *bench) benchSync(ctx context.Context, s sizes) error {
	if why := missing("registry"); why != "" {
		b.printf("\nsync: not measured: %s\n", why)
		return nil
	}
	lay := filepath.Join(b.dir, "layout")
	if err := makeShared(lay, s); err != nil {
		return err
	}
	var r *registry
	defer func() { r.stop() }()
	title := fmt.Sprintf("a layout of %s with %d tags", bytesText(s.shared+int64(s.tags)*s.ownLayer), s.tags)

	first := b.pushers(lay, s, func() string { return r.address })
	for _, c := range first {
		c.prepare = func(ctx context.Context) (err error) {
			r.stop()
			r, err = b.startRegistry(ctx)
			return err
		}
	}
	if err := b.compete(ctx, b.dir, b.rounds, first...); err != nil {
		return err
	}
	b.table("sync: first push, "+title, first...)
	b.ahead("sync, first push", first)

	r.stop()
	var err error
	if r, err = b.startRegistry(ctx); err != nil {
		return err
	}
	// The round that is not counted pushes; the others find it done.
	again := b.pushers(lay, s, func() string { return r.address })
	if err := b.compete(ctx, b.dir, b.rounds, again...); err != nil {
		return err
	}
	b.table("sync: nothing to do, "+title, again...)
	b.ahead("sync, nothing to do", again)
	r.stop()
	return remove(lay)(ctx)
}

func (b *bench) ahead(what string, contenders []*contender) {
	for _, c := range contenders[1:3] {
		b.goalRatio(what+" / "+c.name, contenders[0], c, 1)
	}
}

// pushers push the layout, each to a repository of its own.
func (b *bench) pushers(lay string, s sizes, address func() string) []*contender {
	perTag := func(command func(tag string) []string) func() [][]string {
		return func() [][]string {
			var all [][]string
			for i := range s.tags {
				all = append(all, command(tagName(i)))
			}
			return all
		}
	}
	return []*contender{
		{name: ours + " sync", commands: func() [][]string {
			return [][]string{{b.program, "sync", "--quiet", "--tls-verify=false", lay, "docker://" + address() + "/gloci"}}
		}},
		{name: "regctl image copy, per tag", missing: missing("regctl"), commands: perTag(func(tag string) []string {
			return []string{"regctl", "--host", "reg=" + address() + ",tls=disabled", "image", "copy", "ocidir://" + lay + ":" + tag, address() + "/regctl:" + tag}
		})},
		{name: "skopeo copy --all, per tag", missing: missing("skopeo"), commands: perTag(func(tag string) []string {
			return []string{"skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci:" + lay + ":" + tag, "docker://" + address() + "/skopeo:" + tag}
		})},
		{name: "crane push --index, one tag for all", missing: missing("crane"), commands: func() [][]string {
			return [][]string{{"crane", "push", "--insecure", "--index", lay, address() + "/crane:all"}}
		}},
	}
}
