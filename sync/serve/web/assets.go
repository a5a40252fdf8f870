package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gardenlinux/gloci-layout/layout/show"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

// An asset is a file that pages use.
type asset struct {
	name    string // with a hash, so that it may be kept for ever
	kind    string
	content []byte
}

// All here is made when a page is asked for: every command links it in.
var (
	style   = newAsset("page.css", "text/css; charset=utf-8")
	script  = newAsset("page.js", "text/javascript; charset=utf-8")
	icon    = newAsset("icon.svg", "image/svg+xml")
	buildID = sync.OnceValue(newBuildID)
)

func newAsset(file, kind string) func() asset {
	return sync.OnceValue(func() asset {
		content, err := staticFiles.ReadFile("static/" + file)
		if err != nil {
			panic(err) // it is compiled in
		}
		hash := sha256.Sum256(content)
		name, ext, _ := strings.Cut(file, ".")
		return asset{name + "." + hex.EncodeToString(hash[:6]) + "." + ext, kind, content}
	})
}

// newBuildID tells versions of the pages apart.
func newBuildID() string {
	hash := sha256.New()
	err := fs.WalkDir(templateFiles, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := templateFiles.ReadFile(p)
		hash.Write(b)
		return err
	})
	if err != nil {
		panic(err) // it is compiled in
	}
	return hex.EncodeToString(hash.Sum(nil)[:8]) + style().name + script().name
}

// source is the asset as a hash for a Content-Security-Policy.
func (a asset) source() string {
	hash := sha256.Sum256(a.content)
	return "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
}

func serveAsset(w http.ResponseWriter, r *http.Request, name string) {
	for _, a := range []asset{style(), script(), icon()} {
		if a.name == name {
			w.Header().Set("Content-Type", a.kind)
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
			return
		}
	}
	http.NotFound(w, r)
}

// templates are those of all pages. Strings of a layout are clean before they
// come here; what is asked for in an address is cleaned by the templates.
var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"clean":  show.Clean,
		"count":  count,
		"style":  func() string { return "/-/" + style().name },
		"script": func() string { return "/-/" + script().name },
		"icon":   func() string { return "/-/" + icon().name },
		"css":    func() template.CSS { return template.CSS(style().content) },
		"js":     func() template.JS { return template.JS(script().content) },
		"policy": staticPolicy,
		"plural": plural,
		"list":   func(items ...any) any { return items },
		"documents": func(label string, list []documentView) any {
			return struct {
				Label string
				List  []documentView
			}{label, list}
		},
	}).ParseFS(templateFiles, "templates/*.html"))
})

// staticPolicy is that of a file.
func staticPolicy() string {
	return "default-src 'none'; style-src " + style().source() + "; script-src " + script().source() + "; base-uri 'none'; form-action 'none'"
}

// count shows a number with commas between thousands.
func count(n int) string {
	s := []byte{}
	digits := strconv.Itoa(n)
	for i := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			s = append(s, ',')
		}
		s = append(s, digits[i])
	}
	return string(s)
}
