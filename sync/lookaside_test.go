package sync_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/openpgp" //nolint:staticcheck // what containers/image verifies with

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A pgpKey signs as gpg does for podman and skopeo (containers-signature(5)).
type pgpKey struct {
	entity *openpgp.Entity
	public string // file
}

func newPGPKey(t *testing.T) *pgpKey {
	t.Helper()
	entity, err := openpgp.NewEntity("regtest", "", "regtest@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, identity := range entity.Identities {
		identity.SelfSignature.PreferredHash = []uint8{8} // SHA-256; the default is compiled in nowhere
	}
	var private, public bytes.Buffer
	if err := errors.Join(entity.SerializePrivate(&private, nil), entity.Serialize(&public)); err != nil { // the first signs the identity
		t.Fatal(err)
	}
	return &pgpKey{entity: entity, public: pushtest.WriteFile(t, t.TempDir(), "key.gpg", public.String())}
}

func (k *pgpKey) sign(t *testing.T, desc ocispec.Descriptor, identity string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, k.entity, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(w, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"atomic container signature"},"optional":{}}`, identity, desc.Digest)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (k *pgpKey) policy(t *testing.T) string {
	t.Helper()
	return pushtest.WriteFile(t, t.TempDir(), "policy.json", fmt.Sprintf(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":%q}]}`, k.public))
}

// TestLookaside: a policy that asks for signatures of GnuPG gets those that lie
// where registries.d says, in a directory or on a server.
func TestLookaside(t *testing.T) {
	users := map[string]string{"user": canary}
	reg, to := regtest.Start(t, &regtest.Options{Users: users}), regtest.Start(t, nil)
	l := pushtest.NewLayout(t, small)
	creds := func(o layoutsync.RegistryOptions) layoutsync.RegistryOptions {
		o.Creds = "user:" + canary
		return o
	}
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "team/app"), &layoutsync.PushOptions{Registry: creds(pushtest.Options(t, reg))}); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	var mu sync.Mutex
	var seen []*http.Request
	status := 0 // what the server answers, if it is not 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if seen = append(seen, r); status != 0 {
			w.WriteHeader(status)
			return
		}
		http.FileServer(http.Dir(root)).ServeHTTP(w, r)
	}))
	defer server.Close()
	key, other := newPGPKey(t), newPGPKey(t)
	for _, desc := range entries(t, l) {
		tag := layout.RefName(desc)
		if tag != "a" {
			continue // "b" is not signed
		}
		dir := filepath.Join(root, "team", "app@sha256="+desc.Digest.Encoded())
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		pushtest.WriteFile(t, dir, "signature-1", other.sign(t, desc, reg.Host+"/team/app:other"))
		pushtest.WriteFile(t, dir, "signature-2", key.sign(t, desc, reg.Host+"/team/app:a"))
	}
	copies := 0
	for name, base := range map[string]string{"directory": "file://" + root, "server": server.URL} {
		config := t.TempDir()
		pushtest.WriteFile(t, config, "default.yaml", fmt.Sprintf("docker:\n  %s:\n    lookaside: %s\n", reg.Host, base))
		pull := func(t *testing.T, tag, policy, config string) error {
			t.Helper()
			opts := creds(pushtest.Options(t, reg))
			opts.Policy, opts.RegistriesDir = policy, config
			r, err := layoutsync.OpenRemote(t.Context(), layout.Reference{Transport: "docker", Location: reg.Host + "/team/app", RefName: tag}, &opts)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			_, err = pullAll(t, r, pushtest.NewLayout(t, func(pushtest.Maker) map[string]ocispec.Descriptor { return nil }), nil)
			push := &layoutsync.PushOptions{Registry: pushtest.Options(t, to)}
			push.Registry.Policy = policy
			copies++
			if _, pushErr := layoutsync.Push(t.Context(), r, pushtest.Repository(t, to, fmt.Sprint("copy", copies)), push); (err == nil) != (pushErr == nil) {
				t.Errorf("pull: %v, push: %v", err, pushErr)
			}
			return err
		}
		t.Run(name, func(t *testing.T) {
			if err := pull(t, "a", key.policy(t), config); err != nil {
				t.Errorf("signed: %v", err)
			}
			for what, err := range map[string]error{
				"unsigned":           pull(t, "b", key.policy(t), config),
				"another key":        pull(t, "a", newPGPKey(t).policy(t), config),
				"nowhere configured": pull(t, "a", key.policy(t), t.TempDir()),
			} {
				var hint *layout.HintError
				if !errors.Is(err, layoutsync.ErrRejected) || !errors.As(err, &hint) {
					t.Errorf("%s: %v, want ErrRejected with a hint", what, err)
				}
			}
			mu.Lock()
			asked := len(seen)
			mu.Unlock()
			accept := pushtest.WriteFile(t, t.TempDir(), "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
			if err := pull(t, "a", accept, config); err != nil || len(seen) != asked {
				t.Errorf("a policy that asks for nothing: %v, %d requests", err, len(seen)-asked)
			}
			if name != "server" {
				return
			}
			mu.Lock()
			status = http.StatusForbidden
			mu.Unlock()
			if err := pull(t, "a", key.policy(t), config); err == nil || errors.Is(err, layoutsync.ErrRejected) || !strings.Contains(err.Error(), "403") {
				t.Errorf("a server that answers 403: %v", err)
			}
		})
	}
	for _, r := range seen {
		if r.Header.Get("Authorization") != "" || strings.Contains(fmt.Sprint(r.Header, r.URL), canary) {
			t.Errorf("%s has credentials: %v", r.URL, r.Header)
		}
	}
	if len(seen) == 0 {
		t.Error("the server was never asked")
	}
}
