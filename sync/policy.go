package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/signature"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

// ErrRejected reports content that policy.json does not let pass.
var ErrRejected = errors.New("rejected by policy.json")

// policies hands out contexts of the signature policy, of which each may be
// used by one goroutine at a time.
//
// The policy is that of podman (containers-policy.json(5)): the first of the
// option, ~/.config/containers/policy.json and /etc/containers/policy.json.
// Where there is none, everything passes: a registry client that reads layouts
// has no use for a file that most systems lack.
type policies struct {
	policy     *signature.Policy
	file       string // of the policy
	open       bool   // everything passes
	lookaside  bool   // it asks for signatures of GnuPG
	signatures signatures

	mu   sync.Mutex
	free []*signature.PolicyContext
}

func newPolicies(opts *RegistryOptions) (*policies, error) {
	candidates := []string{"/etc/containers/policy.json"}
	if home, err := os.UserHomeDir(); err == nil {
		candidates = append([]string{filepath.Join(home, ".config/containers/policy.json")}, candidates...)
	}
	if opts.Policy != "" {
		candidates = []string{opts.Policy}
	}
	for _, file := range candidates {
		policy, err := signature.NewPolicyFromFile(file)
		if errors.Is(err, os.ErrNotExist) && file != opts.Policy {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		kinds := kindsOf(policy)
		delete(kinds, "insecureAcceptAnything")
		return &policies{policy: policy, file: file, open: len(kinds) == 0, lookaside: kinds["signedBy"]}, nil
	}
	return &policies{policy: openPolicy, open: true}, nil
}

// openPolicy lets everything pass.
var openPolicy = &signature.Policy{
	Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
}

// kindsOf returns the types of the requirements of policy, "" among them where
// one has none or cannot be told. Requirements are of types that only the
// library knows, but for what they are in JSON.
func kindsOf(policy *signature.Policy) map[string]bool {
	all := []signature.PolicyRequirements{policy.Default}
	for _, scopes := range policy.Transports {
		all = slices.AppendSeq(all, maps.Values(scopes))
	}
	kinds := map[string]bool{}
	for _, requirements := range all {
		if len(requirements) == 0 {
			kinds[""] = true
		}
		for _, r := range requirements {
			var typed struct {
				Type string `json:"type"`
			}
			if raw, err := json.Marshal(r); err != nil || json.Unmarshal(raw, &typed) != nil {
				typed.Type = ""
			}
			kinds[typed.Type] = true
		}
	}
	return kinds
}

func (p *policies) get() (*signature.PolicyContext, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c, nil
	}
	return signature.NewPolicyContext(p.policy)
}

func (p *policies) put(c *signature.PolicyContext) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, c)
}

func (p *policies) close() {
	for _, c := range p.free {
		_ = c.Destroy() // frees memory only
	}
}

// check asks the policy about the manifest or index desc of src, which from has
// under the tag, or under its digest only. Most policies ask for no signatures:
// they are looked for when one has said no without them.
//
// What holds nothing but signatures passes, as nobody signs those, and so does
// a list of referrers, whose entries are asked about one by one.
func (p *policies) check(ctx context.Context, src, from layout.Source, desc ocispec.Descriptor, tag string) error {
	if p.open {
		return nil
	}
	c, err := p.get()
	if err != nil {
		return err
	}
	defer p.put(c)
	ref := policyRef(from, desc, tag)
	ref.source.src = src
	source, err := ref.NewImageSource(ctx, nil)
	if err != nil {
		return err
	}
	_, err = c.IsRunningImageAllowed(ctx, image.UnparsedInstance(source, nil))
	if err = rejected(err); !errors.Is(err, ErrRejected) {
		return err
	}
	if layout.IsIndex(desc.MediaType) && listTag.MatchString(tag) {
		return nil
	}
	doc, readErr := layout.ReadDocument(ctx, src, desc)
	if readErr != nil {
		return readErr
	}
	if holdsSignatures(doc) {
		return nil
	}
	found, readErr := p.signatures.of(ctx, whole(from), desc.Digest)
	if r, ok := whole(from).(*Remote); ok && readErr == nil && p.lookaside {
		var more [][]byte
		more, readErr = r.client.Lookaside(ctx, desc.Digest)
		found = append(found, more...)
	}
	if readErr != nil {
		return fmt.Errorf("signatures of %s: %w", desc.Digest, readErr)
	}
	if len(found) > 0 {
		err = p.checkSigned(ctx, c, ref, doc.Raw, found)
	}
	if err == nil {
		return nil
	}
	hint := "the policy is " + p.file + "; --policy FILE uses another one"
	if strings.Contains(err.Error(), "no known Docker reference identity") {
		hint = "content that is in no registry has no name: the policy has to say one, with a signedIdentity such as exactRepository"
	}
	return layout.WithHint(fmt.Errorf("%s: %w", desc.Digest, err), hint)
}

// checkSigned asks with signatures. The library takes those of sigstore from
// sources of its own only, so it gets them in the smallest of these, a directory
// in the format "dir:".
func (p *policies) checkSigned(ctx context.Context, c *signature.PolicyContext, ref imageRef, raw []byte, found [][]byte) (err error) {
	dir, err := os.MkdirTemp("", "gloci-layout-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, dirManifest), raw, 0o600); err != nil {
		return err
	}
	for i, s := range found {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(dirSignature, i+1)), s, 0o600); err != nil {
			return err
		}
	}
	dirRef, err := directory.NewReference(dir)
	if err != nil {
		return err
	}
	source, err := dirRef.NewImageSource(ctx, nil)
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // only read
	signed := image.UnparsedInstanceWithReference(image.UnparsedInstance(source, nil), ref)
	if allowed, err := c.IsRunningImageAllowed(ctx, signed); !allowed || err != nil {
		// Also errors that are no verdict: a signature that cannot be read is none.
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return nil
}

// rejected makes a verdict of the policy an [ErrRejected].
func rejected(err error) error {
	var verdict signature.PolicyRequirementError
	if errors.As(err, &verdict) {
		return fmt.Errorf("%w: %w", ErrRejected, verdict)
	}
	return err
}
