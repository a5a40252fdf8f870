package sync_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/sync"
)

func TestTagFilter(t *testing.T) {
	tags := []string{"1592.4", "1877", "1877.3", "1999.0.0", "2000.1.0", "2150.1.0", "2150.1.0-rc1", "amd64-2150.1.0", "latest", "nightly"}
	for name, tt := range map[string]struct {
		filter sync.TagFilter
		want   []string
	}{
		"nothing":       {},
		"all":           {sync.TagFilter{All: true}, tags},
		"all but some":  {sync.TagFilter{All: true, Exclude: []string{"*-*", "n*", "1*"}}, []string{"2000.1.0", "2150.1.0", "latest"}},
		"glob":          {sync.TagFilter{Globs: []string{"1877*"}}, []string{"1877", "1877.3"}},
		"two globs":     {sync.TagFilter{Globs: []string{"latest", "159?.4"}}, []string{"1592.4", "latest"}},
		"regexp":        {sync.TagFilter{Regexps: []string{`\d+\.\d+`}}, []string{"1592.4", "1877.3"}},
		"regexp of all": {sync.TagFilter{Regexps: []string{`18|19`}}, nil},
		"range":         {sync.TagFilter{Semver: []string{">=1877 <2000"}}, []string{"1877", "1877.3", "1999.0.0"}},
		"no prerelease": {sync.TagFilter{Semver: []string{">=2150"}}, []string{"2150.1.0"}},
		"prerelease":    {sync.TagFilter{Semver: []string{">=2150.0.0-0"}}, []string{"2150.1.0", "2150.1.0-rc1"}},
		"any of them":   {sync.TagFilter{Semver: []string{"~1877.3"}, Globs: []string{"nightly"}}, []string{"1877.3", "nightly"}},
	} {
		t.Run(name, func(t *testing.T) {
			choose, err := tt.filter.Compile()
			if err != nil {
				t.Fatal(err)
			}
			if got := choose(tags); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for _, bad := range []sync.TagFilter{{Globs: []string{"[a"}}, {Exclude: []string{`\`}}, {Regexps: []string{"("}}, {Semver: []string{">=x.y"}}} {
		if _, err := bad.Compile(); !errors.Is(err, layout.ErrInvalid) {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
}
