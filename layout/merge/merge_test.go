package merge_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/merge"
)

func parse(t *testing.T, text string) *layout.Index {
	t.Helper()
	x, err := layout.ParseIndex([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// doc is an index in JSON: MANIFESTS stands for the manifests.
func doc(members string, manifests ...string) string {
	if members != "" {
		members += ","
	}
	return `{` + members + `"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + strings.Join(manifests, ",") + `]}`
}

// item is an entry in JSON whose content is named by a word.
func item(word, more string) string {
	if more != "" {
		more = "," + more
	}
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d%s}`, digest.FromString(word), len(word), more)
}

func ref(name string) string {
	return fmt.Sprintf(`"annotations":{"org.opencontainers.image.ref.name":%q}`, name)
}

// nested puts an index into the world and returns an entry for it.
func (w *world) nested(t *testing.T, text, more string) string {
	t.Helper()
	desc := w.put(t, parse(t, text))
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,%s}`, desc.MediaType, desc.Digest, desc.Size, more)
}

const (
	amd64 = `"platform":{"architecture":"amd64","os":"linux"}`
	arm64 = `"platform":{"architecture":"arm64","os":"linux"}`
)

// Each case merges sources into ours; want is index.json, or lines of conflicts
// with digests as words.
func TestMerge(t *testing.T) {
	w := newWorld()
	in := func(members string, manifests ...string) string { return doc(members, manifests...) }
	words := strings.NewReplacer()
	var pairs []string
	for _, word := range []string{"a", "b", "c", "d"} {
		pairs = append(pairs, string(digest.FromString(word)), "<"+word+">")
	}
	words = strings.NewReplacer(pairs...)
	for name, test := range map[string]struct {
		base, ours string
		theirs     []string
		opts       merge.Options
		want       string // "" means that nothing changes
		conflicts  []string
	}{
		"a new ref name": {
			ours: in("", item("a", ref("1"))), theirs: []string{in("", item("b", ref("2")))},
			want: in("", item("a", ref("1")), item("b", ref("2"))),
		},
		"into nothing, as Go writes it": {
			ours: `{"schemaVersion":2,"manifests":null}`, theirs: []string{in("", item("a", ref("1")))},
			want: in("", item("a", ref("1"))),
		},
		"the same ref name": {ours: in("", item("a", ref("1"))), theirs: []string{in("", item("a", ref("1")))}},
		"another content": {
			ours: in("", item("a", ref("1"))), theirs: []string{in("", item("b", ref("1"))), in("", item("c", ref("1")))},
			conflicts: []string{"1: <a> (ours) <b> (s1) <c> (s2)"},
		},
		"ours wins": {
			ours: in("", item("a", ref("1"))), theirs: []string{in("", item("b", ref("1")))}, opts: merge.Options{OnConflict: merge.Ours},
		},
		"theirs wins": {
			ours: in("", item("a", ref("1"))), theirs: []string{in("", item("b", ref("1")))}, opts: merge.Options{OnConflict: merge.Theirs},
			want: in("", item("b", ref("1"))),
		},
		"two sources, and ours says nothing": {
			ours: in(""), theirs: []string{in("", item("b", ref("1"))), in("", item("c", ref("1")))}, opts: merge.Options{OnConflict: merge.Ours},
			conflicts: []string{"1: <b> (s1) <c> (s2)"},
		},
		"two sources, and theirs wins": {
			ours: in("", item("a", ref("1"))), theirs: []string{in("", item("b", ref("1"))), in("", item("c", ref("1")))}, opts: merge.Options{OnConflict: merge.Theirs},
			conflicts: []string{"1: <a> (ours) <b> (s1) <c> (s2)"},
		},
		"entries without ref name": {
			ours: in("", item("a", "")), theirs: []string{in("", item("a", `"x":1`), item("b", ""))},
			want: in("", item("a", `"x":1`), item("b", "")),
		},
		"a name does not count for content": {
			ours: in("", item("a", "")), theirs: []string{in("", item("a", ref("1")))},
			want: in("", item("a", ""), item("a", ref("1"))),
		},
		"members and annotations": {
			ours:   in(`"x-one":{"b":1,"a":"A"},"annotations":{"k":"v"}`),
			theirs: []string{in(`"x-one":{"a":"\u0041", "b":1},"x-two":null,"annotations":{"k":"v","l":"w"}`)},
			want:   in(`"x-one":{"a":"\u0041","b":1},"x-two":null,"annotations":{"k":"v","l":"w"}`),
		},
		"members that differ": {
			ours:      in(`"x-one":1,"annotations":{"k":"v"}`, item("a", `"x":1,"annotations":{"k":"v"}`)),
			theirs:    []string{in(`"x-one":1.0,"annotations":{"k":"w"}`, item("a", `"x":2,"annotations":{"k":"w"}`))},
			conflicts: []string{`x-one: 1 (ours) 1.0 (s1)`, `annotation k: "v" (ours) "w" (s1)`, `@<a> x: 1 (ours) 2 (s1)`, `@<a> annotation k: "v" (ours) "w" (s1)`},
		},
		"two entries of one ref name": {
			ours: in("", item("a", ref("1")), item("b", ref("1"))), theirs: []string{in("", item("b", ref("1")), item("a", ref("1")))},
		},
		"more entries of one ref name": {
			ours: in("", item("a", ref("1"))), theirs: []string{in("", item("b", ref("1")), item("a", ref("1")))},
			conflicts: []string{"1: <a> (ours) <b>,<a> (s1)"},
		},
		"indexes": {
			ours:   in("", w.nested(t, doc(`"annotations":{"k":"v"}`, item("a", amd64)), ref("1"))),
			theirs: []string{in("", w.nested(t, doc(`"x-one":[]`, item("b", arm64)), ref("1")))},
			want:   in("", w.nested(t, canonical(t, doc(`"annotations":{"k":"v"},"x-one":[]`, item("a", amd64), item("b", arm64))), ref("1"))),
		},
		"two images for a platform": {
			ours:      in("", w.nested(t, doc("", item("a", amd64)), ref("1"))),
			theirs:    []string{in("", w.nested(t, doc("", item("b", `"platform":{"architecture":"amd64","os":"linux","os.features":["x"]}`)), ref("1")))},
			conflicts: []string{"1 platform:linux/amd64: <a> (ours) <b> (s1)"},
		},
		"an index and an image": {
			ours:      in("", w.nested(t, doc("", item("a", amd64)), ref("1"))),
			theirs:    []string{in("", item("b", ref("1")))},
			conflicts: []string{"1: * (ours) <b> (s1)"},
		},
		"indexes of other media types": {
			ours:      in("", w.nested(t, doc("", item("a", amd64)), ref("1"))),
			theirs:    []string{in("", strings.ReplaceAll(w.nested(t, doc("", item("b", arm64)), ref("1")), "oci.image.index.v1", "docker.distribution.manifest.list.v2"))},
			conflicts: []string{"1: * (ours) * (s1)"},
		},
		"we have all of it, in bytes of our own": {
			ours:   in("", w.nested(t, doc("", item("b", arm64), " "+item("a", amd64)), ref("1"))),
			theirs: []string{in("", w.nested(t, doc("", item("a", amd64)), ref("1")))},
		},
		"both have all of it": {
			ours:   in("", w.nested(t, doc("", item("b", arm64), " "+item("a", amd64)), ref("1"))),
			theirs: []string{in("", w.nested(t, doc("", item("b", arm64), "  "+item("a", amd64)), ref("1")))},
		},
		"both have all of it, the other way round": {
			ours:   in("", w.nested(t, doc("", item("b", arm64), "  "+item("a", amd64)), ref("1"))),
			theirs: []string{in("", w.nested(t, doc("", item("b", arm64), " "+item("a", amd64)), ref("1")))},
		},
		"an entry that stands twice": {
			ours:   in("", w.nested(t, doc("", item("a", amd64)), ref("1"))),
			theirs: []string{in("", w.nested(t, doc("", item("a", amd64), item("a", amd64)), ref("1")))},
		},
		"images in another order": {
			ours:      in("", w.nested(t, doc("", item("a", amd64+`,"annotations":{"cname":"x"}`), item("b", amd64+`,"annotations":{"cname":"x"}`)), ref("1"))),
			theirs:    []string{in("", w.nested(t, doc("", item("b", amd64+`,"annotations":{"cname":"x"}`), item("a", amd64+`,"annotations":{"cname":"x"}`)), ref("1")))},
			conflicts: []string{"1 cname:x|amd64|: <a>,<b> (ours) <b>,<a> (s1)"},
		},
		"they have all of it, in bytes of their own": {
			ours:   in("", w.nested(t, doc("", item("a", amd64)), ref("1"))),
			theirs: []string{in("", w.nested(t, doc("", item("b", arm64), " "+item("a", amd64)), ref("1")))},
			want:   in("", w.nested(t, doc("", item("b", arm64), " "+item("a", amd64)), ref("1"))),
		},
		"indexes in indexes": {
			ours:   in("", w.nested(t, doc("", w.nested(t, doc("", item("a", "")), `"annotations":{"g":"1"}`)), ref("1"))),
			theirs: []string{in("", w.nested(t, doc("", w.nested(t, doc("", item("b", "")), `"annotations":{"g":"1"}`), w.nested(t, doc("", item("c", "")), `"annotations":{"g":"2"}`)), ref("1")))},
			want: in("", w.nested(t, canonical(t, doc("", w.nested(t, canonical(t, doc("", item("a", ""), item("b", ""))), `"annotations":{"g":"1"}`),
				w.nested(t, doc("", item("c", "")), `"annotations":{"g":"2"}`))), ref("1"))),
		},
		"three ways": {
			base:   in("", item("a", ref("1")), item("b", ref("2")), item("c", ref("3")), item("d", "")),
			ours:   in("", item("b", ref("1")), item("b", ref("2")), item("c", ref("3")), item("a", ref("5"))),
			theirs: []string{in("", item("a", ref("1")), item("c", ref("2")), item("d", ""), item("a", ref("5")))},
			want:   in("", item("b", ref("1")), item("c", ref("2")), item("a", ref("5"))),
		},
		"changed and deleted": {
			base: in("", item("a", ref("1")), item("a", ref("2"))), ours: in("", item("b", ref("1"))), theirs: []string{in("", item("b", ref("2")))},
			conflicts: []string{"1: <a> (base) <b> (ours) absent (s1)", "2: <a> (base) absent (ours) <b> (s1)"},
		},
		"changed and deleted, theirs wins": {
			base: in("", item("a", ref("1")), item("a", ref("2"))), ours: in("", item("b", ref("1"))), theirs: []string{in("", item("b", ref("2")))},
			opts: merge.Options{OnConflict: merge.Theirs},
			want: in("", item("b", ref("2"))),
		},
		"content here, an annotation there": {
			base: in("", item("a", ref("1"))), ours: in("", item("b", ref("1"))),
			theirs: []string{in("", item("a", `"annotations":{"k":"v","org.opencontainers.image.ref.name":"1"}`))},
			want:   in("", item("b", `"annotations":{"k":"v","org.opencontainers.image.ref.name":"1"}`)),
		},
		"a key of the caller": {
			ours: in("", w.nested(t, doc("", item("a", "")), ref("1"))), theirs: []string{in("", w.nested(t, doc("", item("b", "")), ref("1")))},
			opts:      merge.Options{Key: func(ocispec.Descriptor) string { return "one" }},
			conflicts: []string{"1 one: <a> (ours) <b> (s1)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var base *layout.Index
			if test.base != "" {
				base = parse(t, test.base)
			}
			ours := parse(t, test.ours)
			var theirs []*layout.Index
			for _, text := range test.theirs {
				theirs = append(theirs, parse(t, text))
			}
			got, _, err := w.merge(t, base, ours, &test.opts, theirs...)
			var conflicts *merge.ConflictError
			if errors.As(err, &conflicts) {
				if !errors.Is(err, layout.ErrConflict) {
					t.Errorf("%v is no ErrConflict", err)
				}
				var lines []string
				for _, c := range conflicts.Conflicts {
					line := words.Replace(c.String())
					for {
						i := strings.Index(line, "sha256:")
						if i < 0 {
							break
						}
						line = line[:i] + "*" + line[i+71:]
					}
					lines = append(lines, line)
				}
				if diff := cmp.Diff(test.conflicts, lines); diff != "" {
					t.Errorf("conflicts (-want +got):\n%s", diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.conflicts != nil {
				t.Fatalf("no conflict, but\n%s", got.Bytes())
			}
			want := test.ours
			if test.want != "" {
				want = canonical(t, test.want)
			}
			if diff := cmp.Diff(want, string(got.Bytes())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// canonical is an index as it is written.
func canonical(t *testing.T, text string) string {
	t.Helper()
	x := parse(t, text)
	x.Sort()
	x.Canonicalize()
	return string(x.Bytes())
}

func TestKey(t *testing.T) {
	linux := &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	for want, desc := range map[string]ocispec.Descriptor{
		"cname:kvm|amd64|1.0":        {Annotations: map[string]string{"cname": "kvm-amd64-1.0-abcdef12", "architecture": "amd64"}, Platform: &ocispec.Platform{OS: "gardenlinux", OSVersion: "1.0"}},
		"platform:linux/arm64/v8":    {Platform: linux},
		"platform:linux/arm64/v8:10": {Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8", OSVersion: "10", OSFeatures: []string{"x"}}},
		"sha256:1":                   {Digest: "sha256:1", Platform: linux, ArtifactType: "application/x"},
		"sha256:2":                   {Digest: "sha256:2", MediaType: ocispec.MediaTypeImageIndex},
		"ref:name":                   {MediaType: ocispec.MediaTypeImageIndex, Annotations: map[string]string{ocispec.AnnotationRefName: "name", "k": "v"}},
		`index:unknown/unknown,application/x,a=b,"k=v,w"`: {
			MediaType: ocispec.MediaTypeImageIndex, ArtifactType: "application/x", Platform: &ocispec.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"k": "v,w", "a": "b"},
		},
	} {
		if got := merge.Key(desc); got != want {
			t.Errorf("Key = %q, want %q", got, want)
		}
	}
}

// Indexes that nest deeper than anybody reads are refused, not followed.
func TestDepth(t *testing.T) {
	w := newWorld()
	deep := func(word string) string {
		text := doc("", item(word, ""))
		for range 20 {
			text = doc("", w.nested(t, text, ref("n")))
		}
		return text
	}
	_, err := merge.Merge(context.Background(), nil, w.side("ours", parse(t, deep("a"))), []merge.Side{w.side("theirs", parse(t, deep("b")))}, nil)
	if !errors.Is(err, layout.ErrInvalid) || !strings.Contains(err.Error(), "nested more than 16 deep") {
		t.Errorf("Merge = %v, want ErrInvalid", err)
	}
}

// What a side does not speak of, it has not changed, and members of index.json
// are not its business.
func TestScope(t *testing.T) {
	w := newWorld()
	base := parse(t, doc(`"annotations":{"k":"v"}`, item("a", ref("1")), item("b", ref("2"))))
	theirs := w.side("theirs", parse(t, doc(`"annotations":{"k":"w"}`, item("c", ref("2")), item("d", ref("3")))))
	theirs.Scope = func(desc ocispec.Descriptor) bool { return layout.RefName(desc) == "2" }
	b := w.side("base", base)
	r, err := merge.Merge(context.Background(), &b, w.side("ours", base), []merge.Side{theirs}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := canonical(t, doc(`"annotations":{"k":"v"}`, item("a", ref("1")), item("c", ref("2")))); string(r.Index.Bytes()) != want {
		t.Errorf("got  %s\nwant %s", r.Index.Bytes(), want)
	}
	if len(r.Needed[0]) != 1 || r.Needed[0][0].Digest != digest.FromString("c") {
		t.Errorf("needed %v, want c", r.Needed)
	}
}

func TestUnion(t *testing.T) {
	ours := parse(t, doc(`"x":1,"annotations":{"k":"ours"}`, item("a", `"x":[1.0]`)))
	theirs := parse(t, doc(`"x":2,"y":3,"annotations":{"k":"theirs","l":"theirs"}`, item("b", `"x":null`), item("c", "")))
	got, err := merge.Union(ours, theirs, []int{0})
	if err != nil {
		t.Fatal(err)
	}
	if want := canonical(t, doc(`"x":1,"y":3,"annotations":{"k":"ours","l":"theirs"}`, item("a", `"x":[1.0]`), item("b", `"x":null`))); string(got.Bytes()) != want {
		t.Errorf("got  %s\nwant %s", got.Bytes(), want)
	}
}
