package image

import (
	"fmt"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gardenlinux/gloci-layout/layout"
	"github.com/gardenlinux/gloci-layout/layout/internal/strictjson"
)

// An Edit is what is said about an image. Fields that are not set leave what the
// base has.
type Edit struct {
	// Platform is needed where the base has none.
	Platform *ocispec.Platform
	// Entrypoint and Cmd replace those of the base, an empty list by none; nil
	// leaves them. A new entrypoint takes the cmd of the base away: that is made
	// of arguments of the old one.
	Entrypoint, Cmd []string
	Env             []string          // KEY=VALUE: each replaces that of its key, or is appended
	Labels          map[string]string // merged
	User            *string
	WorkingDir      *string
	StopSignal      *string
	ExposedPorts    []string // added
	Volumes         []string // added
	// Created is the time of the image and of its new layers. The zero Time
	// stands for none: that of the base would be wrong.
	Created time.Time
}

// changesConfig tells whether the edit reaches what containers are run with.
func (e *Edit) changesConfig() bool {
	return e.Entrypoint != nil || e.Cmd != nil || len(e.Env)+len(e.Labels)+len(e.ExposedPorts)+len(e.Volumes) > 0 ||
		e.User != nil || e.WorkingDir != nil || e.StopSignal != nil
}

// The names that we write first, in this order (config.md, "Properties").
var (
	configNames  = []string{"created", "author", "architecture", "os", "os.version", "os.features", "variant", "config", "rootfs", "history"}
	runNames     = []string{"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"}
	historyNames = []string{"created", "created_by", "author", "comment", "empty_layer"}
)

// An object is a JSON object that is being edited. What nobody names stays as it
// is, white space apart.
type object []strictjson.Member

func parseObject(v strictjson.Value) (object, error) {
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	return v.Members()
}

func (o object) get(name string) strictjson.Value {
	for _, m := range o {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// set gives a member its value; nil takes it away.
func (o *object) set(name string, v strictjson.Value) {
	*o = slices.DeleteFunc(*o, func(m strictjson.Member) bool { return m.Name == name })
	if v != nil {
		*o = append(*o, strictjson.Member{Name: name, Value: v})
	}
}

// encode returns the canonical form, nil for an object without members.
func (o object) encode(order []string) strictjson.Value {
	if len(o) == 0 {
		return nil
	}
	members := strictjson.Canonical(o, order)
	for i := range members {
		members[i].Value = members[i].Value.Compact()
	}
	return strictjson.FromMembers(members)
}

func quoteAll(texts []string) strictjson.Value {
	items := make([]strictjson.Value, len(texts))
	for i, s := range texts {
		items[i] = strictjson.Quote(s)
	}
	return strictjson.FromItems(items)
}

func (o object) texts(name string) ([]string, error) {
	v := o.get(name)
	if v.Kind() == strictjson.Null {
		return nil, nil
	}
	items, err := v.Items()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	texts := make([]string, len(items))
	for i, item := range items {
		if texts[i], err = item.Text(); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return texts, nil
}

// editConfig returns the config of an image with further layers on those of
// base, the config of an image of n layers, or nil.
func editConfig(base []byte, n int, layers []Layer, edit *Edit) ([]byte, error) {
	var config object
	if base != nil {
		v, err := strictjson.Parse(base)
		if err == nil {
			config, err = v.Members()
		}
		if err == nil {
			err = strictjson.CheckNames(config, configNames)
		}
		if err != nil {
			return nil, fmt.Errorf("%w config: %w", layout.ErrInvalid, err)
		}
	}
	steps := []func(*object) error{
		func(o *object) error { return setPlatform(o, edit.Platform) },
		func(o *object) error { return editRun(o, edit) },
		func(o *object) error { return addDiffIDs(o, n, layers) },
		func(o *object) error { return addHistory(o, n, layers, edit) },
	}
	for _, step := range steps {
		if err := step(&config); err != nil {
			return nil, fmt.Errorf("%w config: %w", layout.ErrInvalid, err)
		}
	}
	config.set("created", timeValue(edit.Created))
	raw := append(config.encode(configNames), '\n')
	if len(raw) > layout.MaxDocument {
		return nil, fmt.Errorf("%w config: %d bytes, more than %d", layout.ErrInvalid, len(raw), layout.MaxDocument)
	}
	return raw, nil
}

func timeValue(t time.Time) strictjson.Value {
	if t.IsZero() {
		return nil
	}
	return strictjson.Quote(t.UTC().Format(time.RFC3339))
}

// setPlatform sets what the base does not say.
func setPlatform(o *object, p *ocispec.Platform) error {
	has := func(name string) bool {
		text, err := o.get(name).Text()
		return err == nil && text != ""
	}
	if has("os") && has("architecture") {
		return nil
	}
	if p == nil {
		return fmt.Errorf("no os or architecture")
	}
	o.set("os", strictjson.Quote(p.OS))
	o.set("architecture", strictjson.Quote(p.Architecture))
	if p.Variant != "" {
		o.set("variant", strictjson.Quote(p.Variant))
	}
	return nil
}

// editRun edits what containers are run with.
func editRun(config *object, edit *Edit) error {
	run, err := parseObject(config.get("config"))
	if err == nil {
		err = strictjson.CheckNames(run, runNames)
	}
	if err != nil {
		return err
	}
	list := func(name string, texts []string) {
		switch {
		case len(texts) > 0:
			run.set(name, quoteAll(texts))
		case texts != nil:
			run.set(name, nil)
		}
	}
	if edit.Entrypoint != nil && edit.Cmd == nil {
		run.set("Cmd", nil)
	}
	list("Entrypoint", edit.Entrypoint)
	list("Cmd", edit.Cmd)
	text := func(name string, s *string) {
		switch {
		case s == nil:
		case *s == "":
			run.set(name, nil)
		default:
			run.set(name, strictjson.Quote(*s))
		}
	}
	text("User", edit.User)
	text("WorkingDir", edit.WorkingDir)
	text("StopSignal", edit.StopSignal)
	if len(edit.Env) > 0 {
		env, err := run.texts("Env")
		if err != nil {
			return err
		}
		run.set("Env", quoteAll(mergeEnv(env, edit.Env)))
	}
	labels := map[string]strictjson.Value{}
	for k, v := range edit.Labels {
		labels[k] = strictjson.Quote(v)
	}
	sets := func(names []string) map[string]strictjson.Value {
		m := map[string]strictjson.Value{}
		for _, name := range names {
			m[name] = strictjson.Value("{}")
		}
		return m
	}
	for name, m := range map[string]map[string]strictjson.Value{
		"Labels": labels, "ExposedPorts": sets(edit.ExposedPorts), "Volumes": sets(edit.Volumes),
	} {
		if err := mergeObject(&run, name, m); err != nil {
			return err
		}
	}
	config.set("config", run.encode(runNames))
	return nil
}

func mergeEnv(env, more []string) []string {
	env = slices.Clone(env)
	for _, kv := range more {
		key, _, _ := strings.Cut(kv, "=")
		i := slices.IndexFunc(env, func(old string) bool { return strings.HasPrefix(old, key+"=") })
		if i < 0 {
			env = append(env, kv)
		} else {
			env[i] = kv
		}
	}
	return env
}

// mergeObject sets members of the object o.name, which is sorted then.
func mergeObject(o *object, name string, more map[string]strictjson.Value) error {
	if len(more) == 0 {
		return nil
	}
	members, err := parseObject(o.get(name))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for k, v := range more {
		members.set(k, v)
	}
	o.set(name, members.encode(nil))
	return nil
}

func addDiffIDs(config *object, n int, layers []Layer) error {
	rootfs, err := parseObject(config.get("rootfs"))
	if err != nil {
		return err
	}
	diffIDs, err := rootfs.texts("diff_ids")
	if err != nil {
		return err
	}
	if len(diffIDs) != n {
		return fmt.Errorf("%d diff_ids for %d layers", len(diffIDs), n)
	}
	for _, id := range diffIDs {
		if _, err := layout.ParseDigest(id); err != nil {
			return fmt.Errorf("diff_ids: %w", err)
		}
	}
	for _, l := range layers {
		diffIDs = append(diffIDs, string(l.DiffID))
	}
	rootfs.set("type", strictjson.Quote("layers"))
	rootfs.set("diff_ids", quoteAll(diffIDs))
	config.set("rootfs", rootfs.encode([]string{"type", "diff_ids"}))
	return nil
}

// addHistory adds an entry for each layer, and one where nothing but the config
// changes. Every layer has an entry then, also those of a base without history.
func addHistory(config *object, n int, layers []Layer, edit *Edit) error {
	var entries []strictjson.Value
	if v := config.get("history"); v.Kind() != strictjson.Null {
		var err error
		if entries, err = v.Items(); err != nil {
			return err
		}
	}
	for _, v := range entries {
		entry, err := v.Members()
		if err != nil {
			return err
		}
		if string(object(entry).get("empty_layer")) != "true" {
			n--
		}
	}
	if n < 0 {
		return fmt.Errorf("history has %d entries more than there are layers", -n)
	}
	for range n {
		entries = append(entries, object{{Name: "comment", Value: strictjson.Quote("layer of the base")}}.encode(nil))
	}
	add := func(createdBy string, empty bool) {
		var entry object
		entry.set("created", timeValue(edit.Created))
		entry.set("created_by", strictjson.Quote(createdBy))
		if empty {
			entry.set("empty_layer", strictjson.Value("true"))
		}
		entries = append(entries, entry.encode(historyNames))
	}
	for _, l := range layers {
		add(l.CreatedBy, false)
	}
	if len(layers) == 0 && edit.changesConfig() {
		add("change of the config", true)
	}
	if len(entries) > 0 {
		for i := range entries {
			entries[i] = entries[i].Compact()
		}
		config.set("history", strictjson.FromItems(entries))
	}
	return nil
}
