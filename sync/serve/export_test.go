package serve

import "time"

// Unwrapped internals, for tests.
var (
	IsName     = isName
	IsTag      = isTag
	ParseRange = parseRange
)

// Settle is how long a file has to be left alone until it is taken to be settled.
const Settle = 40 * time.Millisecond

func init() { unsettled = Settle }
