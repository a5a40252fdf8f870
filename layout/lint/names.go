package lint

import (
	"context"
	"fmt"
	"strings"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
)

// What registries take: distribution-spec, "Pulling manifests", and for the host
// distribution/reference regexp.go.
var (
	tagGrammar        = pattern.New(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	repositoryGrammar = pattern.New(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	hostGrammar       = pattern.New(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(:[0-9]+)?$`)
)

// maxRepository bounds a repository's name with its host: what clients take.
const maxRepository = 255

func refName(_ context.Context, t *Tree, report func(Finding)) error {
	for _, r := range t.Roots {
		for _, name := range r.RefNames {
			why := nameFault(name)
			if why == "" {
				continue
			}
			f := r.Finding()
			f.Why = fmt.Sprintf("ref name %q: %s", name, why)
			if good := strings.ToLower(name); nameFault(good) == "" {
				f.Cure = fmt.Sprintf("gloci-layout tag LAYOUT '%s' %s && gloci-layout untag LAYOUT '%s'", name, good, name)
			} else {
				f.Cure = fmt.Sprintf("gloci-layout tag LAYOUT '%s' NAME && gloci-layout untag LAYOUT '%s'", name, name)
			}
			report(f)
		}
	}
	return nil
}

// nameFault says what keeps a ref name from being a tag, or a full reference; ""
// for nothing.
func nameFault(name string) string {
	if tagGrammar.MatchString(name) {
		return ""
	}
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.Contains(name[i:], "/") {
		return "no tag: want letters, digits, \".\", \"_\" and \"-\", 128 at most"
	}
	repository, tag := name[:i], name[i+1:]
	if !tagGrammar.MatchString(tag) {
		return fmt.Sprintf("%q is no tag", tag)
	}
	if len(repository) > maxRepository {
		return fmt.Sprintf("a repository of %d characters, more than %d", len(repository), maxRepository)
	}
	path := repository
	if host, rest, ok := strings.Cut(repository, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost" || strings.ToLower(host) != host) {
		if !hostGrammar.MatchString(host) {
			return fmt.Sprintf("%q is no host", host)
		}
		path = rest
	}
	if !repositoryGrammar.MatchString(path) {
		if strings.ToLower(path) != path {
			return fmt.Sprintf("%q has capital letters: no name of a repository", path)
		}
		return fmt.Sprintf("%q is no name of a repository", path)
	}
	return ""
}
