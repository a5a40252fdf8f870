package serve

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

const (
	maxUsersFile = 4 << 20 // 4 MiB
	maxLogins    = 1024    // remembered
)

// Users are the names and passwords of a file as htpasswd -B writes it. It may
// be used by several goroutines.
type Users struct {
	file string
	slow chan struct{} // one for each password that may be checked at once
	none []byte        // the hash of no user, so that unknown names take as long

	mu     sync.Mutex
	hashes map[string][]byte
	stamps []content.Stamp
	key    []byte              // of seen
	seen   map[string]struct{} // MACs of names and passwords that were right
	told   string
}

// ReadUsers reads file: a line NAME:HASH for each user, with hashes of bcrypt.
// Others are [layout.ErrInvalid]. Empty lines and those that begin with # are
// passed over.
func ReadUsers(file string) (*Users, error) {
	u := &Users{file: file, slow: make(chan struct{}, runtime.GOMAXPROCS(0)), key: make([]byte, sha256.Size)}
	var err error
	if _, err = rand.Read(u.key); err != nil {
		return nil, err
	}
	if u.none, err = bcrypt.GenerateFromPassword(u.key, bcrypt.DefaultCost); err != nil {
		return nil, err
	}
	return u, u.Reload()
}

// Reload reads the file again. After an error the users stay as they were.
func (u *Users) Reload() error {
	stamps := content.StampsOf([]string{u.file})
	hashes, err := readHashes(u.file)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hashes, u.stamps, u.seen = hashes, stamps, map[string]struct{}{}
	return nil
}

func (u *Users) reloadChanged(log *slog.Logger) {
	u.mu.Lock()
	same := slices.Equal(content.StampsOf([]string{u.file}), u.stamps)
	u.mu.Unlock()
	if same {
		return
	}
	text := ""
	if err := u.Reload(); err != nil {
		text = err.Error()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if text != "" && text != u.told {
		log.Warn("the users stay as they were", "error", text)
	}
	u.told = text
}

func readHashes(file string) (map[string][]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(io.LimitReader(f, maxUsersFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxUsersFile {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", file, layout.ErrInvalid, maxUsersFile)
	}
	hashes := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || name == "" || err != nil {
			return nil, layout.WithHint(fmt.Errorf("%s: line %d: %w: want NAME:HASH with a hash of bcrypt", file, n, layout.ErrInvalid),
				"htpasswd -B -c FILE NAME makes such a file")
		}
		hashes[name] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", file, layout.ErrInvalid, err)
	}
	return hashes, nil
}

// check tells whether password is that of name. bcrypt is slow on purpose: what
// was right is remembered, and only so many are checked at once.
func (u *Users) check(r *http.Request, name, password string) bool {
	mac := hmac.New(sha256.New, u.key)
	mac.Write(fmt.Appendf(nil, "%d:%s%s", len(name), name, password))
	sum := string(mac.Sum(nil))
	u.mu.Lock()
	_, seen := u.seen[sum]
	hash, known := u.hashes[name]
	u.mu.Unlock()
	if seen {
		return true
	}
	select {
	case u.slow <- struct{}{}:
		defer func() { <-u.slow }()
	case <-r.Context().Done():
		return false
	}
	if !known {
		hash = u.none
	}
	if err := bcrypt.CompareHashAndPassword(hash, []byte(password)); err != nil || !known {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if slices.Equal(u.hashes[name], hash) { // not if they were reloaded meanwhile
		if len(u.seen) >= maxLogins {
			clear(u.seen)
		}
		u.seen[sum] = struct{}{}
	}
	return true
}

// login tells whether the request may pass; if not, it is answered.
func (c *call) login() bool {
	name, password, ok := c.r.BasicAuth()
	if ok && c.s.opts.Users.check(c.r, name, password) {
		c.user = name
		return true
	}
	c.w.Header().Set("WWW-Authenticate", `Basic realm="gloci-layout"`)
	c.fail(http.StatusUnauthorized, "UNAUTHORIZED", "authentication required", nil)
	return false
}
