package pattern_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
)

func TestPattern(t *testing.T) {
	p := pattern.New(`([a-z]+)=([0-9]+)`)
	if !p.MatchString("a=1") || p.MatchString("a=b") {
		t.Error("MatchString is wrong")
	}
	if got := p.FindStringSubmatch("x, a=1"); !slices.Equal(got, []string{"a=1", "a", "1"}) {
		t.Errorf("FindStringSubmatch = %q", got)
	}
	if got := p.ReplaceAllString("a=1 b=2", "$2"); got != "1 2" {
		t.Errorf("ReplaceAllString = %q", got)
	}
	if got := p.ReplaceAllStringFunc("a=1 b", strings.ToUpper); got != "A=1 b" {
		t.Errorf("ReplaceAllStringFunc = %q", got)
	}
}

func TestBadPattern(t *testing.T) {
	p := pattern.New(`(`) // no panic yet
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	p.MatchString("")
}
