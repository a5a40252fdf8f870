package layout_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
)

const (
	entryText = `{"mediaType":"` + typeManifest + `","digest":"sha256:` + hexA + `","size":7}`
	// indexHead is followed by entries and "]}".
	indexHead = `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[`
)

// withEntry returns an index whose only entry is text.
func withEntry(text string) string { return indexHead + text + "]}" }

// withField returns an index whose only entry has another member.
func withField(text string) string {
	return withEntry(strings.TrimSuffix(entryText, "}") + "," + text + "}")
}

// withSize returns an index whose only entry has this size.
func withSize(size string) string {
	return withEntry(strings.Replace(entryText, `"size":7`, `"size":`+size, 1))
}

var hostileJSON = []struct {
	name string
	raw  string
	want error
}{
	{"sound", withEntry(entryText), nil},
	{"sound, white space", " \t\r\n" + withEntry(entryText) + "\n\n", nil},
	{"sound, no entries", withEntry(""), nil},
	{"sound, unknown fields", withField(`"x":{"y":[1,null,true,"z"]},"` + "ü" + `":-1.5e3`), nil},

	// J1: what two readers could read differently.
	{"empty", "", layout.ErrInvalid},
	{"only white space", " \n", layout.ErrInvalid},
	{"null", "null", layout.ErrInvalid},
	{"an array", "[]", layout.ErrInvalid},
	{"a string", `"index"`, layout.ErrInvalid},
	{"a number", "2", layout.ErrInvalid},
	{"byte order mark", "\ufeff" + withEntry(entryText), layout.ErrInvalid},
	{"bytes after the end", withEntry(entryText) + "x", layout.ErrInvalid},
	{"two documents", withEntry(entryText) + withEntry(entryText), layout.ErrInvalid},
	{"zero byte after the end", withEntry(entryText) + "\x00", layout.ErrInvalid},
	{"cut off", withEntry(entryText)[:40], layout.ErrInvalid},
	{"cut off in a string", `{"schemaVersion":2,"mani`, layout.ErrInvalid},
	{"cut off after a backslash", `{"schemaVersion":2,"mani\`, layout.ErrInvalid},
	{"torn: zeros", strings.Repeat("\x00", 512), layout.ErrInvalid},
	{"name twice", strings.Replace(withEntry(entryText), "{", `{"schemaVersion":2,`, 1), layout.ErrInvalid},
	{"manifests twice", strings.Replace(withEntry(entryText), "{", `{"manifests":[],`, 1), layout.ErrInvalid},
	{"digest twice", withField(`"digest":"sha256:` + hexE + `"`), layout.ErrInvalid},
	{"digest twice, one escaped", withField(`"d\u0069gest":"sha256:` + hexE + `"`), layout.ErrInvalid},
	{"name twice in annotations", withField(`"annotations":{"a":"1","a":"2"}`), layout.ErrInvalid},
	{"name twice in an unknown field", withField(`"x":{"y":{"a":1,"a":1}}`), layout.ErrInvalid},
	{"name twice among many", withField(`"x":{` + manyNames(40) + `,"n7":1}`), layout.ErrInvalid},
	{"name in another case", strings.Replace(withEntry(entryText), "manifests", "Manifests", 1), layout.ErrInvalid},
	{"digest in another case beside it", withField(`"Digest":"sha256:` + hexE + `"`), layout.ErrInvalid},
	{"size with a long s beside it", withField(`"ſize":9`), layout.ErrInvalid},
	{"size with a Kelvin sign beside nothing", withField(`"` + "\u212a" + `":9`), nil},
	{"os in another case", withField(`"platform":{"architecture":"a","os":"linux","OS":"windows"}`), layout.ErrInvalid},
	{"bad UTF-8", withField("\"x\":\"\xff\""), layout.ErrInvalid},
	{"bad UTF-8 in a name", withField("\"\xc3\x28\":1"), layout.ErrInvalid},
	{"encoded surrogate", withField("\"x\":\"\xed\xa0\x80\""), layout.ErrInvalid},
	{"lone surrogate", withField(`"x":"\ud800"`), layout.ErrInvalid},
	{"low surrogate first", withField(`"x":"\udc00\ud800"`), layout.ErrInvalid},
	{"surrogate pair", withField(`"x":"\ud83d\ude00"`), nil},
	{"control character", withField("\"x\":\"\n\""), layout.ErrInvalid},
	{"comment", strings.Replace(withEntry(entryText), "{", "{/**/", 1), layout.ErrInvalid},
	{"comma before the end", withEntry(entryText + ","), layout.ErrInvalid},
	{"single quotes", strings.ReplaceAll(withEntry(entryText), `"`, "'"), layout.ErrInvalid},
	{"NaN", withField(`"x":NaN`), layout.ErrInvalid},
	{"number with a leading zero", withField(`"x":01`), layout.ErrInvalid},
	{"number with a plus", withField(`"x":+1`), layout.ErrInvalid},
	{"hexadecimal number", withField(`"x":0x10`), layout.ErrInvalid},
	{"unknown escape", withField(`"x":"\x41"`), layout.ErrInvalid},
	{"signed escape", withField(`"x":"\u+041"`), layout.ErrInvalid},
	{"other white space", "\u00a0" + withEntry(entryText), layout.ErrInvalid},

	// J2: bombs.
	{"depth of 10 000 arrays", withField(`"x":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)), layout.ErrInvalid},
	{"depth of 4 MiB", strings.Repeat("[", 4<<20), layout.ErrInvalid},
	{"depth of 4 MiB, objects", strings.Repeat(`{"":`, 1<<20), layout.ErrInvalid},
	{"depth that is allowed", withField(`"x":` + strings.Repeat("[", 28) + strings.Repeat("]", 28)), nil},
	{"a million empty entries", withEntry(strings.Repeat("{},", 1<<20) + "{}"), layout.ErrInvalid},
	{"4,097 entries", withEntry(strings.Repeat(entryText+",", 4096) + entryText), layout.ErrInvalid},
	{"a million empty arrays in an unknown field", withField(`"x":[` + strings.Repeat("[],", 1<<20) + `[]]`), layout.ErrInvalid},
	{"300,000 names", withField(`"x":{` + manyNames(300_000) + `}`), layout.ErrInvalid},
	{"more than 4 MiB", withEntry(entryText) + strings.Repeat(" ", 4<<20), layout.ErrInvalid},

	// J3: sizes.
	{"size 0", withSize("0"), nil},
	{"size 2^62", withSize("4611686018427387904"), nil}, // a claim; whoever reads it must not believe it
	{"size -1", withSize("-1"), layout.ErrInvalid},
	{"size -2^63", withSize("-9223372036854775808"), layout.ErrInvalid},
	{"size 2^63", withSize("9223372036854775808"), layout.ErrInvalid},
	{"size of 100 digits", withSize(strings.Repeat("9", 100)), layout.ErrInvalid},
	{"size 1e3", withSize("1e3"), layout.ErrInvalid},
	{"size 7.0", withSize("7.0"), layout.ErrInvalid},
	{"size null", withSize("null"), layout.ErrInvalid},
	{"size as a string", withSize(`"7"`), layout.ErrInvalid},
	{"size as an array", withSize("[7]"), layout.ErrInvalid},
	{"no size", withEntry(strings.Replace(entryText, `,"size":7`, "", 1)), layout.ErrInvalid},

	// J4: one document that two readers take for different things (CVE-2021-41190).
	{"layers beside manifests", strings.Replace(withEntry(entryText), "{", `{"layers":[],`, 1), layout.ErrInvalid},
	{"config beside manifests", strings.Replace(withEntry(entryText), "{", `{"config":`+entryText+`,`, 1), layout.ErrInvalid},
	{"fsLayers beside manifests", strings.Replace(withEntry(entryText), "{", `{"fsLayers":[],`, 1), layout.ErrInvalid},
	{"Layers beside manifests", strings.Replace(withEntry(entryText), "{", `{"Layers":[],`, 1), layout.ErrInvalid},
	{"media type of a manifest", strings.Replace(withEntry(entryText), typeIndex, typeManifest, 1), layout.ErrInvalid},
	{"media type is a number", strings.Replace(withEntry(entryText), `"`+typeIndex+`"`, "7", 1), layout.ErrInvalid},
	{"schemaVersion 1", strings.Replace(withEntry(entryText), ":2", ":1", 1), layout.ErrInvalid},
	{"schemaVersion 2.0", strings.Replace(withEntry(entryText), ":2", ":2.0", 1), layout.ErrInvalid},
	{"schemaVersion as a string", strings.Replace(withEntry(entryText), ":2", `:"2"`, 1), layout.ErrInvalid},
	{"no schemaVersion", strings.Replace(withEntry(entryText), `"schemaVersion":2,`, "", 1), layout.ErrInvalid},
	{"no manifests", `{"schemaVersion":2}`, layout.ErrInvalid},
	{"manifests is an object", `{"schemaVersion":2,"manifests":{}}`, layout.ErrInvalid},
	{"entry is null", withEntry("null"), layout.ErrInvalid},
	{"entry is a string", withEntry(`"sha256:` + hexA + `"`), layout.ErrInvalid},
	{"entry without media type", withEntry(`{"digest":"sha256:` + hexA + `","size":7}`), layout.ErrInvalid},
	{"entry without digest", withEntry(`{"mediaType":"x/y","size":7}`), layout.ErrInvalid},
	{"annotation that is a number", withField(`"annotations":{"a":1}`), layout.ErrInvalid},
	{"annotation that is null", withField(`"annotations":{"a":null}`), nil}, // an empty text, and kept
	{"annotations are an array", withField(`"annotations":["a"]`), layout.ErrInvalid},
	{"platform is a string", withField(`"platform":"linux/amd64"`), layout.ErrInvalid},
	{"urls is a string", withField(`"urls":"https://example.com"`), layout.ErrInvalid},

	// J6: embedded data.
	{"data that fits", withEntry(embed("hello", "hello")), nil},
	{"data that is empty and fits", withEntry(embed("", "")), nil},
	{"data of another digest", withEntry(embed("hello", "hallo")), layout.ErrMismatch},
	{"data of another size", withEntry(embed("hello", "hello!")), layout.ErrMismatch},
	{"data that is empty", withEntry(embed("hello", "")), layout.ErrMismatch},
	{"data that is no base64", withField(`"data":"%%%%"`), layout.ErrInvalid},
	{"data with bits behind the end", withField(`"data":"QQ=B"`), layout.ErrInvalid},
	{"data of 1 MiB", withEntry(embed(strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20))), layout.ErrInvalid},

	// D1, D2: digests.
	{"digest with a path", withEntry(strings.Replace(entryText, hexA, "../../../etc/passwd", 1)), layout.ErrInvalid},
	{"digest in upper case", withEntry(strings.Replace(entryText, hexA, strings.ToUpper(hexA), 1)), layout.ErrInvalid},
	{"digest too short", withEntry(strings.Replace(entryText, hexA, hexA[1:], 1)), layout.ErrInvalid},
	{"digest of sha384", withEntry(strings.Replace(entryText, "sha256:"+hexA, "sha384:"+hexA+hexA[:32], 1)), layout.ErrInvalid},
	{"digest of sha512", withEntry(strings.Replace(entryText, "sha256:"+hexA, "sha512:"+hexA+hexA, 1)), nil},
	{"digest null", withEntry(strings.Replace(entryText, `"sha256:`+hexA+`"`, "null", 1)), layout.ErrInvalid},
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"n%d":0`, i)
	}
	return b.String()
}

// embed returns a descriptor of content that carries data.
func embed(content, data string) string {
	d := digest.FromString(content)
	return fmt.Sprintf(`{"mediaType":"a/b","digest":"%s","size":%d,"data":%s}`, d, len(content), base64Text(data))
}

func base64Text(s string) string {
	return encode([]byte(s)) // encoding/json writes bytes as base64
}

// Both readers of an index refuse the same documents, with the same cause.
func TestHostileIndex(t *testing.T) {
	for _, tt := range hostileJSON {
		t.Run(tt.name, func(t *testing.T) {
			bounded(t, func() {
				x, err := layout.ParseIndex([]byte(tt.raw))
				checkError(t, "ParseIndex", err, tt.want)
				if (x == nil) != (err != nil) {
					t.Errorf("ParseIndex = %v, %v", x, err)
				}
				raw := []byte(tt.raw)
				desc := ocispec.Descriptor{MediaType: typeIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
				d, err := layout.ParseDocument(desc, raw)
				checkError(t, "ParseDocument", err, tt.want)
				if (d == nil) != (err != nil) {
					t.Errorf("ParseDocument = %v, %v", d, err)
				}
			})
		})
	}
}

// J5: what is accepted keeps its bytes, and an edit changes nothing that it does
// not name.
func TestHostileIndexKeepsBytes(t *testing.T) {
	for _, tt := range hostileJSON {
		if tt.want != nil {
			continue
		}
		x, err := layout.ParseIndex([]byte(tt.raw))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(x.Bytes()); got != tt.raw {
			t.Errorf("%s: an index that nobody edited is written as\n%s\nwant\n%s", tt.name, got, tt.raw)
		}
	}
	raw := `{"x-first":{"b":1, "a":[ ]},"manifests":[{"x-entry":1e3,"size":7,"digest":"sha256:` + hexA +
		`","mediaType":"a/b","platform":{"os":"linux","x-platform":[null],"architecture":"amd64"}}],"schemaVersion":2}`
	x, err := layout.ParseIndex([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	x.Add(ocispec.Descriptor{MediaType: "c/d", Digest: "sha256:" + hexE})
	first := x.Entries()[0]
	first.Annotations = map[string]string{"k": "v"}
	x.Set(0, first)
	want := `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[` +
		`{"mediaType":"a/b","digest":"sha256:` + hexA + `","size":7,"annotations":{"k":"v"},` +
		`"platform":{"os":"linux","x-platform":[null],"architecture":"amd64"},"x-entry":1e3},` +
		`{"mediaType":"c/d","digest":"sha256:` + hexE + `","size":0}],"x-first":{"b":1,"a":[]}}` + "\n"
	if diff := cmp.Diff(want, string(x.Bytes())); diff != "" {
		t.Errorf("edited index (-want +got):\n%s", diff)
	}
}

const (
	configText = `{"mediaType":"` + typeConfig + `","digest":"sha256:` + hexE + `","size":0}`
	// manifestText is sound.
	manifestText = `{"schemaVersion":2,"mediaType":"` + typeManifest + `","config":` + configText + `,"layers":[]}`

	typeDocker     = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeSchema1    = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// J4: the type that the parent says is what the document is; the body may only
// agree or be silent.
func TestHostileDocument(t *testing.T) {
	for _, tt := range []struct {
		name      string
		mediaType string // of the descriptor
		raw       string
		want      error
	}{
		{"manifest", typeManifest, manifestText, nil},
		{"manifest without a type in the body", typeManifest, strings.Replace(manifestText, `"mediaType":"`+typeManifest+`",`, "", 1), nil},
		{"manifest that calls itself an index", typeManifest, strings.Replace(manifestText, typeManifest, typeIndex, 1), layout.ErrInvalid},
		{"manifest that calls itself a Docker one", typeManifest, strings.Replace(manifestText, typeManifest, typeDocker, 1), layout.ErrInvalid},
		{"manifest named as an index", typeIndex, manifestText, layout.ErrInvalid},
		{"manifest named as an index, silent body", typeIndex, strings.Replace(manifestText, `"mediaType":"`+typeManifest+`",`, "", 1), layout.ErrInvalid},
		{"index named as a manifest", typeManifest, withEntry(entryText), layout.ErrInvalid},
		{"index named as a manifest, silent body", typeManifest, `{"schemaVersion":2,"manifests":[]}`, layout.ErrInvalid},
		{"index named as a Docker list", typeDockerList, withEntry(entryText), layout.ErrInvalid},
		{"both at once, named as a manifest", typeManifest, strings.Replace(manifestText, "{", `{"manifests":[],`, 1), layout.ErrInvalid},
		{"both at once, named as an index", typeIndex, strings.Replace(manifestText, "{", `{"manifests":[],`, 1), layout.ErrInvalid},
		{"Manifests in a manifest", typeManifest, strings.Replace(manifestText, "{", `{"Manifests":[],`, 1), layout.ErrInvalid},
		{"schema 1 by its type", typeSchema1, `{"schemaVersion":1,"fsLayers":[]}`, layout.ErrInvalid},
		{"schema 1 as a Docker manifest", typeDocker, `{"schemaVersion":1,"fsLayers":[]}`, layout.ErrInvalid},
		{"fsLayers in a manifest", typeManifest, strings.Replace(manifestText, "{", `{"fsLayers":[],`, 1), layout.ErrInvalid},
		{"no config", typeManifest, `{"schemaVersion":2,"layers":[]}`, layout.ErrInvalid},
		{"config null", typeManifest, `{"schemaVersion":2,"config":null,"layers":[]}`, layout.ErrInvalid},
		{"config in a list", typeManifest, `{"schemaVersion":2,"config":[` + configText + `],"layers":[]}`, layout.ErrInvalid},
		{"layers as an object", typeManifest, strings.Replace(manifestText, "[]", "{}", 1), layout.ErrInvalid},
		{"layer without digest", typeManifest, strings.Replace(manifestText, "[]", `[{"mediaType":"a/b","size":1}]`, 1), layout.ErrInvalid},
		{"layer with a path as its digest", typeManifest, strings.Replace(manifestText, "[]", `[{"mediaType":"a/b","size":1,"digest":"sha256:../../x"}]`, 1), layout.ErrInvalid},
		{"4,097 layers", typeManifest, strings.Replace(manifestText, "[]", "["+strings.Repeat(configText+",", 4096)+configText+"]", 1), layout.ErrInvalid},
		{"subject without size", typeManifest, strings.Replace(manifestText, "{", `{"subject":{"mediaType":"a/b","digest":"sha256:`+hexA+`"},`, 1), layout.ErrInvalid},
		{"subject with data that lies", typeManifest, strings.Replace(manifestText, "{", `{"subject":`+embed("hello", "hallo")+`,`, 1), layout.ErrMismatch},
		{"artifactType is an object", typeManifest, strings.Replace(manifestText, "{", `{"artifactType":{},`, 1), layout.ErrInvalid},
		{"config with a name twice", typeManifest, strings.Replace(manifestText, `"size":0`, `"size":0,"size":1`, 1), layout.ErrInvalid},
		{"unknown type", "application/x", manifestText, layout.ErrInvalid},
		{"no type", "", manifestText, layout.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bounded(t, func() {
				raw := []byte(tt.raw)
				d, err := layout.ParseDocument(ocispec.Descriptor{MediaType: tt.mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw)
				checkError(t, "ParseDocument", err, tt.want)
				if err == nil && string(d.Raw) != tt.raw {
					t.Errorf("the bytes changed to %s", d.Raw)
				}
			})
		})
	}
}
