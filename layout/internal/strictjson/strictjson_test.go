package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

func TestParseAccepts(t *testing.T) {
	for _, s := range []string{
		`{}`, `[]`, `""`, `0`, `-0`, `1.5e+10`, `true`, `false`, `null`, " {\n\"a\" : [ 1 , {} ] }\t",
		`{"a":{"a":1},"b":{"a":1}}`, `"\u00e9\ud83d\ude00\n"`, `{"a":1,"A":2}`, `"` + "\u2028é" + `"`,
	} {
		if _, err := strictjson.Parse([]byte(s)); err != nil {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat("[", strictjson.MaxDepth+1) + strings.Repeat("]", strictjson.MaxDepth+1)
	for _, s := range []string{
		"", " ", "{", "[", `"`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a":1 "b":2}`, `{a:1}`, `'a'`, "tru", "nul", "01", "-", "1.", ".5", "1e", "+1", "NaN",
		`{} {}`, `{}x`, "\ufeff{}", "{}\x00", "\"\xff\"", "\"\x01\"", `"\x"`, `"\u12"`, `"\ud800"`, `"\ud800\u0041"`, `"\udc00"`, `"\u+123"`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"x":{"a":1,"a":1}}`, `[{"a":1,"a":1}]`,
		deep, `[` + strings.Repeat("0,", strictjson.MaxItems) + `0]`, strings.Repeat(" ", strictjson.MaxBytes) + "{}",
	} {
		if v, err := strictjson.Parse([]byte(s)); !errors.Is(err, strictjson.ErrSyntax) {
			t.Errorf("Parse(%.60q) = %.60s, %v; want ErrSyntax", s, v, err)
		}
	}
	var b strings.Builder // many names: the search goes over to a map
	b.WriteString(`{"n0":0`)
	for i := 1; i <= 40; i++ {
		b.WriteString(`,"n` + strings.Repeat("x", i) + `":0`)
	}
	if _, err := strictjson.Parse([]byte(b.String() + "}")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"n0", "nx", "nxxxxxxxxxxxxxxxxxxxxxxx"} {
		if _, err := strictjson.Parse([]byte(b.String() + `,"` + name + `":0}`)); !errors.Is(err, strictjson.ErrSyntax) {
			t.Errorf("a second %q among many was taken", name)
		}
	}
}

func TestCheckNames(t *testing.T) {
	for _, s := range []string{`{"Digest":1}`, `{"ſize":1}`, `{"SIZE":1}`} {
		v, err := strictjson.Parse([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		ms, err := v.Members()
		if err != nil {
			t.Fatal(err)
		}
		if err := strictjson.CheckNames(ms, []string{"digest", "size"}); !errors.Is(err, strictjson.ErrSyntax) {
			t.Errorf("%s: %v, want ErrSyntax", s, err)
		}
	}
}

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"": `""`, "a\"\\/": `"a\"\\/"`, "<&>é\u2028": `"<&>é` + "\u2028" + `"`, "\n\t\r\x00\x7f": `"\n\t\r\u0000\u007f"`, "\xff": `"` + "\ufffd" + `"`,
	} {
		if got := string(strictjson.Quote(in)); got != want {
			t.Errorf("Quote(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestInt(t *testing.T) {
	for s, want := range map[string]bool{"0": true, "9223372036854775807": true, "-1": true, "1e3": false, "1.0": false, "9223372036854775808": false, `"1"`: false, "null": false} {
		v, err := strictjson.Parse([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Int(); (err == nil) != want {
			t.Errorf("Int of %s: %v", s, err)
		}
	}
}

// FuzzParse: what Parse accepts means the same to encoding/json, before and
// after Compact and after it was taken apart and put together.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5e3,{"b":null}],"é":"\u00e9\ud83d\ude00"}`, `[]`, `"x"`, ` { "a" : "\\\" b" } `, `{"a":1,"a":2}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := strictjson.Parse(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted, but encoding/json refuses %q", data)
		}
		want := decode(t, data)
		if got := decode(t, v.Compact()); !reflect.DeepEqual(want, got) {
			t.Fatalf("Compact changed %q to %q", data, v.Compact())
		}
		var rebuilt strictjson.Value
		switch v.Kind() {
		case strictjson.Object:
			ms, err := v.Members()
			if err != nil {
				t.Fatal(err)
			}
			rebuilt = strictjson.FromMembers(strictjson.Canonical(ms, nil))
		case strictjson.Array:
			items, err := v.Items()
			if err != nil {
				t.Fatal(err)
			}
			rebuilt = strictjson.FromItems(items)
		case strictjson.String:
			text, err := v.Text()
			if err != nil {
				t.Fatal(err)
			}
			rebuilt = strictjson.Quote(text)
		default:
			return
		}
		if got := decode(t, rebuilt); !reflect.DeepEqual(want, got) {
			t.Fatalf("%q became %q", data, rebuilt)
		}
	})
}

func decode(t *testing.T, data []byte) any {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	return v
}

// BenchmarkParse reads an index of 2,000 entries as Garden Linux has them.
func BenchmarkParse(b *testing.B) {
	var entries []string
	for i := range 2000 {
		entries = append(entries, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%064x","size":%d,`+
			`"annotations":{"architecture":"amd64","cname":"kvm-gardener_prod-amd64-%d","feature_set":"base,gardener,kvm,_prod"},`+
			`"platform":{"architecture":"amd64","os":"gardenlinux","os.version":"%d"}}`, i, i, i, i))
	}
	raw := []byte(`{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := strictjson.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
