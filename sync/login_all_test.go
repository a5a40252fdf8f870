package sync_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/publish"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A loginOp is a use of a registry. It works in repository name, which holds
// before what push has put there.
type loginOp struct {
	name string
	do   func(ctx context.Context, t *testing.T, reg *regtest.Registry, name string, opts layoutsync.RegistryOptions) error
}

// platforms is a scheme in which container images are the parts of a version.
type platforms struct{}

func (platforms) Part(version string, desc ocispec.Descriptor, _ *layout.Document, platform *ocispec.Platform) (publish.Part, bool) {
	if desc.Platform = platform; platform == nil {
		return publish.Part{}, false
	}
	return publish.Part{Tag: platform.Architecture + "-" + version, Entry: desc, ByTag: true}, true
}

func (platforms) Find(string, string) (publish.Part, bool) { return publish.Part{}, false }

// loginOps are all of them. Their content is small and always the same.
func loginOps(t *testing.T) []loginOp {
	t.Helper()
	const version = "2150.1.0"
	l := pushtest.NewLayout(t, small)
	both := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{version: m.Index(m.Image("amd64", "one"), m.Image("arm64", "two"))}
	})
	return []loginOp{
		{"push", func(ctx context.Context, t *testing.T, reg *regtest.Registry, name string, opts layoutsync.RegistryOptions) error {
			_, err := layoutsync.Push(ctx, l, pushtest.Repository(t, reg, name), &layoutsync.PushOptions{Registry: opts})
			return err
		}},
		{"pull", func(ctx context.Context, t *testing.T, reg *regtest.Registry, name string, opts layoutsync.RegistryOptions) error {
			r, err := layoutsync.OpenRemote(ctx, layout.Reference{Transport: "docker", Location: reg.Host + "/" + name}, &opts)
			if err != nil {
				return err
			}
			defer r.Close()
			into := pushtest.NewLayout(t, func(pushtest.Maker) map[string]ocispec.Descriptor { return nil })
			if _, err := pullAll(t, r, into, &layoutsync.PullOptions{Jobs: opts.Jobs}); err != nil {
				return err
			}
			compareTrees(t, l, into, entries(t, l))
			return nil
		}},
		{"publish", func(ctx context.Context, t *testing.T, reg *regtest.Registry, name string, opts layoutsync.RegistryOptions) error {
			o := &publish.Options{Registry: opts, Version: version, Scheme: platforms{}, Roots: entries(t, both), Aliases: []string{"latest"}}
			report, err := publish.Run(ctx, both, pushtest.Repository(t, reg, name), o)
			if err == nil && (!report.Converged || report.Entries != 2) {
				t.Errorf("%+v", report)
			}
			return err
		}},
	}
}

// TestLoginEverywhere: push, pull and publish at a registry with a private
// authority, with a password and with tokens of its own token server, find the
// credentials where a file, a helper or the store of helpers has them.
func TestLoginEverywhere(t *testing.T) {
	users := map[string]string{"user": canary}
	ops := loginOps(t)
	for kind, reg := range map[string]*regtest.Registry{
		"basic":  regtest.Start(t, &regtest.Options{TLS: true, Users: users}),
		"bearer": regtest.Start(t, &regtest.Options{TLS: true, Users: users, Bearer: true}),
	} {
		home := t.TempDir()
		certs := filepath.Join(home, ".config/containers/certs.d", reg.Host)
		if err := os.MkdirAll(certs, 0o700); err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(reg.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		pushtest.WriteFile(t, certs, "ca.crt", string(ca))
		helper := func(t *testing.T, config string) {
			t.Helper()
			dir := t.TempDir()
			pushtest.WriteFile(t, dir, "config.json", config)
			script := "#!/bin/sh\nread -r host\ntest \"$1\" = get && test \"$host\" = \"" + reg.Host + "\" || exit 1\necho '{\"ServerURL\":\"\",\"Username\":\"user\",\"Secret\":\"" + canary + "\"}'\n"
			if err := os.WriteFile(filepath.Join(dir, "docker-credential-regtest"), []byte(script), 0o700); err != nil { //nolint:gosec // it is run
				t.Fatal(err)
			}
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		}
		for name, setup := range map[string]func(t *testing.T, o *layoutsync.RegistryOptions){
			"authfile and cert-dir": func(t *testing.T, o *layoutsync.RegistryOptions) {
				o.AuthFile, o.CertDir = authFile(t, reg.Host, "user", canary), filepath.Dir(reg.CAFile())
			},
			"credHelpers and certs.d": func(t *testing.T, _ *layoutsync.RegistryOptions) {
				helper(t, fmt.Sprintf(`{"credHelpers":{%q:"regtest"}}`, reg.Host))
				t.Setenv("HOME", home)
			},
			"credsStore and certs.d": func(t *testing.T, _ *layoutsync.RegistryOptions) {
				helper(t, `{"credsStore":"regtest"}`)
				t.Setenv("HOME", home)
			},
		} {
			for _, op := range ops {
				t.Run(kind+" "+name+" "+op.name, func(t *testing.T) {
					opts := pushtest.Options(t, reg)
					setup(t, &opts)
					said := recorded(&opts)
					repo := map[bool]string{true: "app", false: "published"}[op.name != "publish"]
					if op.name == "pull" { // what it is to find
						if err := ops[0].do(t.Context(), t, reg, repo, opts); err != nil {
							t.Fatal(err)
						}
					}
					if err := op.do(t.Context(), t, reg, repo, opts); err != nil {
						t.Error(err)
					}
					wrong := opts
					wrong.Creds = "user:wrong-" + canary
					err := op.do(t.Context(), t, reg, repo, wrong)
					var hint *layout.HintError
					if !errors.Is(err, layoutsync.ErrUnauthorized) || !errors.As(err, &hint) {
						t.Errorf("wrong password: %v, want ErrUnauthorized with a hint", err)
					}
					if text := said.String() + fmt.Sprint(err); strings.Contains(text, canary) {
						t.Errorf("the password stands in %q", text)
					}
				})
			}
		}
	}
}

// recorded makes opts tell all that they can tell, and returns what they told.
func recorded(opts *layoutsync.RegistryOptions) *bytes.Buffer {
	var b bytes.Buffer
	var mu sync.Mutex
	opts.Logger = slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opts.Trace = func(x layoutsync.Exchange) {
		mu.Lock()
		defer mu.Unlock()
		opts.Logger.Debug(fmt.Sprintf("%+v", x))
	}
	return &b
}

// TestTokenExpires: the registry finds the token expired with each request in
// turn. Each use goes on with a new one, and fetches no more than one.
func TestTokenExpires(t *testing.T) {
	reg := regtest.Start(t, &regtest.Options{Users: map[string]string{"user": canary}, Bearer: true})
	opts := pushtest.Options(t, reg)
	opts.Creds = "user:" + canary
	for _, op := range loginOps(t) {
		if op.name == "pull" {
			if err := loginOps(t)[0].do(t.Context(), t, reg, "pull", opts); err != nil {
				t.Fatal(err)
			}
		}
		step := 1
		if testing.Short() {
			step = 5
		}
		for k := 1; ; k += step {
			repo := "pull"
			if op.name != "pull" {
				repo = fmt.Sprint(op.name, k)
			}
			reg.Reset()
			var hook sync.Mutex
			fresh, ended := false, false
			reg.Intercept(func(n int, _ http.ResponseWriter, r *http.Request) bool {
				hook.Lock()
				defer hook.Unlock()
				// A token that is refused at its first use is no use at all.
				if n >= k && !ended && !fresh {
					reg.ExpireTokens()
					ended = true
				}
				fresh = r.URL.Path == "/token"
				return false
			})
			one := opts
			one.Jobs = 1 // else two requests may meet the end
			if err := op.do(t.Context(), t, reg, repo, one); err != nil {
				t.Fatalf("%s, token ends before request %d: %v", op.name, k, err)
			}
			refused := 0
			for _, r := range reg.Requests() {
				if r.Status == http.StatusUnauthorized {
					refused++
				}
			}
			if n := reg.Count(http.MethodGet, "/token"); n > 2 || refused > 4 { // the ping, without a token, with one that has ended, and the upload anew
				t.Errorf("%s, token ends before request %d: %d tokens, %d requests refused", op.name, k, n, refused)
			}
			if !ended { // there are no more requests
				break
			}
		}
	}
}

// TestOtherOrigins: neither a token server elsewhere nor the storage that a
// registry sends to gets to see a password or a token.
func TestOtherOrigins(t *testing.T) {
	var mu sync.Mutex
	var seen []*http.Request
	note := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Clone(context.WithoutCancel(r.Context())))
	}
	users := map[string]string{"user": canary}
	ops := loginOps(t)
	t.Run("token server", func(t *testing.T) {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note(r)
			w.WriteHeader(http.StatusForbidden)
		}))
		defer other.Close()
		host := strings.Replace(other.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
		reg := regtest.Start(t, &regtest.Options{Users: users, Bearer: true, TokenHost: host})
		for _, op := range ops {
			opts := pushtest.Options(t, reg)
			opts.Creds = "user:" + canary
			said := recorded(&opts)
			err := op.do(t.Context(), t, reg, "app", opts)
			var hint *layout.HintError
			if err == nil || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--trust-auth-host") {
				t.Errorf("%s: %v, want a hint at --trust-auth-host", op.name, err)
			}
			if text := said.String() + fmt.Sprint(err); strings.Contains(text, canary) {
				t.Errorf("%s: the password stands in %q", op.name, text)
			}
			if reg.Count(http.MethodPut, "/")+reg.Count(http.MethodPost, "/") > 0 {
				t.Errorf("%s: something was written", op.name)
			}
		}
		if len(seen) > 0 {
			t.Errorf("the other server was asked: %v", seen)
		}
	})
	// As with a registry and its token server in one private network.
	t.Run("trusted token server", func(t *testing.T) {
		reg := regtest.Start(t, &regtest.Options{Users: users, Bearer: true, TokenHost: "localhost"})
		for _, op := range ops {
			opts := pushtest.Options(t, reg)
			opts.Creds, opts.TrustAuthHosts = "user:"+canary, []string{"localhost"}
			if err := op.do(t.Context(), t, reg, map[bool]string{true: "app", false: "published"}[op.name != "publish"], opts); err != nil {
				t.Errorf("%s: %v", op.name, err)
			}
		}
		if reg.Count(http.MethodGet, "/token") == 0 {
			t.Error("no token was fetched")
		}
	})
	t.Run("storage", func(t *testing.T) {
		var behind *regtest.Registry
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			note(r)
			d := r.URL.Path[strings.LastIndex(r.URL.Path, ":")+1:]
			http.ServeFile(w, r, filepath.Join(behind.Root, "docker/registry/v2/blobs/sha256", d[:2], d, "data"))
		}))
		defer other.Close()
		for kind, bearer := range map[string]bool{"basic": false, "bearer": true} {
			reg := regtest.Start(t, &regtest.Options{Users: users, Bearer: bearer})
			behind = reg
			opts := pushtest.Options(t, reg)
			opts.Creds = "user:" + canary
			said := recorded(&opts)
			if err := ops[0].do(t.Context(), t, reg, "app", opts); err != nil {
				t.Fatal(err)
			}
			reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				http.Redirect(w, r, other.URL+r.URL.Path+"?signature="+canary, http.StatusTemporaryRedirect)
				return true
			})
			for _, op := range ops[1:] {
				seen = nil
				if err := op.do(t.Context(), t, reg, "app", opts); err != nil {
					t.Errorf("%s %s: %v", kind, op.name, err)
				}
				if op.name == "pull" && len(seen) == 0 {
					t.Errorf("%s: nobody was redirected", kind)
				}
				for _, r := range seen {
					if len(r.Header.Values("Authorization"))+len(r.Header.Values("Cookie")) > 0 {
						t.Errorf("%s %s: %s has %v", kind, op.name, r.URL, r.Header)
					}
				}
			}
			if strings.Contains(said.String(), canary) {
				t.Errorf("%s: the password or the signature of a URL stands in %q", kind, said)
			}
		}
	})
}
