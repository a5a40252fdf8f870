package layout

import (
	"os"
	"time"
)

// PretendNetwork makes every layout look as if it lay on a network file system
// until the returned function is called.
func PretendNetwork(patience time.Duration) (restore func()) {
	was, waited := onNetwork, lockPatience
	onNetwork, lockPatience = func(*os.File) bool { return true }, patience
	return func() { onNetwork, lockPatience = was, waited }
}
