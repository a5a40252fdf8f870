package sync_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	layoutsync "github.com/gardenlinux/gloci-layout/sync"
	"github.com/gardenlinux/gloci-layout/sync/pushtest"
	"github.com/gardenlinux/gloci-layout/sync/regtest"
)

func TestChoice(t *testing.T) {
	l := pushtest.NewLayout(t, everything) // 1.0, empty, latest, example.org/team/app:docker, and one without ref name
	amd64 := &layout.Selector{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}
	for name, tt := range map[string]struct {
		choice *layoutsync.Choice
		want   []string // PATH:TAG
		err    error
	}{
		"all":                {nil, []string{":", ":1.0", ":docker", ":empty", ":latest"}, nil},
		"glob":               {&layoutsync.Choice{RefNames: []string{"1*", "e*y"}}, []string{":1.0", ":empty"}, nil},
		"glob of a tag":      {&layoutsync.Choice{RefNames: []string{"docker"}}, []string{":docker"}, nil},
		"nothing fits":       {&layoutsync.Choice{RefNames: []string{"1*", "9*"}}, nil, layout.ErrNotFound},
		"exclude":            {&layoutsync.Choice{Exclude: []string{"*e*"}}, []string{":", ":1.0"}, nil},
		"bad glob":           {&layoutsync.Choice{Exclude: []string{"["}}, nil, layout.ErrInvalid},
		"other tag":          {&layoutsync.Choice{RefNames: []string{"1.0"}, Tags: map[string]string{"1.0": "one"}}, []string{":one"}, nil},
		"other tag, no name": {&layoutsync.Choice{Tags: map[string]string{"2.0": "two"}}, nil, layout.ErrNotFound},
		"other tag, bad":     {&layoutsync.Choice{Tags: map[string]string{"1.0": "a/b"}}, nil, layout.ErrInvalid},
		"tag taken":          {&layoutsync.Choice{Tags: map[string]string{"1.0": "empty"}}, nil, layout.ErrAmbiguous},
		"also":               {&layoutsync.Choice{RefNames: []string{"1.0"}, Also: []string{"1", "stable"}}, []string{":1", ":1.0", ":stable"}, nil},
		"also for two":       {&layoutsync.Choice{Also: []string{"1"}}, nil, layout.ErrAmbiguous},
		"scoped":             {&layoutsync.Choice{Scoped: true, Exclude: []string{"empty"}}, []string{":", ":1.0", ":latest", "team/app:docker"}, nil},
		"selected":           {&layoutsync.Choice{RefNames: []string{"1.0"}, Select: amd64}, []string{":1.0"}, nil},
		"none selected":      {&layoutsync.Choice{RefNames: []string{"empty"}, Select: amd64}, nil, layout.ErrNotFound},
		"two selected":       {&layoutsync.Choice{RefNames: []string{"1.0"}, Select: &layout.Selector{}}, nil, layout.ErrAmbiguous},
	} {
		t.Run(name, func(t *testing.T) {
			targets, err := layoutsync.Targets(t.Context(), l, layout.Reference{}, "")
			if err != nil {
				t.Fatal(err)
			}
			_, targets, err = tt.choice.Apply(t.Context(), l, targets)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			var got []string
			for _, target := range targets {
				got = append(got, target.Path+":"+target.Tag)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("targets (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPushScoped pushes to two repositories, and neither moves if one fails.
func TestPushScoped(t *testing.T) {
	reg := regtest.Start(t, &regtest.Options{Delete: true})
	l := pushtest.NewLayout(t, everything)
	choice := &layoutsync.Choice{Scoped: true}
	targets, err := layoutsync.Targets(t.Context(), l, layout.Reference{}, "")
	if err != nil {
		t.Fatal(err)
	}
	_, targets, err = choice.Apply(t.Context(), l, targets)
	if err != nil {
		t.Fatal(err)
	}
	opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg), Targets: targets}
	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/team/app/manifests/docker") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	report, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "mirror"), opts)
	if err == nil {
		t.Fatal("no error")
	}
	for _, tag := range report.Tags {
		if tag.State == layoutsync.TagCreated {
			t.Errorf("%s was left", tag.Tag)
		}
	}
	list := slices.Collect(maps.Keys(pushtest.ResolveTags(t, reg, "mirror")))
	list = slices.DeleteFunc(list, func(tag string) bool { return strings.HasPrefix(tag, "sha256-") })
	if len(list) > 0 {
		t.Errorf("tags %q", list)
	}
	// Before the tags of the one repository move, the other has taken its root.
	for _, target := range targets {
		if target.Tag == "docker" && reg.Count(http.MethodPut, "/team/app/manifests/"+target.Desc.Digest.String()) != 1 {
			t.Error("the root of team/app was not sent before tags moved")
		}
	}
	reg.Reset()
	report, err = layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "mirror"), opts)
	if err != nil {
		t.Fatal(err)
	}
	if got := pushtest.ResolveTags(t, reg, "mirror/team/app"); len(got) != 1 || got["docker"] == "" {
		t.Errorf("mirror/team/app has %v", got)
	}
	if got := pushtest.ResolveTags(t, reg, "mirror"); got["1.0"] == "" || got["docker"] != "" {
		t.Errorf("mirror has %v", got)
	}
	where := map[string]string{}
	for _, tag := range report.Tags {
		where[tag.Tag] = tag.Repository
	}
	if where["docker"] != reg.Host+"/mirror/team/app" || where["1.0"] != "" {
		t.Errorf("repositories %v", where)
	}
}

// TestPushPrune deletes what the layout lacks, last of all, and puts it back
// when a deletion fails.
func TestPushPrune(t *testing.T) {
	reg := regtest.Start(t, &regtest.Options{Delete: true})
	old := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{
			"a": m.Image("amd64", "a"), "b": m.Image("amd64", "b"), "keep": m.Image("amd64", "keep"),
			"sha256-" + strings.Repeat("0", 64) + ".sig": m.Artifact("application/vnd.example", "signature", nil),
		}
	})
	dest := pushtest.Repository(t, reg, "app")
	if _, err := layoutsync.Push(t.Context(), old, dest, &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	before := pushtest.ResolveTags(t, reg, "app")
	l := pushtest.NewLayout(t, func(m pushtest.Maker) map[string]ocispec.Descriptor {
		return map[string]ocispec.Descriptor{"keep": m.Image("amd64", "keep"), "new": m.Image("amd64", "new")}
	})
	opts := &layoutsync.PushOptions{Registry: pushtest.Options(t, reg), Prune: true}

	dry := *opts
	dry.DryRun = true
	report, err := layoutsync.Push(t.Context(), l, dest, &dry)
	if err != nil {
		t.Fatal(err)
	}
	deletes := 0
	for _, tag := range report.Tags {
		if tag.Delete {
			deletes++
		}
	}
	if deletes != 2 {
		t.Errorf("a dry run would delete %d tags: %+v", deletes, report.Tags)
	}

	reg.Intercept(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete && strings.HasSuffix(r.URL.Path, "/b") {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return true
		}
		return false
	})
	if report, err = layoutsync.Push(t.Context(), l, dest, opts); err == nil || !strings.Contains(err.Error(), "delete tag b") {
		t.Errorf("error %v", err)
	}
	reg.Reset()
	if diff := cmp.Diff(before, pushtest.ResolveTags(t, reg, "app")); diff != "" {
		t.Errorf("after a failure (-before +after):\n%s\n%+v", diff, report.Tags)
	}

	if report, err = layoutsync.Push(t.Context(), l, dest, opts); err != nil {
		t.Fatal(err)
	}
	after := pushtest.ResolveTags(t, reg, "app")
	if after["a"] != "" || after["b"] != "" || after["keep"] != before["keep"] || after["new"] == "" || len(after) != 3 {
		t.Errorf("tags %v\n%+v", after, report.Tags)
	}
}

// TestPushMount has the registry itself take blobs from another repository.
func TestPushMount(t *testing.T) {
	reg := regtest.Start(t, nil)
	l := pushtest.NewLayout(t, everything)
	if _, err := layoutsync.Push(t.Context(), l, pushtest.Repository(t, reg, "from"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)}); err != nil {
		t.Fatal(err)
	}
	src := openRemote(t, reg, "from")
	reg.Reset()
	report, err := layoutsync.Push(t.Context(), src, pushtest.Repository(t, reg, "to"), &layoutsync.PushOptions{Registry: pushtest.Options(t, reg)})
	if err != nil {
		t.Fatal(err)
	}
	n := counts(reg)
	// The configs of images are read for the signature policy.
	t.Log(n)
	if n["POST upload"] != blobsOfEverything || n["PUT upload"] != 0 || report.Blobs != 0 {
		t.Errorf("%d mounts and %d uploads, want %d and 0; %d blobs sent", n["POST upload"], n["PUT upload"], blobsOfEverything, report.Blobs)
	}
	compareTrees(t, l, openRemote(t, reg, "to"), entries(t, l))
}
