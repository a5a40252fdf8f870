package diff

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gardenlinux/gloci-layout/layout"
)

// IgnoreWords are the words of [ParseIgnore], each with its meaning.
var IgnoreWords = [][2]string{
	{"times", "times of files, configs, histories and PE headers, and annotations and labels that say when something was created"},
	{"order", "the order of the entries of an index and of the files of an archive"},
	{"compression", "how a layer, or a file in it, is compressed that has the same content when decompressed"},
	{"encoding", "white space and order of members in JSON; format and padding of a tar"},
	{"history", "the history in the config of an image"},
	{"owner", "users and groups of files, numbers and names"},
	{"ownernames", "the names of users and groups of files, but not their numbers"},
	{"mode", "permissions of files"},
	{"xattrs", "extended attributes of files"},
	{"annotations[:KEY]", "all annotations, or those whose key fits the glob KEY"},
	{"labels[:KEY]", "all labels in configs of images, or those whose key fits the glob KEY"},
}

// Semantic are the words of the preset for those who ask whether a rebuild has
// the same content.
var Semantic = []string{"times", "order", "compression", "encoding", "history", "ownernames"}

// ParseIgnore adds what words name to g. A word that means nothing is
// [layout.ErrInvalid].
func (g *Ignore) ParseIgnore(words ...string) error {
	for _, word := range words {
		name, key, keyed := strings.Cut(word, ":")
		if keyed {
			if _, err := path.Match(strings.ReplaceAll(key, "/", "\x01"), ""); err != nil || key == "" {
				return fmt.Errorf("%w: %q: bad pattern", layout.ErrInvalid, word)
			}
		}
		switch {
		case name == "annotations":
			g.Annotations = append(g.Annotations, orAll(key))
		case name == "labels":
			g.Labels = append(g.Labels, orAll(key))
		case keyed || !g.set(name):
			names := make([]string, len(IgnoreWords))
			for i, w := range IgnoreWords {
				names[i] = w[0]
			}
			return fmt.Errorf("%w: nothing called %q can be ignored: want %s", layout.ErrInvalid, word, strings.Join(names, ", "))
		}
	}
	slices.Sort(g.Annotations)
	slices.Sort(g.Labels)
	return nil
}

func orAll(key string) string {
	if key == "" {
		return "*"
	}
	return key
}

func (g *Ignore) set(name string) bool {
	flag := map[string]*bool{
		"times": &g.Times, "order": &g.Order, "compression": &g.Compression, "encoding": &g.Encoding, "history": &g.History,
		"owner": &g.Owner, "ownernames": &g.OwnerNames, "mode": &g.Mode, "xattrs": &g.Xattrs,
	}[name]
	if flag == nil {
		return false
	}
	*flag = true
	return true
}
