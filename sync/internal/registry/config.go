package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/docker/config"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/pkg/tlsclientconfig"
	"github.com/containers/image/v5/types"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/gardenlinux/gloci-layout/layout"
)

// ParseName reads HOST/REPOSITORY, with docker:// before it or not. As in
// podman, a name without a host is one of docker.io. A tag or digest behind it
// is [layout.ErrInvalid].
func ParseName(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(strings.TrimPrefix(s, "docker://"))
	if err != nil {
		return nil, fmt.Errorf("%w repository %q: %w", layout.ErrInvalid, s, err)
	}
	if !reference.IsNameOnly(named) {
		return nil, fmt.Errorf("%w repository %q: want HOST/REPOSITORY without a tag or digest", layout.ErrInvalid, s)
	}
	return named, nil
}

// An Endpoint is a place where content of a repository can be had.
type Endpoint struct {
	Named    reference.Named // as it is called there
	Insecure bool
}

// systemContext returns the options in the form of containers/image.
func (o *Options) systemContext() (*types.SystemContext, error) {
	sys := &types.SystemContext{
		SystemRegistriesConfPath:    o.RegistriesConf,
		SystemRegistriesConfDirPath: o.RegistriesConfDir,
	}
	if sys.SystemRegistriesConfPath == "" {
		sys.SystemRegistriesConfPath = os.Getenv("CONTAINERS_REGISTRIES_CONF")
	}
	// The library takes a missing file for one without credentials and never
	// reads the variable.
	file, origin := o.AuthFile, "auth file"
	if file == "" {
		file, origin = os.Getenv("REGISTRY_AUTH_FILE"), "REGISTRY_AUTH_FILE"
	}
	if file != "" {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("%s: %w", origin, err)
		}
		sys.AuthFilePath = file
	}
	return sys, nil
}

// WriteEndpoint returns where to push to. Mirrors and rewrites of
// registries.conf are for pulling only; a blocked registry is refused.
func (o *Options) WriteEndpoint(named reference.Named) (Endpoint, error) {
	sys, err := o.systemContext()
	if err != nil {
		return Endpoint{}, err
	}
	reg, err := o.find(sys, named)
	if err != nil {
		return Endpoint{}, err
	}
	return Endpoint{Named: named, Insecure: o.insecure(reg != nil && reg.Insecure)}, nil
}

// ReadEndpoints returns where to pull ref from, best first: the mirrors that
// registries.conf names, then the registry itself.
func (o *Options) ReadEndpoints(ref reference.Named) ([]Endpoint, error) {
	sys, err := o.systemContext()
	if err != nil {
		return nil, err
	}
	reg, err := o.find(sys, ref)
	if err != nil {
		return nil, err
	}
	if reg == nil {
		return []Endpoint{{Named: reference.TrimNamed(ref), Insecure: o.insecure(false)}}, nil
	}
	sources, err := reg.PullSourcesFromReference(ref)
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	endpoints := make([]Endpoint, len(sources))
	for i, s := range sources {
		endpoints[i] = Endpoint{Named: reference.TrimNamed(s.Reference), Insecure: o.insecure(s.Endpoint.Insecure)}
	}
	return endpoints, nil
}

func (o *Options) find(sys *types.SystemContext, named reference.Named) (*sysregistriesv2.Registry, error) {
	reg, err := sysregistriesv2.FindRegistry(sys, named.Name())
	if err != nil {
		return nil, fmt.Errorf("registries.conf: %w", err)
	}
	if reg != nil && reg.Blocked {
		return nil, fmt.Errorf("%s: registry %s is blocked in %s", named.Name(), reg.Prefix, sysregistriesv2.ConfigurationSourceDescription(sys))
	}
	return reg, nil
}

func (o *Options) insecure(configured bool) bool {
	if o.TLSVerify != nil {
		return !*o.TLSVerify
	}
	return configured
}

// tlsConfig returns the certificates for host, HOST[:PORT] as the user says it.
func (o *Options) tlsConfig(host string, insecure bool) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: insecure, //nolint:gosec // what TLSVerify=false asks for
	}
	dir := o.CertDir
	if dir == "" {
		dir = certDir(host)
	}
	if dir == "" {
		return c, nil
	}
	if err := tlsclientconfig.SetupCertificates(dir, c); err != nil {
		return nil, fmt.Errorf("certificates for %s: %w", host, err)
	}
	return c, nil
}

// certDir returns the first certs.d directory that knows host, "" if none does.
func certDir(host string) string {
	home, err := os.UserHomeDir()
	dirs := []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	if err == nil {
		dirs = append([]string{filepath.Join(home, ".config/containers/certs.d")}, dirs...)
	}
	for _, dir := range dirs {
		dir = filepath.Join(dir, host)
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
	}
	return ""
}

// credential returns what to log in with at the registry of named; empty if
// nothing is configured.
func (o *Options) credential(ctx context.Context, named reference.Named) (auth.Credential, error) {
	if o.NoCreds {
		return auth.EmptyCredential, nil
	}
	if o.Creds != "" {
		user, password, _ := strings.Cut(string(o.Creds), ":")
		if user == "" {
			return auth.Credential{}, errors.New("credentials: the user name is empty")
		}
		return auth.Credential{Username: user, Password: password}, nil
	}
	sys, err := o.systemContext()
	if err != nil {
		return auth.Credential{}, err
	}
	found, err := config.GetCredentialsForRef(sys, named)
	if err != nil {
		return auth.Credential{}, fmt.Errorf("credentials for %s: %w", named.Name(), err)
	}
	if found != (types.DockerAuthConfig{}) {
		return auth.Credential{Username: found.Username, Password: found.Password, RefreshToken: found.IdentityToken}, nil
	}
	return dockerCredential(ctx, sys.AuthFilePath, reference.Domain(named))
}

// dockerCredential asks the helper that docker's configuration names in
// credsStore, which containers/image does not know.
func dockerCredential(ctx context.Context, file, host string) (auth.Credential, error) {
	if file == "" {
		dir := os.Getenv("DOCKER_CONFIG")
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return auth.EmptyCredential, nil //nolint:nilerr // no home, no configuration
			}
			dir = filepath.Join(home, ".docker")
		}
		file = filepath.Join(dir, "config.json")
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return auth.EmptyCredential, nil
	}
	if err != nil {
		return auth.Credential{}, err
	}
	// Only this is asked for: what stands in the file was looked at before, by
	// rules of podman that are finer than docker's.
	var settings struct {
		Store string `json:"credsStore"`
	}
	if err := json.Unmarshal(raw, &settings); err != nil {
		return auth.Credential{}, fmt.Errorf("credentials: %s: %w", file, err)
	}
	if settings.Store == "" {
		return auth.EmptyCredential, nil
	}
	if strings.ContainsAny(settings.Store, `/\`) {
		return auth.Credential{}, fmt.Errorf("credentials: %s: %w credsStore %q", file, layout.ErrInvalid, settings.Store)
	}
	cred, err := credentials.NewNativeStore(settings.Store).Get(ctx, credentials.ServerAddressFromHostname(host))
	if err != nil {
		return auth.Credential{}, fmt.Errorf("credentials for %s: %w", host, err)
	}
	return cred, nil
}
