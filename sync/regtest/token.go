package regtest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// A tokenServer gives tokens at /token and lets nobody through without one, as
// the token authentication of the distribution project has it.
type tokenServer struct {
	opts *Options
	url  func() string

	mu     sync.Mutex
	tokens map[string]map[string]bool // token -> scopes such as "repository:app:pull"
}

func newTokenServer(opts *Options, url func() string) *tokenServer {
	return &tokenServer{opts: opts, url: url, tokens: map[string]map[string]bool{}}
}

func (s *tokenServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			s.give(w, r)
			return
		}
		if scope := wanted(r); !s.allows(r.Header.Get("Authorization"), scope) {
			realm := s.url() + "/token"
			if s.opts.TokenHost != "" {
				if u, err := url.Parse(realm); err == nil {
					u.Host = s.opts.TokenHost
					realm = u.String()
				}
			}
			challenge := fmt.Sprintf(`Bearer realm=%q,service="regtest"`, realm)
			if scope != "" {
				challenge += fmt.Sprintf(",scope=%q", scope)
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// give answers a request for a token.
func (s *tokenServer) give(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if want, ok := s.opts.Users[user]; len(s.opts.Users) > 0 && (!ok || want != password) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	scopes := map[string]bool{"": true}
	for _, scope := range r.URL.Query()["scope"] {
		i := strings.LastIndexByte(scope, ':')
		for action := range strings.SplitSeq(scope[i+1:], ",") {
			scopes[scope[:i+1]+action] = true
		}
	}
	token := rand.Text()
	s.mu.Lock()
	s.tokens[token] = scopes
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	// A client that has gone needs no answer.
	_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
}

// allows reports whether the header holds a token for every action of scope.
func (s *tokenServer) allows(header, scope string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	scopes, ok := s.tokens[strings.TrimPrefix(header, "Bearer ")]
	if !ok {
		return false
	}
	i := strings.LastIndexByte(scope, ':')
	for action := range strings.SplitSeq(scope[i+1:], ",") {
		if !scopes[scope[:i+1]+action] {
			return false
		}
	}
	return true
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
