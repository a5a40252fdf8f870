package sync_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/docker"
	ocilayout "github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/signature/sigstore"
	"github.com/containers/image/v5/types"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/archive"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

// A keyPair is one of containers/image: the files that skopeo takes.
type keyPair struct {
	private, public, passphrase string
	signer                      *layoutsync.Signer
}

// A madeKey is what the key pairs of all tests with one number have in common.
type madeKey struct {
	pair   sigstore.GenerateKeyPairResult
	signer *layoutsync.Signer
	err    error
}

// madeKeys are made when they are asked for, once: scrypt, which seals them,
// takes its time.
var madeKeys = [2]func() madeKey{sync.OnceValue(makeKey), sync.OnceValue(makeKey)}

func makeKey() (k madeKey) {
	pair, err := sigstore.GenerateKeyPair([]byte("sesame"))
	if err != nil {
		return madeKey{err: err}
	}
	k.pair = *pair
	dir, err := os.MkdirTemp("", "key-")
	if err != nil {
		return madeKey{err: err}
	}
	defer os.RemoveAll(dir) //nolint:errcheck // below the directory that TestMain removes
	private, passphrase := filepath.Join(dir, "key.private"), filepath.Join(dir, "passphrase")
	if err := errors.Join(os.WriteFile(private, pair.PrivateKey, 0o600), os.WriteFile(passphrase, []byte("sesame\n"), 0o600)); err != nil {
		return madeKey{err: err}
	}
	k.signer, k.err = layoutsync.OpenSigner(private, passphrase)
	return k
}

// newKey is key pair number i, 0 or 1, in files of the test.
func newKey(t *testing.T, i int) *keyPair {
	t.Helper()
	made := madeKeys[i]()
	if made.err != nil {
		t.Fatal(made.err)
	}
	dir := t.TempDir()
	return &keyPair{
		private: pushtest.WriteFile(t, dir, "key.private", string(made.pair.PrivateKey)), public: pushtest.WriteFile(t, dir, "key.pub", string(made.pair.PublicKey)),
		passphrase: pushtest.WriteFile(t, dir, "passphrase", "sesame\n"), signer: made.signer,
	}
}

// keyOf makes the files of a key that containers/image does not make itself.
func keyOf(t *testing.T, private crypto.Signer) *keyPair {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := encrypted.Encrypt(der, []byte("sesame"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	k := &keyPair{
		private:    pushtest.WriteFile(t, dir, "key.private", string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED COSIGN PRIVATE KEY", Bytes: sealed}))),
		public:     pushtest.WriteFile(t, dir, "key.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))),
		passphrase: pushtest.WriteFile(t, dir, "passphrase", "sesame"),
	}
	if k.signer, err = layoutsync.OpenSigner(k.private, k.passphrase); err != nil {
		t.Fatal(err)
	}
	return k
}

// signedPolicy asks for signatures of the key by everything.
func signedPolicy(t *testing.T, k *keyPair, identity string) string {
	t.Helper()
	if identity != "" {
		identity = `,"signedIdentity":` + identity
	}
	return pushtest.WriteFile(t, t.TempDir(), "policy.json", fmt.Sprintf(`{"default":[{"type":"sigstoreSigned","keyPath":%q%s}]}`, k.public, identity))
}

// theirs copies with containers/image alone, its client of registries and its
// policy, as skopeo and podman do. Those of Debian are no use here: they are
// built without sigstore ("Debian-local change: sigstore disabled").
func theirs(t *testing.T, policy, from, to string, opts copy.Options) error {
	t.Helper()
	dir := t.TempDir()
	pushtest.WriteFile(t, dir, "default.yaml", "default-docker:\n  use-sigstore-attachments: true\n")
	parsed, err := signature.NewPolicyFromFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	c, err := signature.NewPolicyContext(parsed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Destroy() }() // frees memory only
	parse := func(s string) (types.ImageReference, error) {
		transport, rest, _ := strings.Cut(s, ":")
		switch transport {
		case "docker":
			return docker.ParseReference(rest)
		case "dir":
			return directory.NewReference(rest)
		}
		return ocilayout.ParseReference(rest)
	}
	src, srcErr := parse(from)
	dest, destErr := parse(to)
	if err := errors.Join(srcErr, destErr); err != nil {
		t.Fatal(err)
	}
	opts.SourceCtx = &types.SystemContext{
		RegistriesDirPath: dir, DockerInsecureSkipTLSVerify: types.OptionalBoolTrue, BlobInfoCacheDir: dir,
		SystemRegistriesConfPath: pushtest.WriteFile(t, dir, "registries.conf", ""), SystemRegistriesConfDirPath: filepath.Join(dir, "none"),
		OSChoice: "linux", ArchitectureChoice: "amd64",
	}
	opts.DestinationCtx = opts.SourceCtx
	_, err = copy.Image(t.Context(), c, dest, src, &opts)
	return err
}

func signAndPush(t *testing.T, reg *regtest.Registry, src layout.Source, keys ...*keyPair) (*layoutsync.Report, error) {
	t.Helper()
	opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}
	for _, k := range keys {
		opts.Signers = append(opts.Signers, k.signer)
	}
	return layoutsync.Push(t.Context(), src, pushtest.Repository(t, reg, "team/app"), opts)
}

func sigTag(d digest.Digest) string { return dashed(d) + ".sig" }

// signaturesOf returns the identities that signatures at the registry are for.
func signaturesOf(t *testing.T, reg *regtest.Registry, d digest.Digest) []string {
	t.Helper()
	src := openRepo(t, reg, layout.Reference{RefName: sigTag(d)})
	doc, err := layout.ReadDocument(t.Context(), src, entries(t, src)[0])
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, l := range doc.Layers {
		raw, err := layout.ReadAll(t.Context(), src, l, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var p struct {
			Critical struct {
				Identity struct {
					Reference string `json:"docker-reference"`
				} `json:"identity"`
				Image struct {
					Digest digest.Digest `json:"docker-manifest-digest"`
				} `json:"image"`
			} `json:"critical"`
		}
		if err := json.Unmarshal(raw, &p); err != nil || p.Critical.Image.Digest != d {
			t.Fatalf("%s, %v; want %s", raw, err, d)
		}
		list = append(list, strings.TrimPrefix(p.Critical.Identity.Reference, reg.Host))
	}
	// The config lists the layers, as those expect who read an image.
	raw, err := layout.ReadAll(t.Context(), src, *doc.Config, 1<<20)
	var config ocispec.Image
	if err != nil || json.Unmarshal(raw, &config) != nil || len(config.RootFS.DiffIDs) != len(doc.Layers) {
		t.Errorf("config %s, %v", raw, err)
	}
	return list
}

// appOf makes a layout with an index of two images and an artifact that
// containers/image can pull.
func appOf(t *testing.T) (l *layout.Layout, app, image, artifact ocispec.Descriptor) {
	t.Helper()
	l = pullable(t)
	hello, err := layout.ResolveOne(t.Context(), l, "hello", "")
	if err != nil {
		t.Fatal(err)
	}
	image = ocispec.Descriptor{MediaType: hello.MediaType, Digest: hello.Digest, Size: hello.Size, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	pushtest.Edit(t, l, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		artifact = m.Artifact("application/vnd.example.kernel", "kernel", nil)
		app = m.Index(image, m.Image("arm64", "other"), artifact)
		return map[string]ocispec.Descriptor{"1.0": app, "latest": app}
	})
	return l, app, image, artifact
}

// TestSign: containers/image takes what was signed, under each of its tags, and
// nothing else; signing again changes nothing.
func TestSign(t *testing.T) {
	reg := regtest.Start(t, nil)
	l, app, image, artifact := appOf(t)
	key, other := newKey(t, 0), newKey(t, 1)
	if _, err := signAndPush(t, reg, l); err != nil {
		t.Fatal(err)
	}
	ref := "docker://" + reg.Host + "/team/app"
	check := func(k *keyPair, want bool) {
		t.Helper()
		policy := signedPolicy(t, k, "")
		for from, which := range map[string]copy.ImageListSelection{
			ref + ":1.0": copy.CopyAllImages, ref + ":latest": copy.CopySystemImage, ref + ":hello": copy.CopySystemImage,
			ref + "@" + string(artifact.Digest): copy.CopySystemImage, ref + "@" + string(app.Digest): copy.CopyAllImages,
		} {
			err := theirs(t, policy, from, "dir:"+t.TempDir(), copy.Options{ImageListSelection: which})
			if (err == nil) != want || !want && !strings.Contains(err.Error(), "ignature") {
				t.Errorf("%s: %v, want success %v", from, err, want)
			}
		}
	}
	check(key, false) // unsigned

	before := pushtest.ResolveTags(t, reg, "team/app")
	reg.Reset()
	report, err := signAndPush(t, reg, l, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range report.Tags {
		want := layoutsync.TagUnchanged
		if strings.HasSuffix(tag.Tag, ".sig") {
			want = layoutsync.TagCreated
		}
		if tag.State != want {
			t.Errorf("tag %s is %s, want %s", tag.Tag, tag.State, want)
		}
	}
	check(key, true)
	check(other, false)
	wantIdentities := []string{"/team/app:1.0", "/team/app:hello", "/team/app:latest"}
	if diff := cmp.Diff(wantIdentities, signaturesOf(t, reg, image.Digest)); diff != "" {
		t.Errorf("identities of the image (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/team/app:1.0", "/team/app:latest"}, signaturesOf(t, reg, app.Digest)); diff != "" {
		t.Errorf("identities of the index (-want +got):\n%s", diff)
	}
	after := pushtest.ResolveTags(t, reg, "team/app")
	for tag, d := range before {
		if after[tag] != d {
			t.Errorf("tag %s was moved", tag)
		}
	}
	if len(after) != len(before)+4 {
		t.Errorf("%d tags, want one more for each of 4 documents: %v", len(after), after)
	}

	reg.Reset()
	if report, err = signAndPush(t, reg, l, key); err != nil || report.Changed() || reg.Count(http.MethodPut, "/") > 0 || reg.Count(http.MethodPost, "/") > 0 {
		t.Errorf("signing again: %v, changed %v, %v", err, report.Changed(), counts(reg))
	}
	// Another key's signatures are added, which does not take any away.
	if report, err = signAndPush(t, reg, l, other); err != nil || !report.Changed() {
		t.Errorf("another key: %v, changed %v", err, report.Changed())
	}
	check(key, true)
	check(other, true)
	if n := len(signaturesOf(t, reg, app.Digest)); n != 4 {
		t.Errorf("%d signatures of the index, want 4", n)
	}
	// Without a key they stay, also when the layout has others.
	if report, err = signAndPush(t, reg, l); err != nil || report.Changed() {
		t.Errorf("without a key: %v, changed %v", err, report.Changed())
	}
}

// TestSignAfterOthers: what containers/image has signed keeps that signature, and the
// other way around.
func TestSignAfterOthers(t *testing.T) {
	reg := regtest.Start(t, nil)
	l, _, image, _ := appOf(t)
	key, other := newKey(t, 0), newKey(t, 1)
	open := pushtest.WriteFile(t, t.TempDir(), "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	ref := "docker://" + reg.Host + "/team/app:hello"
	pull := func(k *keyPair) error {
		return theirs(t, signedPolicy(t, k, ""), ref, "dir:"+t.TempDir(), copy.Options{})
	}
	for range 2 {
		err := theirs(t, open, "oci:"+l.Dir()+":hello", ref, copy.Options{
			SignBySigstorePrivateKeyFile: key.private, SignSigstorePrivateKeyPassphrase: []byte("sesame"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signAndPush(t, reg, l, other); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(pull(key), pull(other)); err != nil {
			t.Error(err)
		}
	}
	if n := len(signaturesOf(t, reg, image.Digest)); n < 4 { // 1.0, hello, latest, and the other key's
		t.Errorf("%d signatures", n)
	}
	// What their program has signed with the same key needs no second signature.
	count := func(identity string) (n int) {
		for _, one := range signaturesOf(t, reg, image.Digest) {
			if one == identity {
				n++
			}
		}
		return n
	}
	before := count("/team/app:hello")
	if _, err := signAndPush(t, reg, l, key); err != nil {
		t.Fatal(err)
	}
	if n := count("/team/app:hello"); n != before {
		t.Errorf("%d signatures of the tag that they had signed, want %d", n, before)
	}
	if n := count("/team/app:1.0"); n != 2 {
		t.Errorf("%d signatures of a tag that they had not signed, want one by each key", n)
	}
}

// TestSignRSA: gardenlinux-update takes the first layer of the signatures of a
// digest, looks for that digest in its text, and wants PKCS #1 v1.5 of its hash
// (package-gardenlinux-update, src/main.go, verifyManifest).
func TestSignRSA(t *testing.T) {
	reg := regtest.Start(t, nil)
	l, _, image, artifact := appOf(t)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key := keyOf(t, private)
	if _, err := signAndPush(t, reg, l, key); err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.Digest{image.Digest, artifact.Digest} {
		src := openRepo(t, reg, layout.Reference{RefName: sigTag(d)})
		doc, err := layout.ReadDocument(t.Context(), src, entries(t, src)[0])
		if err != nil {
			t.Fatal(err)
		}
		text, err := layout.ReadAll(t.Context(), src, doc.Layers[0], 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := base64.StdEncoding.DecodeString(doc.Layers[0].Annotations["dev.cosignproject.cosign/signature"])
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(text)
		if err := rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA256, sum[:], signed); err != nil {
			t.Errorf("%s: %v", d, err)
		}
		if !strings.Contains(string(text), `"docker-manifest-digest":"`+string(d)+`"`) {
			t.Errorf("%s is not in %s", d, text)
		}
	}
	if err := theirs(t, signedPolicy(t, key, ""), "docker://"+reg.Host+"/team/app:hello", "dir:"+t.TempDir(), copy.Options{}); err != nil {
		t.Error(err)
	}
}

// TestSignKeys: all kinds of keys sign, the same each time, and recognize what
// they have signed.
func TestSignKeys(t *testing.T) {
	_, young, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, private := range map[string]crypto.Signer{"Ed25519": young, "P-384": curve} {
		t.Run(name, func(t *testing.T) {
			reg := regtest.Start(t, nil)
			l, _, _, _ := appOf(t)
			key := keyOf(t, private)
			for i := range 2 {
				report, err := signAndPush(t, reg, l, key)
				if err != nil || report.Changed() != (i == 0) {
					t.Fatalf("push %d: changed %v, %v", i, report.Changed(), err)
				}
			}
			if err := theirs(t, signedPolicy(t, key, ""), "docker://"+reg.Host+"/team/app:hello", "dir:"+t.TempDir(), copy.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSignFails: nothing is written with a wrong key, and when a tag fails, no
// new tag stays.
func TestSignFails(t *testing.T) {
	key := newKey(t, 0)
	dir := t.TempDir()
	wrong, public := pushtest.WriteFile(t, dir, "wrong", "open\n"), key.public
	for _, tt := range []struct{ file, passphrase, text string }{
		{key.private, wrong, "decrypt"},
		{public, key.passphrase, "not an encrypted private key"},
		{filepath.Join(dir, "none"), key.passphrase, "none"},
		{key.private, filepath.Join(dir, "none"), "none"},
	} {
		if _, err := layoutsync.OpenSigner(tt.file, tt.passphrase); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("OpenSigner(%s, %s) = %v, want %q", filepath.Base(tt.file), filepath.Base(tt.passphrase), err, tt.text)
		}
	}
	for text, want := range map[string]error{
		"privateKeyFile: " + key.private + "\nprivateKeyPassphraseFile: " + key.passphrase + "\n": nil,
		"privateKeyFile: " + key.private + "\n":                                                   layout.ErrInvalid,
		"privateKeyPassphraseFile: x\n":                                                           layout.ErrInvalid,
		"privateKeyFile: x\nrekorURL: https://rekor.example\n":                                    errors.ErrUnsupported,
		"fulcio: {fulcioURL: \"https://fulcio.example\"}\n":                                       errors.ErrUnsupported,
	} {
		if _, err := layoutsync.OpenSigningParams(pushtest.WriteFile(t, dir, "params", text), ""); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}

	reg := regtest.Start(t, &regtest.Options{Delete: true})
	l, _, _, _ := appOf(t)
	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/latest") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	if _, err := signAndPush(t, reg, l, key); err == nil {
		t.Fatal("a tag that failed is no error")
	}
	reg.Intercept(nil)
	for tag := range pushtest.ResolveTags(t, reg, "team/app") {
		if !strings.HasPrefix(tag, "error: ") { // no such repository
			t.Errorf("tag %s was left", tag)
		}
	}
	reg.Reset()
	if _, err := signAndPush(t, reg, l, key); err != nil {
		t.Error(err)
	}
	var order []bool // of the tags: is it one of signatures?
	for _, r := range reg.Requests() {
		if _, tag, ok := strings.Cut(r.Path, "/manifests/"); ok && r.Method == http.MethodPut && !strings.Contains(tag, ":") {
			order = append(order, strings.HasSuffix(tag, ".sig"))
		}
	}
	if diff := cmp.Diff([]bool{true, true, true, true, false, false, false}, order); diff != "" {
		t.Errorf("tags of signatures first (-want +got):\n%s", diff)
	}
}

// signedSources are the ways in which content comes with its signatures, and
// the repository that these are for.
func signedSources(t *testing.T, k *keyPair) (map[string]layout.Source, string) {
	t.Helper()
	reg := regtest.Start(t, nil)
	l, _, _, _ := appOf(t)
	if _, err := signAndPush(t, reg, l, k); err != nil {
		t.Fatal(err)
	}
	copied := pushtest.NewLayout(t, func(pushtest.Maker) map[string]ocispec.Descriptor { return nil })
	if _, err := pull(t, reg, "team/app", copied, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "copied.tar")
	if _, err := archive.PackFile(t.Context(), copied, file, nil); err != nil {
		t.Fatal(err)
	}
	packed, err := archive.Open(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = packed.Close() })
	dir := filepath.Join(t.TempDir(), "dir")
	policy := pushtest.WriteFile(t, t.TempDir(), "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	if err := theirs(t, policy, "docker://"+reg.Host+"/team/app:1.0", "dir:"+dir, copy.Options{ImageListSelection: copy.CopyAllImages}); err != nil {
		t.Fatal(err)
	}
	fromDir, err := open(t, nil, "dir:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]layout.Source{
		"registry": openRemote(t, reg, "team/app"), "tag": openRepo(t, reg, layout.Reference{RefName: "1.0"}),
		"layout": copied, "tarball": packed, "dir": fromDir,
	}, reg.Host + "/team/app"
}

// TestSignedSources: policy.json is asked with the signatures that a source has.
func TestSignedSources(t *testing.T) {
	key, other := newKey(t, 0), newKey(t, 1)
	sources, repo := signedSources(t, key)
	for name, src := range sources {
		t.Run(name, func(t *testing.T) {
			to := regtest.Start(t, nil)
			push := func(k *keyPair, identity string) error {
				to.Reset()
				opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, to)}
				opts.Registry.Policy = signedPolicy(t, k, identity)
				_, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, to, "copy"), opts)
				if err != nil && to.Count(http.MethodPut, "/") > 0 {
					t.Errorf("requests %v", counts(to))
				}
				return err
			}
			identity := ""
			if _, ok := src.(*layoutsync.Remote); !ok {
				// A file has no name that a signature could be for: the policy has
				// to say it, as with podman.
				if err := push(key, ""); !errors.Is(err, layoutsync.ErrRejected) {
					t.Errorf("without a name: %v", err)
				}
				identity = fmt.Sprintf(`{"type":"exactRepository","dockerRepository":%q}`, repo)
			}
			if err := push(other, identity); !errors.Is(err, layoutsync.ErrRejected) {
				t.Errorf("signed by another: %v", err)
			}
			if err := push(key, `{"type":"exactRepository","dockerRepository":"example.org/else"}`); !errors.Is(err, layoutsync.ErrRejected) {
				t.Errorf("signed for another: %v", err)
			}
			if err := push(key, identity); err != nil {
				t.Errorf("signed: %v", err)
			}
		})
	}
}

// TestPullSigned: what is pulled has to be signed too, for the tag that it is
// pulled by, if policy.json says so.
func TestPullSigned(t *testing.T) {
	reg := regtest.Start(t, nil)
	l, app, image, _ := appOf(t)
	key, other := newKey(t, 0), newKey(t, 1)
	if _, err := signAndPush(t, reg, l, key); err != nil {
		t.Fatal(err)
	}
	// Another image under a tag, of which there is no signature; and a signed
	// one under a tag that it was not signed for.
	pushtest.Edit(t, l, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"unsigned": m.Index(m.Image("s390x", "unsigned")), "moved": app}
	})
	if _, err := signAndPush(t, reg, l); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		ref  layout.Reference
		key  *keyPair
		opts *layoutsync.PullOptions
		want error
	}{
		{"index", layout.Reference{RefName: "1.0"}, key, nil, nil},
		{"digest", layout.Reference{Digest: image.Digest}, key, nil, nil},
		{"no referrers", layout.Reference{RefName: "1.0"}, key, &layoutsync.PullOptions{NoReferrers: true}, nil},
		{"other key", layout.Reference{RefName: "1.0"}, other, nil, layoutsync.ErrRejected},
		{"unsigned", layout.Reference{RefName: "unsigned"}, key, nil, layoutsync.ErrRejected},
		{"other tag", layout.Reference{RefName: "moved"}, key, nil, layoutsync.ErrRejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := pushtest.Options(t, reg)
			opts.Policy = signedPolicy(t, tt.key, "")
			tt.ref.Transport, tt.ref.Location = "docker", reg.Host+"/team/app"
			r, err := layoutsync.OpenRemote(t.Context(), tt.ref, &opts)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			into := pushtest.NewLayout(t, func(pushtest.Maker) map[string]ocispec.Descriptor { return nil })
			if _, err := pullAll(t, r, into, tt.opts); !errors.Is(err, tt.want) {
				t.Fatalf("Pull = %v, want %v", err, tt.want)
			}
			blobs := 0
			for _, err := range into.Blobs(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				blobs++
			}
			if (blobs == 0) != (tt.want != nil) {
				t.Errorf("%d blobs", blobs)
			}
		})
	}
}

// TestSignMerged: signatures that both sides have of one thing come together.
func TestSignMerged(t *testing.T) {
	from, reg := regtest.Start(t, nil), regtest.Start(t, nil)
	l, _, image, _ := appOf(t)
	vendor, ours := newKey(t, 0), newKey(t, 1)
	if _, err := signAndPush(t, from, l, vendor); err != nil {
		t.Fatal(err)
	}
	src := openRemote(t, from, "team/app")
	for i, keys := range [][]*keyPair{{ours}, nil, {ours}, {vendor}, {vendor}} {
		report, err := signAndPush(t, reg, []layout.Source{l, src, src, l, src}[i], keys...)
		if err != nil {
			t.Fatal(err)
		}
		if changed := i == 0 || i == 1 || i == 3; report.Changed() != changed {
			t.Errorf("push %d: changed %v, want %v", i, report.Changed(), changed)
		}
	}
	if n := len(signaturesOf(t, reg, image.Digest)); n != 9 { // 3 tags: ours, the vendor's for there, the vendor's for here
		t.Errorf("%d signatures, want 9", n)
	}
}

// TestPolicyBelow: members of a signed index are asked about too, and tags of
// another registry one by one.
func TestPolicyBelow(t *testing.T) {
	reg := regtest.Start(t, nil)
	l, app, image, artifact := appOf(t)
	key := newKey(t, 0)
	if _, err := signAndPush(t, reg, l, key); err != nil {
		t.Fatal(err)
	}
	open := func(ref layout.Reference) *layoutsync.Remote {
		t.Helper()
		opts := pushtest.Options(t, reg)
		opts.Policy = signedPolicy(t, key, "")
		ref.Transport, ref.Location = "docker", reg.Host+"/team/app"
		r, err := layoutsync.OpenRemote(t.Context(), ref, &opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	to := regtest.Start(t, nil)
	push := func(src layout.Source) error {
		opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, to)}
		opts.Registry.Policy = signedPolicy(t, key, "")
		_, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, to, "copy"), opts)
		return err
	}
	// A tag that a signature is not for.
	pushtest.Edit(t, l, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"moved": app}
	})
	if _, err := signAndPush(t, reg, l); err != nil {
		t.Fatal(err)
	}
	if err := push(open(layout.Reference{})); !errors.Is(err, layoutsync.ErrRejected) {
		t.Errorf("all tags: %v, want ErrRejected", err)
	}
	if err := push(open(layout.Reference{RefName: "1.0"})); err != nil {
		t.Errorf("a good tag: %v", err)
	}
	// Also where the content has come already.
	if err := push(open(layout.Reference{RefName: "moved"})); !errors.Is(err, layoutsync.ErrRejected) {
		t.Errorf("tag of what is there: %v, want ErrRejected", err)
	}

	// The image gets the signatures of the artifact.
	sigs := openRepo(t, reg, layout.Reference{RefName: sigTag(artifact.Digest)})
	wrong := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg), Replace: true, Targets: []layoutsync.Target{{Desc: entries(t, sigs)[0], Tag: sigTag(image.Digest)}}}
	if _, err := layoutsync.Push(t.Context(), sigs, pushtest.Repository(t, reg, "team/app"), wrong); err != nil {
		t.Fatal(err)
	}
	r := open(layout.Reference{RefName: "1.0"})
	into := pushtest.NewLayout(t, func(pushtest.Maker) map[string]ocispec.Descriptor { return nil })
	if _, err := pullAll(t, r, into, nil); !errors.Is(err, layoutsync.ErrRejected) {
		t.Errorf("pull: %v, want ErrRejected", err)
	}
	for info, err := range into.Blobs(t.Context()) {
		t.Errorf("the layout has %s, %v", info.Digest, err)
	}
}

// TestPolicyScopes: the scopes of policy.json are those that podman has.
func TestPolicyScopes(t *testing.T) {
	l := pushtest.NewLayout(t, small)
	file, dir := filepath.Join(t.TempDir(), "app.tar"), filepath.Join(t.TempDir(), "dir")
	if _, err := archive.PackFile(t.Context(), l, file, nil); err != nil {
		t.Fatal(err)
	}
	packed, err := archive.Open(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	accept := pushtest.WriteFile(t, t.TempDir(), "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	if err := theirs(t, accept, "oci:"+l.Dir()+":"+layout.RefName(entries(t, l)[0]), "dir:"+dir, copy.Options{PreserveDigests: true, ImageListSelection: copy.CopyAllImages}); err != nil {
		t.Fatal(err)
	}
	fromDir, err := open(t, nil, "dir:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		transport, scope string
		src              layout.Source
	}{
		{"oci", l.Dir(), l},
		{"oci-archive", file, packed},
		{"oci-archive", filepath.Dir(file), packed},
		{"dir", dir, fromDir},
		{"dir", filepath.Dir(dir), fromDir},
	} {
		reg := regtest.Start(t, nil)
		opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}
		opts.Registry.Policy = pushtest.WriteFile(t, t.TempDir(), "policy.json", fmt.Sprintf(
			`{"default":[{"type":"reject"}],"transports":{%q:{%q:[{"type":"insecureAcceptAnything"}]}}}`, tt.transport, tt.scope))
		if _, err := layoutsync.Push(t.Context(), tt.src, pushtest.Repository(t, reg, "app"), opts); err != nil {
			t.Errorf("%s %s: %v", tt.transport, tt.scope, err)
		}
	}
}

// TestSignaturesVerbatim: where the source has all signatures that the registry
// has, and more, the manifest of the source takes the place of the other.
func TestSignaturesVerbatim(t *testing.T) {
	from, to := regtest.Start(t, nil), regtest.Start(t, nil)
	l, _, image, _ := appOf(t)
	accept := pushtest.WriteFile(t, t.TempDir(), "policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	for range 2 {
		err := theirs(t, accept, "oci:"+l.Dir()+":hello", "docker://"+from.Host+"/team/app:hello", copy.Options{
			SignBySigstorePrivateKeyFile: newKey(t, 0).private, SignSigstorePrivateKeyPassphrase: []byte("sesame"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signAndPush(t, to, openRemote(t, from, "team/app")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(pushtest.ResolveTags(t, from, "team/app"), pushtest.ResolveTags(t, to, "team/app")); diff != "" {
			t.Errorf("tags (-source +copy):\n%s", diff)
		}
	}
	if n := len(signaturesOf(t, to, image.Digest)); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
}
