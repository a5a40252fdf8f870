package serve

import (
	"net/http"
	"os"
	"time"

	"github.com/gardenlinux/gloci-layout/sync/serve/internal/content"
)

// ParseRange is parseRange, for tests.
var ParseRange = parseRange

// Settle is how long a file has to be left alone until it is taken to be settled.
const Settle = 40 * time.Millisecond

// Far makes all clients be elsewhere. It comes before the first request.
func (s *Server) Far() { s.isNear = func(*http.Request) bool { return false } }

// Near is how many copies to clients on this machine go on at once.
const Near = maxNear

func init() { content.Unsettled = Settle }

// Unreserved lets temporary files find out that there is no room when they are
// written.
func Unreserved(t interface{ Cleanup(f func()) }) {
	reserve := content.Reserve
	content.Reserve = func(*os.File, int64) error { return nil }
	t.Cleanup(func() { content.Reserve = reserve })
}
