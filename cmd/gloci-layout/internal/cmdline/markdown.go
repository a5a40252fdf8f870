package cmdline

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/urfave/cli/v2"
)

// An ExitStatus is a row of the table of exit statuses.
type ExitStatus struct {
	Status  int
	Meaning string
}

// An Object is what a command prints, one per line, under --json. Its fields are
// those of Value, a struct, by the tags `json` and `doc`.
type Object struct {
	Command string // "add image"
	Note    string // when it is printed; may be empty
	Value   any
}

// Markdown renders the reference of all commands, of the exit statuses and of the
// JSON objects.
func Markdown(app *cli.App, exits []ExitStatus, objects []Object) []byte {
	var b strings.Builder
	b.WriteString("## Flags of every command\n\n")
	all := pages(app)
	markdownFlags(&b, all[0].flags)
	b.WriteString("\n## Exit status\n\n| status | meaning |\n| --- | --- |\n")
	for _, e := range exits {
		fmt.Fprintf(&b, "| %d | %s |\n", e.Status, cell(e.Meaning))
	}
	b.WriteString("\n## Commands\n\n| command | what it does |\n| --- | --- |\n")
	for _, p := range all[1:] {
		name := strings.TrimPrefix(p.name, app.Name+" ")
		if len(p.commands) == 0 {
			fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", name, strings.ReplaceAll(name, " ", "-"), cell(p.usage))
		}
	}
	for _, p := range all[1:] {
		if len(p.commands) > 0 {
			continue
		}
		name := strings.TrimPrefix(p.name, app.Name+" ")
		fmt.Fprintf(&b, "\n### %s\n\n    %s\n", name, p.synopsis)
		fmt.Fprintf(&b, "\n%s.\n", strings.ToUpper(p.usage[:1])+p.usage[1:])
		for _, para := range paragraphs(p.description) {
			if literal(para) {
				para = "    " + strings.ReplaceAll(strings.TrimPrefix(para, "  "), "\n  ", "\n    ")
			}
			fmt.Fprintf(&b, "\n%s\n", para)
		}
		if len(p.flags) > 0 {
			b.WriteString("\n")
			markdownFlags(&b, p.flags)
		}
		for _, o := range objects {
			if o.Command == name {
				markdownObject(&b, o)
			}
		}
	}
	return []byte(b.String())
}

func markdownFlags(b *strings.Builder, flags []flagDoc) {
	b.WriteString("| flag | meaning |\n| --- | --- |\n")
	for _, f := range flags {
		fmt.Fprintf(b, "| `%s` | %s |\n", f.head(), cell(f.usage))
	}
}

func markdownObject(b *strings.Builder, o Object) {
	b.WriteString("\nWith `--json`")
	if o.Note != "" {
		b.WriteString(", " + o.Note)
	}
	b.WriteString(":\n\n| field | type | meaning |\n| --- | --- | --- |\n")
	fields(b, "", reflect.TypeOf(o.Value))
}

func fields(b *strings.Builder, prefix string, t reflect.Type) {
	for f := range structFields(t) {
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			fields(b, prefix, f.Type)
			continue
		}
		if name == "-" || name == "" {
			continue
		}
		kind, elem := jsonType(f.Type)
		doc := f.Tag.Get("doc")
		if strings.Contains(opts, "omitempty") || strings.Contains(opts, "omitzero") {
			doc += "; may be absent"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s |\n", prefix, name, kind, cell(doc))
		if elem != nil {
			fields(b, prefix+name+".", elem)
		}
	}
}

func structFields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// jsonType names the JSON type of t and returns the struct whose fields a reader
// must know too.
func jsonType(t reflect.Type) (string, reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.Bool:
		return "boolean", nil
	case reflect.String:
		return "string", nil
	case reflect.Map:
		return "object", nil
	case reflect.Struct:
		if t.PkgPath() == "time" {
			return "string", nil
		}
		return "object", t
	case reflect.Slice, reflect.Array:
		name, elem := jsonType(t.Elem())
		return "array of " + name + "s", elem
	default:
		return "number", nil
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
