package regtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A tokenServer gives signed tokens at /token, which the registry itself checks
// (distribution, "Token Authentication Specification").
type tokenServer struct {
	opts  *Options
	realm string // what the registry's challenge says
	certs string // file with the certificate that the registry trusts
	chain []string
	key   *ecdsa.PrivateKey

	mu sync.Mutex
	// twins are tokens that were given, and the same that have expired.
	twins   map[string]string
	expired map[string]bool
}

const tokenIssuer = "regtest"

// newTokenServer makes one for the registry at origin, SCHEME://HOST:PORT; its
// certificate is written into dir.
func newTokenServer(dir, origin string, opts *Options) (*tokenServer, error) {
	s := &tokenServer{
		opts: opts, realm: origin + "/token", certs: filepath.Join(dir, "tokens.crt"),
		twins: map[string]string{}, expired: map[string]bool{},
	}
	if opts.TokenHost != "" {
		u, err := url.Parse(s.realm)
		if err != nil {
			return nil, err
		}
		if port := u.Port(); strings.Contains(opts.TokenHost, ":") {
			u.Host = opts.TokenHost
		} else {
			u.Host = opts.TokenHost + ":" + port
		}
		s.realm = u.String()
	}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "regtest tokens"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &s.key.PublicKey, s.key)
	if err != nil {
		return nil, err
	}
	s.chain = []string{base64.StdEncoding.EncodeToString(der)}
	return s, os.WriteFile(s.certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

// guard answers /token, and lets tokens that have expired look so to next.
func (s *tokenServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			s.give(w, r)
			return
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		if s.expired[token] {
			r.Header.Set("Authorization", "Bearer "+s.twins[token])
		}
		s.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

// expire ends all tokens that were given.
func (s *tokenServer) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.twins {
		s.expired[token] = true
	}
}

// give answers a request for a token.
func (s *tokenServer) give(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if want, ok := s.opts.Users[user]; len(s.opts.Users) > 0 && (!ok || want != password) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	const life = 5 * time.Minute
	now := time.Now() //nolint:forbidigo // the registry looks at its clock too
	token, err := s.token(r, user, now, now.Add(life))
	if err == nil {
		var twin string
		twin, err = s.token(r, user, now.Add(-2*life), now.Add(-life))
		s.mu.Lock()
		s.twins[token] = twin
		s.mu.Unlock()
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// A client that has gone needs no answer.
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": int(life.Seconds())})
}

// token returns a token for what r asks.
func (s *tokenServer) token(r *http.Request, user string, from, to time.Time) (string, error) {
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, scope := range r.URL.Query()["scope"] {
		kind, rest, _ := strings.Cut(scope, ":")
		if i := strings.LastIndexByte(rest, ':'); i >= 0 {
			granted = append(granted, access{kind, rest[:i], strings.Split(rest[i+1:], ",")})
		}
	}
	header, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": s.chain})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": tokenIssuer, "sub": user, "aud": r.URL.Query().Get("service"), "jti": rand.Text(),
		"iat": from.Unix(), "nbf": from.Unix(), "exp": to.Unix(), "access": granted,
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	x, y, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}
