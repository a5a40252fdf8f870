package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/internal/pattern"
	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/consumer"
	"github.com/gardenlinux/gloci-layout/layout/extract"
	"github.com/gardenlinux/gloci-layout/layout/show"
)

// A documentView is an index or manifest in a list.
type documentView struct {
	Link, Name, Role, Arch, Type, Digest, Short, Size, Platform string
	Signed, Absent                                              bool
}

type manifestView struct {
	frame
	documentView
	Anchor      string
	Err         string
	RefNames    []string
	MediaType   string
	Own, Shared string
	Features    []string
	Parents     []documentView
	Subject     *documentView
	Entries     []documentView
	Layers      []layerView
	Common      []annotationView // that all layers have alike
	Config      *layerView
	ConfigJSON  string
	Referrers   []documentView
	Annotations []annotationView
	Commands    []commandView
	Answers     []answersView
	Findings    findingsView
	Raw         string
}

type layerView struct {
	Name, Kind, MediaType, Digest, Short, Size, Get, Files, Shared string
	Annotations                                                    []annotationView
}

type annotationView struct {
	Key    string
	Values []string // lines
	Where  string
}

type commandView struct{ Label, Command string }

// answersView is what programs take on one platform.
type answersView struct {
	Platform string
	Answers  []answerView
}

type answerView struct {
	Program, Takes, Link, Why string
	Fails                     bool
	Notes                     []string
}

func (s *snapshot) view(l links, desc ocispec.Descriptor, d *document) documentView {
	v := documentView{Digest: string(desc.Digest), Short: short(string(desc.Digest)), Type: show.Clean(kindOf(desc.MediaType)), Role: string(roleOther)}
	if desc.Platform != nil {
		v.Platform = show.Clean(layout.FormatPlatform(*desc.Platform))
	}
	if d == nil {
		v.Name, v.Size = v.Short, show.Size(desc.Size)
		return v
	}
	v.Link, v.Name, v.Role, v.Arch = l.Manifest(v.Digest), show.Clean(d.name()), string(d.role), show.Clean(d.arch)
	v.Type = show.Clean(kindOf(cmp.Or(d.artifactType, d.desc.MediaType)))
	v.Size, v.Signed, v.Absent = show.Size(d.size), d.signed(), d.absent
	return v
}

func (x *request) manifest(d string) error {
	doc, err := x.find(d)
	if err != nil {
		return err
	}
	if x.fresh(x.snap.id) {
		return nil
	}
	v, err := x.snap.manifest(x.r.Context(), x.repo.Source, x.frame(doc.name(), x.way(doc)...), doc)
	if err != nil {
		return err
	}
	v.Commands = x.commands(doc)
	if !slices.Contains(x.snap.roots, doc) {
		return x.render("manifest", v)
	}
	if v.Answers, err = x.snap.answers(x.r.Context(), x.repo.Source, x.h.opts.Consumers, v.links, doc); err != nil {
		return err
	}
	return x.render("manifest", v)
}

// way leads from the overview to a document: the index that it is in.
func (x *request) way(d *document) []crumb {
	if len(d.parents) == 0 {
		return nil
	}
	p := d.parents[0]
	return append(x.way(p), crumb{p.name(), links{base: "/r/" + x.repo.Name}.Manifest(string(p.desc.Digest))})
}

// find returns the document with a digest.
func (x *request) find(d string) (*document, error) {
	parsed, err := layout.ParseDigest(d)
	if err != nil {
		return nil, notFound("%s", err)
	}
	doc := x.snap.byDigest[parsed]
	if doc == nil {
		return nil, notFound("there is no manifest %s in %s", parsed, x.repo.Name)
	}
	return doc, nil
}

// manifest makes the view of a document, whose bytes it reads again.
func (s *snapshot) manifest(ctx context.Context, src layout.Source, f frame, d *document) (*manifestView, error) {
	id := string(d.desc.Digest)
	v := &manifestView{
		frame: f, documentView: s.view(f.links, d.desc, d), Anchor: anchor(id), RefNames: clean(d.refNames),
		MediaType: show.Clean(d.desc.MediaType), Own: show.Size(d.own), Shared: show.Size(d.size - d.own),
		Features: clean(d.flavor.Features), Findings: s.findingsView(f.links, s.byFinding[d.desc.Digest]),
	}
	v.Type = show.Clean(d.artifactType)
	if d.err != nil {
		v.Err = show.Clean(d.err.Error())
		return v, nil //nolint:nilerr // the page is about the damage
	}
	for _, p := range d.parents {
		v.Parents = append(v.Parents, s.view(f.links, p.desc, p))
	}
	for _, m := range d.manifests {
		v.Entries = append(v.Entries, s.view(f.links, m, s.byDigest[m.Digest]))
	}
	if d.subject != nil {
		subject := s.view(f.links, *d.subject, s.byDigest[d.subject.Digest])
		v.Subject = &subject
	}
	for _, r := range d.referrers {
		v.Referrers = append(v.Referrers, s.view(f.links, r.desc, r))
	}
	common := commonAnnotations(d.layers)
	for _, k := range sortedKeys(common) {
		v.Common = append(v.Common, annotation(k, common[k], ""))
	}
	for i, l := range d.layers {
		v.Layers = append(v.Layers, s.layer(f.links, d, l, strconv.Itoa(i), common))
	}
	if d.config != nil {
		c := s.layer(f.links, d, *d.config, "config", nil)
		c.Name = "config"
		v.Config = &c
		if isJSON(d.config.MediaType) || d.config.Size <= 2 {
			v.ConfigJSON = pretty(ctx, src, *d.config)
		}
	}
	v.Annotations = annotations(d)
	v.Raw = pretty(ctx, src, d.desc)
	return v, nil
}

func isJSON(mediaType string) bool {
	return strings.HasSuffix(mediaType, "json")
}

// pretty reads a small JSON text and indents it; what cannot be read says why.
func pretty(ctx context.Context, src layout.Source, desc ocispec.Descriptor) string {
	raw, err := layout.ReadAll(ctx, src, desc, layout.MaxDocument)
	if err != nil {
		return show.Clean(err.Error())
	}
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(raw), "", "  ") != nil {
		return show.Clean(string(raw))
	}
	return show.JSON(strings.ToValidUTF8(b.String(), "\ufffd"))
}

// commonAnnotations are those that several layers have, all of them alike.
func commonAnnotations(layers []ocispec.Descriptor) map[string]string {
	if len(layers) < 2 {
		return nil
	}
	common := maps.Clone(layers[0].Annotations)
	for _, l := range layers[1:] {
		maps.DeleteFunc(common, func(k, v string) bool { have, ok := l.Annotations[k]; return !ok || have != v })
	}
	return common
}

func (s *snapshot) layer(l links, d *document, desc ocispec.Descriptor, part string, common map[string]string) layerView {
	id := string(d.desc.Digest)
	v := layerView{
		Name: show.Clean(desc.Annotations[ocispec.AnnotationTitle]), Kind: show.Clean(kindOf(desc.MediaType)), MediaType: show.Clean(desc.MediaType),
		Digest: string(desc.Digest), Short: short(string(desc.Digest)), Size: show.Size(desc.Size), Get: l.Get(id, part),
	}
	if n, err := strconv.Atoi(part); err == nil && v.Name == "" {
		v.Name = fmt.Sprintf("layer %d", n+1)
	}
	if extract.ClaimsArchive(desc.MediaType) {
		v.Files = l.Files(id, part)
	}
	if n := s.uses[desc.Digest]; n > 1 {
		v.Shared = fmt.Sprintf("shared by %d manifests", n)
	}
	for _, k := range sortedKeys(desc.Annotations) {
		if _, ok := common[k]; !ok && k != ocispec.AnnotationTitle {
			v.Annotations = append(v.Annotations, annotation(k, desc.Annotations[k], ""))
		}
	}
	return v
}

func annotation(key, value, where string) annotationView {
	var lines []string
	for line := range strings.SplitSeq(value, "\n") {
		if len(lines) == 100 {
			lines = append(lines, "...")
			break
		}
		lines = append(lines, show.Clean(strings.TrimSuffix(line, "\r")))
	}
	return annotationView{show.Clean(key), lines, where}
}

// annotations are those of the manifest, and those of its entry that differ.
func annotations(d *document) []annotationView {
	var list []annotationView
	for _, k := range sortedKeys(d.annotations) {
		list = append(list, annotation(k, d.annotations[k], ""))
	}
	for _, k := range sortedKeys(d.desc.Annotations) {
		if own, ok := d.annotations[k]; !ok || own != d.desc.Annotations[k] {
			list = append(list, annotation(k, d.desc.Annotations[k], "in the index"))
		}
	}
	return list
}

var (
	tagGrammar  = pattern.New(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	hostGrammar = pattern.New(`^[A-Za-z0-9.-]+(:[0-9]+)?$|^\[[0-9a-fA-F:.]+\](:[0-9]+)?$`)
	repoGrammar = pattern.New(`^[a-z0-9]+(?:[._/-]+[a-z0-9]+)*$`)
)

// commands are those that fetch a document from this server. Nothing that a
// shell could take for something else gets into them.
func (x *request) commands(d *document) []commandView {
	host, name := x.r.Host, cmp.Or(x.repo.Pull, x.repo.Name)
	if !hostGrammar.MatchString(host) || !repoGrammar.MatchString(name) {
		return nil
	}
	repo := host + "/" + name
	at := repo + "@" + string(d.desc.Digest)
	podman, plain, oras := "", "", ""
	if x.r.TLS == nil {
		podman, plain, oras = " --tls-verify=false", " --tls-verify=false", " --plain-http"
	}
	named := at
	if i := slices.IndexFunc(d.refNames, tagGrammar.MatchString); i >= 0 {
		named = repo + ":" + d.refNames[i]
	}
	var list []commandView
	add := func(label, command string) { list = append(list, commandView{label, command}) }
	if d.isImage || d.isIndex {
		add("podman", "podman pull"+podman+" "+named)
	}
	switch {
	case d.isImage:
		add("gloci-layout", "gloci-layout extract"+plain+" docker://"+at+" --rootfs -o out")
	case d.isIndex:
		add("gloci-layout", "gloci-layout pull"+plain+" docker://"+named+" layout")
	default:
		add("gloci-layout", "gloci-layout extract"+plain+" docker://"+at+" --mode ExtractAll -o out")
	}
	if d.isIndex {
		return append(list, commandView{"oras", "oras manifest fetch" + oras + " " + named})
	}
	return append(list, commandView{"oras", "oras pull" + oras + " " + named})
}

const maxPlatforms = 4

// answers asks consumers what they take of an entry of index.json, on each
// platform that it has images for.
func (s *snapshot) answers(ctx context.Context, src layout.Source, consumers []consumer.Consumer, l links, root *document) ([]answersView, error) {
	if len(consumers) == 0 || root.role.refers() || root.desc.Size == 0 {
		return nil, nil
	}
	var asks []consumer.Ask
	s.below(root, func(d *document) {
		p := d.desc.Platform
		if !d.isImage || p == nil || p.OS == "" || p.OS == "unknown" || len(asks) == maxPlatforms {
			return
		}
		if !slices.ContainsFunc(asks, func(a consumer.Ask) bool { return layout.FormatPlatform(*a.Platform) == layout.FormatPlatform(*p) }) {
			asks = append(asks, consumer.Ask{Platform: p, Host: *p})
		}
	})
	if len(asks) == 0 {
		asks = []consumer.Ask{{Host: ocispec.Platform{OS: "linux", Architecture: cmp.Or(root.arch, runtime.GOARCH)}}}
	}
	var list []answersView
	for _, ask := range asks {
		v := answersView{Platform: show.Clean(layout.FormatPlatform(ask.Host))}
		for _, c := range consumers {
			o, err := c.Take(ctx, src, root.desc, ask)
			if err != nil {
				if ctx.Err() != nil || !errors.Is(err, layout.ErrInvalid) && !errors.Is(err, layout.ErrMismatch) && !errors.Is(err, layout.ErrNotFound) {
					return nil, fmt.Errorf("%s: %w", c.Name(), err)
				}
				v.Answers = append(v.Answers, answerView{Program: c.Name(), Fails: true, Takes: "the content is damaged", Why: show.Clean(err.Error())})
				continue
			}
			v.Answers = append(v.Answers, s.answer(l, c.Name(), o))
		}
		list = append(list, v)
	}
	return list, nil
}

func (s *snapshot) answer(l links, program string, o *consumer.Outcome) answerView {
	a := answerView{Program: program, Why: show.Clean(o.Why), Notes: clean(o.Notes)}
	if f := o.Failure; f != nil {
		a.Fails, a.Takes = true, show.Clean(string(f.Kind)+": "+f.Message)
		return a
	}
	a.Takes = short(string(o.Desc.Digest))
	if d := s.byDigest[digest.Digest(o.Desc.Digest)]; d != nil {
		a.Takes, a.Link = show.Clean(d.name()), l.Manifest(string(o.Desc.Digest))
	}
	return a
}
