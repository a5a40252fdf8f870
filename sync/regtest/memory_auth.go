package regtest

import (
	"fmt"
	"net/http"
	"strings"
)

// A memoryToken is what somebody got at /token.
type memoryToken struct {
	scopes map[string]bool // such as "repository:app:pull"
	uses   int
}

// authorize returns nil for a request that may pass.
func (m *Memory) authorize(r *http.Request) *answer {
	if len(m.opts.Users) == 0 && !m.opts.Bearer {
		return nil
	}
	denied := fault(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	if !m.opts.Bearer {
		user, password, _ := r.BasicAuth()
		if want, known := m.opts.Users[user]; known && want == password {
			return nil
		}
		return denied.with("WWW-Authenticate", `Basic realm="regtest"`)
	}
	scope := wanted(r)
	token := m.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	if token != nil && (m.opts.TokenUses == 0 || token.uses < m.opts.TokenUses) && allowed(token.scopes, scope) {
		token.uses++
		return nil
	}
	challenge := fmt.Sprintf(`Bearer realm="%s/token",service="regtest"`, m.origin)
	if scope != "" {
		challenge += fmt.Sprintf(",scope=%q", scope)
	}
	return denied.with("WWW-Authenticate", challenge)
}

// allowed tells whether scopes have all that want asks for.
func allowed(scopes map[string]bool, want string) bool {
	if want == "" {
		return true
	}
	i := strings.LastIndexByte(want, ':')
	for action := range strings.SplitSeq(want[i+1:], ",") {
		if !scopes[want[:i+1]+action] {
			return false
		}
	}
	return true
}

// giveToken answers /token.
func (m *Memory) giveToken(r *http.Request) *answer {
	user, password, _ := r.BasicAuth()
	if want, known := m.opts.Users[user]; len(m.opts.Users) > 0 && (!known || want != password) {
		return ok(http.StatusUnauthorized, nil)
	}
	scopes := map[string]bool{}
	for _, scope := range r.URL.Query()["scope"] {
		i := strings.LastIndexByte(scope, ':')
		for action := range strings.SplitSeq(scope[i+1:], ",") {
			scopes[scope[:i+1]+action] = true
		}
	}
	name := fmt.Sprintf("token-%d", len(m.tokens)+1)
	m.tokens[name] = &memoryToken{scopes: scopes}
	return ok(http.StatusOK, nil).with("Content-Type", "application/json").json(map[string]string{"token": name})
}

// wanted returns the scope that a request needs; empty for the base.
func wanted(r *http.Request) string {
	name := strings.TrimPrefix(r.URL.Path, "/v2/")
	for _, part := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if i := strings.LastIndex(name, part); i > 0 {
			actions := "pull"
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				actions = "pull,push"
			}
			return "repository:" + name[:i] + ":" + actions
		}
	}
	return ""
}
