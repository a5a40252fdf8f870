package serve

import (
	"net/http"
	"time"
)

// Unwrapped internals, for tests.
var (
	IsName     = isName
	IsTag      = isTag
	ParseRange = parseRange
)

// Settle is how long a file has to be left alone until it is taken to be settled.
const Settle = 40 * time.Millisecond

// Far makes all clients be elsewhere. It comes before the first request.
func (s *Server) Far() { s.isNear = func(*http.Request) bool { return false } }

// Near is how many copies to clients on this machine go on at once.
const Near = maxNear

func init() { unsettled = Settle }
