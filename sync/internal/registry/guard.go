package registry

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
)

// errRedirect reports a redirect that is not followed.
var errRedirect = errors.New("redirect refused")

// tokenServers are those of large registries that are on another host.
var tokenServers = map[string][]string{
	"registry-1.docker.io": {"auth.docker.io"},
	"registry.gitlab.com":  {"gitlab.com"},
	"dhi.io":               {"auth.docker.io", "auth.dhi.io"},
}

// A guard decides where credentials go: to the exact origin of the registry
// (distribution-spec, "MUST NOT forward"), and to a token server on the
// registry's host or one that is trusted.
type guard struct {
	base    http.RoundTripper
	outside http.RoundTripper // for token servers elsewhere: refuses internal addresses
	origin  *url.URL          // scheme and host of the registry
	prefix  string            // path of the repository: "/v2/NAME/"
	trusted []string
}

func newGuard(base, outside http.RoundTripper, origin *url.URL, repository string, trusted []string) *guard {
	return &guard{
		base: base, outside: outside, origin: origin, prefix: "/v2/" + repository + "/",
		trusted: append(slices.Clone(tokenServers[origin.Hostname()]), trusted...),
	}
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if sameOrigin(req.URL, g.origin) {
		return g.base.RoundTrip(req)
	}
	if req.Response != nil || req.Method != http.MethodGet && req.Method != http.MethodPost {
		// The next hop of a redirect, such as to the storage of a blob, or an
		// upload that goes there.
		if req.Header.Get("Authorization") != "" {
			req = req.Clone(req.Context())
			req.Header.Del("Authorization")
		}
		return g.base.RoundTrip(req)
	}
	return g.token(req)
}

// token sends a request to a token server that is not at the registry's
// origin. Without credentials in it, any public host may be asked.
func (g *guard) token(req *http.Request) (*http.Response, error) {
	host := req.URL.Hostname()
	if g.origin.Scheme == "https" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: %s: not HTTPS", ErrTokenHost, host)
	}
	known := strings.EqualFold(host, g.origin.Hostname()) ||
		slices.ContainsFunc(g.trusted, func(t string) bool { return strings.EqualFold(t, host) || strings.EqualFold(t, req.URL.Host) })
	secret := req.Header.Get("Authorization") != "" || req.Method == http.MethodPost
	if known {
		return g.base.RoundTrip(req)
	}
	if secret {
		return nil, fmt.Errorf("%w: %s", ErrTokenHost, host)
	}
	if proxy, err := http.ProxyFromEnvironment(req); err == nil && proxy != nil {
		// The proxy resolves the name, and is itself often internal.
		return g.base.RoundTrip(req)
	}
	return g.outside.RoundTrip(req)
}

// redirect is the CheckRedirect of the client.
func (g *guard) redirect(req *http.Request, via []*http.Request) error {
	const most = 5
	first := via[0]
	switch {
	case len(via) > most:
		return fmt.Errorf("%w: more than %d", errRedirect, most)
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("%w: from https to %s", errRedirect, req.URL.Scheme)
	case !g.own(first):
		return fmt.Errorf("%w: the token server sends to %s", errRedirect, req.URL.Host)
	}
	return nil
}

// own tells whether the request is one of the distribution specification, and
// not one for a token.
func (g *guard) own(req *http.Request) bool {
	if req.Method != http.MethodGet && req.Method != http.MethodPost {
		return true
	}
	return sameOrigin(req.URL, g.origin) && (req.URL.Path == "/v2/" || strings.HasPrefix(req.URL.Path, g.prefix))
}

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if strings.EqualFold(u.Scheme, "https") {
		return "443"
	}
	return "80"
}

var sharedNetwork = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// refuseInternal is the Control of a dialer that only connects to public
// addresses: a registry must not make us ask the services of our own network.
func refuseInternal(_, address string, _ syscall.RawConn) error {
	addrPort, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTokenHost, err)
	}
	a := addrPort.Addr().Unmap()
	if a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || sharedNetwork.Contains(a) {
		return fmt.Errorf("%w: %s is an internal address", ErrTokenHost, a)
	}
	return nil
}
