package sync_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// canary is a password that may appear in no message.
const canary = "canary-Pa55"

func small(m pushtest.Maker) map[string]ocispec.Descriptor {
	return map[string]ocispec.Descriptor{"a": m.Image("amd64", "one"), "b": m.Image("arm64", "two")}
}

// authFile writes credentials in the form of podman and docker.
func authFile(t *testing.T, key, user, password string) string {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return pushtest.WriteFile(t, t.TempDir(), "auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, auth))
}

// TestLogin finds credentials wherever podman and docker keep them, and counts
// what logging in costs.
func TestLogin(t *testing.T) {
	users := map[string]string{"user": canary}
	basic := regtest.Start(t, &regtest.Options{Users: users})
	bearer := regtest.Start(t, &regtest.Options{Users: users, Bearer: true})
	l := pushtest.NewLayout(t, small)
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, reg *regtest.Registry, opts *layoutsync.RegistryOptions)
		fails bool
	}{
		{"creds", func(_ *testing.T, _ *regtest.Registry, o *layoutsync.RegistryOptions) { o.Creds = "user:" + canary }, false},
		{"authfile", func(t *testing.T, reg *regtest.Registry, o *layoutsync.RegistryOptions) {
			o.AuthFile = authFile(t, reg.Host, "user", canary)
		}, false},
		{"authfile for the repository", func(t *testing.T, reg *regtest.Registry, o *layoutsync.RegistryOptions) {
			o.AuthFile = authFile(t, reg.Host+"/app", "user", canary)
		}, false},
		{"authfile for another repository", func(t *testing.T, reg *regtest.Registry, o *layoutsync.RegistryOptions) {
			o.AuthFile = authFile(t, reg.Host+"/other", "user", canary)
		}, true},
		{"REGISTRY_AUTH_FILE", func(t *testing.T, reg *regtest.Registry, _ *layoutsync.RegistryOptions) {
			t.Setenv("REGISTRY_AUTH_FILE", authFile(t, reg.Host, "user", canary))
		}, false},
		{"DOCKER_CONFIG", func(t *testing.T, reg *regtest.Registry, _ *layoutsync.RegistryOptions) {
			dir := t.TempDir()
			if err := os.Rename(authFile(t, reg.Host, "user", canary), filepath.Join(dir, "config.json")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("DOCKER_CONFIG", dir)
		}, false},
		{"credsStore", func(t *testing.T, _ *regtest.Registry, _ *layoutsync.RegistryOptions) {
			dir := t.TempDir()
			pushtest.WriteFile(t, dir, "config.json", `{"credsStore":"regtest"}`)
			helper := filepath.Join(dir, "docker-credential-regtest")
			script := "#!/bin/sh\ncat >/dev/null\necho '{\"Username\":\"user\",\"Secret\":\"" + canary + "\"}'\n"
			if err := os.WriteFile(helper, []byte(script), 0o700); err != nil { //nolint:gosec // it is run
				t.Fatal(err)
			}
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		}, false},
		{"wrong password", func(_ *testing.T, _ *regtest.Registry, o *layoutsync.RegistryOptions) {
			o.Creds = "user:wrong-" + canary
		}, true},
		{"no credentials", func(*testing.T, *regtest.Registry, *layoutsync.RegistryOptions) {}, true},
		{"none wanted", func(t *testing.T, reg *regtest.Registry, o *layoutsync.RegistryOptions) {
			o.AuthFile, o.NoCreds = authFile(t, reg.Host, "user", canary), true
		}, true},
	} {
		for kind, reg := range map[string]*regtest.Registry{"basic": basic, "bearer": bearer} {
			t.Run(tt.name+" "+kind, func(t *testing.T) {
				opts := pushtest.Options(t, reg)
				tt.setup(t, reg, &opts)
				var log bytes.Buffer
				opts.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				_, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: opts})
				for _, text := range []string{log.String(), fmt.Sprint(err), fmt.Sprintf("%+v %#v %s", opts, opts, opts.Creds)} {
					if strings.Contains(text, canary) {
						t.Errorf("the password stands in %q", text)
					}
				}
				if tt.fails {
					var hint *layout.HintError
					if !errors.Is(err, layoutsync.ErrUnauthorized) || !errors.As(err, &hint) {
						t.Errorf("Push = %v, want ErrUnauthorized with a hint", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				reg.Reset()
				if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: opts}); err != nil {
					t.Fatal(err)
				}
				want := map[string]int{"GET ping": 1, "HEAD manifest": 2 + 1} // the first is answered 401
				if kind == "bearer" {
					want["GET token"] = 1
				}
				if diff := cmp.Diff(want, counts(reg)); diff != "" {
					t.Errorf("requests of a push without changes (-want +got):\n%s", diff)
				}
			})
		}
	}
	t.Run("named authfile is missing", func(t *testing.T) {
		opts := pushtest.Options(t, basic)
		opts.AuthFile = filepath.Join(t.TempDir(), "none.json")
		_, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, basic, "app"), &layoutsync.PushOptions{Registry: opts})
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Push = %v, want ErrNotExist", err)
		}
	})
}

// TestOneToken: many parallel workers of a first push fetch one token.
func TestOneToken(t *testing.T) {
	reg := regtest.Start(t, &regtest.Options{Bearer: true})
	l := pushtest.NewLayout(t, everything)
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	if n := counts(reg)["GET token"]; n != 1 {
		t.Errorf("%d tokens were fetched", n)
	}
}

func TestTLS(t *testing.T) {
	reg := regtest.Start(t, &regtest.Options{TLS: true})
	l := pushtest.NewLayout(t, small)
	dest := pushtest.Repository(t, reg, "app")
	verify, skip := true, false
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
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, o *layoutsync.RegistryOptions)
		fails string
		pings int
	}{
		{"unknown authority", func(*testing.T, *layoutsync.RegistryOptions) {}, "certificate", 0},
		{"cert-dir", func(_ *testing.T, o *layoutsync.RegistryOptions) { o.CertDir = filepath.Dir(reg.CAFile()) }, "", 0},
		{"certs.d", func(t *testing.T, _ *layoutsync.RegistryOptions) { t.Setenv("HOME", home) }, "", 0},
		{"not verified", func(_ *testing.T, o *layoutsync.RegistryOptions) { o.TLSVerify = &skip }, "", 1},
		{"registries.conf: insecure", func(t *testing.T, o *layoutsync.RegistryOptions) {
			o.RegistriesConf = pushtest.WriteFile(t, t.TempDir(), "registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", reg.Host))
		}, "", 1},
		{"registries.conf: insecure, but the option says verify", func(t *testing.T, o *layoutsync.RegistryOptions) {
			o.RegistriesConf = pushtest.WriteFile(t, t.TempDir(), "registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", reg.Host))
			o.TLSVerify = &verify
		}, "certificate", 0},
		{"registries.conf: blocked", func(t *testing.T, o *layoutsync.RegistryOptions) {
			o.RegistriesConf = pushtest.WriteFile(t, t.TempDir(), "registries.conf", fmt.Sprintf("[[registry]]\nlocation = %q\nblocked = true\n", reg.Host))
		}, "blocked", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := pushtest.Options(t, reg)
			tt.setup(t, &opts)
			reg.Reset()
			_, err := layoutsync.Push(t.Context(), l, dest, &layoutsync.PushOptions{Registry: opts})
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("Push = %v, want something of %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := counts(reg)["GET ping"]; n != tt.pings {
				t.Errorf("%d pings, want %d", n, tt.pings)
			}
		})
	}
	t.Run("plain HTTP is not for everybody", func(t *testing.T) {
		plain := regtest.Start(t, nil)
		opts := pushtest.Options(t, plain)
		opts.TLSVerify = nil
		_, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, plain, "app"), &layoutsync.PushOptions{Registry: opts})
		var hint *layout.HintError
		if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--tls-verify") {
			t.Errorf("Push = %v, want a hint", err)
		}
	})
}

// TestMirror reads from the mirror that registries.conf names, and from the
// registry itself where the mirror fails.
func TestMirror(t *testing.T) {
	mirror := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, small)
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, mirror, "mirrored/app"), &layoutsync.PushOptions{Registry: pushtest.Options(t, mirror)}); err != nil {
		t.Fatal(err)
	}
	closed := unused(t)
	opts := pushtest.Options(t, mirror)
	opts.RegistriesConf = pushtest.WriteFile(t, t.TempDir(), "registries.conf", fmt.Sprintf(
		"[[registry]]\nprefix = \"registry.example\"\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n[[registry.mirror]]\nlocation = %q\n", closed, closed, mirror.Host+"/mirrored"))
	src, err := layoutsync.OpenSource(t.Context(), layout.Reference{Transport: "docker", Location: "registry.example/app", RefName: "a"}, &opts)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	compareTrees(t, l, src, entries(t, src))
	if src.String() != "docker://registry.example/app:a" {
		t.Errorf("String = %q", src)
	}
}

// unused returns an address that nobody listens at.
func unused(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestUnreachable(t *testing.T) {
	l := pushtest.NewLayout(t, small)
	host := unused(t)
	for _, verify := range []bool{true, false} {
		opts := pushtest.Options(t, nil)
		opts.TLSVerify = &verify
		dest, err := layoutsync.ParseRepository(host + "/app")
		if err != nil {
			t.Fatal(err)
		}
		report, err := layoutsync.Push(t.Context(), l, dest, &layoutsync.PushOptions{Registry: opts})
		if err == nil || errors.Is(err, layout.ErrNotFound) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Push = %v", err)
		}
		if strings.Contains(fmt.Sprint(err), "\n") {
			t.Errorf("more than one line: %v", err)
		}
		if report == nil || report.Changed() {
			t.Errorf("report %+v", report)
		}
	}
}

// TestRejected: what policy.json does not let pass is not sent, images and
// artifacts alike.
func TestRejected(t *testing.T) {
	reg := regtest.Start(t, nil)
	for name, fill := range map[string]func(m pushtest.Maker) map[string]ocispec.Descriptor{
		"image": small,
		"artifact": func(m pushtest.Maker) map[string]ocispec.Descriptor {
			return map[string]ocispec.Descriptor{"a": m.Artifact("application/vnd.example.kernel", "kernel", nil)}
		},
	} {
		l := pushtest.NewLayout(t, fill)
		opts := pushtest.Options(t, reg)
		opts.Policy = pushtest.WriteFile(t, t.TempDir(), "policy.json", fmt.Sprintf(
			`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"oci":{%q:[{"type":"reject"}]}}}`, filepath.Dir(l.Dir())))
		reg.Reset()
		_, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: opts})
		if !errors.Is(err, layoutsync.ErrRejected) {
			t.Errorf("%s: Push = %v, want ErrRejected", name, err)
		}
		if n := reg.Count(http.MethodPut, "/"); n > 0 {
			t.Errorf("%s: %d PUTs", name, n)
		}
		opts.Policy = filepath.Join(t.TempDir(), "none.json")
		if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "app"), &layoutsync.PushOptions{Registry: opts}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a named policy that is missing: %v", name, err)
		}
	}
}
