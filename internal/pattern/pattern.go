// Package pattern has regular expressions that are compiled when they are first
// used. A command uses few of those that the program has, and to compile the
// others took a good part of the time of a short command.
package pattern

import (
	"regexp"
	"sync"
)

// A Pattern is a regular expression. It may be used by several goroutines.
type Pattern struct {
	compiled func() *regexp.Regexp
}

// New returns the pattern of expr. Like [regexp.MustCompile] it panics if expr is
// none, but not before the pattern is used.
func New(expr string) *Pattern {
	return &Pattern{sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })}
}

// MatchString does what [regexp.Regexp.MatchString] does, as do the methods below.
func (p *Pattern) MatchString(s string) bool { return p.compiled().MatchString(s) }

// FindStringSubmatch returns the first match and its groups, nil if there is none.
func (p *Pattern) FindStringSubmatch(s string) []string { return p.compiled().FindStringSubmatch(s) }

// ReplaceAllString replaces all matches by repl, in which $1 is a group.
func (p *Pattern) ReplaceAllString(s, repl string) string {
	return p.compiled().ReplaceAllString(s, repl)
}

// ReplaceAllStringFunc replaces all matches by what repl makes of them.
func (p *Pattern) ReplaceAllStringFunc(s string, repl func(string) string) string {
	return p.compiled().ReplaceAllStringFunc(s, repl)
}
