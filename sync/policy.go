package sync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

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
	policy *signature.Policy

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
		return &policies{policy: policy}, nil
	}
	return &policies{policy: &signature.Policy{
		Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()},
	}}, nil
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

// check asks the policy about a manifest or index.
func (p *policies) check(ctx context.Context, src layout.Source, desc ocispec.Descriptor) error {
	c, err := p.get()
	if err != nil {
		return err
	}
	defer p.put(c)
	source, err := sourceRef(src, desc).NewImageSource(ctx, nil)
	if err != nil {
		return err
	}
	if allowed, err := c.IsRunningImageAllowed(ctx, image.UnparsedInstance(source, nil)); !allowed || err != nil {
		return fmt.Errorf("%s: %w", desc.Digest, rejected(err))
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
