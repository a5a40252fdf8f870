package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
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
		if realm := g.realm(req); realm != nil {
			req = req.Clone(req.Context())
			req.URL, req.Host = realm, ""
			return g.token(req)
		}
		resp, err := g.base.RoundTrip(req)
		if err == nil && resp.StatusCode == http.StatusUnauthorized {
			g.standIn(resp.Header)
		}
		return resp, err
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

// standInPath is below no repository: their names begin with a letter or digit.
const standInPath = "/v2/.token/"

var realmOf = pattern.New(`(?i)(\brealm=")([^"]*)"`)

// standIn writes URLs of the registry in place of those of trusted token servers
// on other hosts. oras-go has no list of those, and refuses every server at an
// internal address that is not the registry's own host, as of a registry and
// its token server in one private network.
func (g *guard) standIn(h http.Header) {
	challenges := h.Values("WWW-Authenticate")
	for i, c := range challenges {
		challenges[i] = realmOf.ReplaceAllStringFunc(c, func(found string) string {
			m := realmOf.FindStringSubmatch(found)
			u, err := url.Parse(m[2])
			if err != nil || u.Scheme != "https" && u.Scheme != g.origin.Scheme || !g.trusts(u) {
				return found
			}
			return m[1] + g.origin.Scheme + "://" + g.origin.Host + standInPath + base64.RawURLEncoding.EncodeToString([]byte(m[2])) + `"`
		})
	}
}

// realm returns the URL that the one of req stands in for; nil if it is none.
func (g *guard) realm(req *http.Request) *url.URL {
	encoded, ok := strings.CutPrefix(req.URL.Path, standInPath)
	if !ok || req.Response != nil {
		return nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil
	}
	u, err := url.Parse(string(raw))
	if err != nil {
		return nil
	}
	query := u.Query()
	for name, values := range req.URL.Query() {
		query[name] = values
	}
	u.RawQuery = query.Encode()
	return u
}

// trusts tells whether the user, or the list that is built in, names the host.
func (g *guard) trusts(u *url.URL) bool {
	return slices.ContainsFunc(g.trusted, func(t string) bool { return strings.EqualFold(t, u.Hostname()) || strings.EqualFold(t, u.Host) })
}

// token sends a request to a token server that is not at the registry's
// origin. Without credentials in it, any public host may be asked.
func (g *guard) token(req *http.Request) (*http.Response, error) {
	host := req.URL.Hostname()
	if g.origin.Scheme == "https" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: %s: not HTTPS", ErrTokenHost, host)
	}
	known := strings.EqualFold(host, g.origin.Hostname()) || g.trusts(req.URL)
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

const mostRedirects = 5

// redirect is the CheckRedirect of the client.
func (g *guard) redirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > mostRedirects:
		return fmt.Errorf("%w: more than %d", errRedirect, mostRedirects)
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
