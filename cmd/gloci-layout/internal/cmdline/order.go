// Package cmdline holds what the command line needs beside urfave/cli: it puts
// arguments in order before cli parses them, and it renders help, manual pages,
// the command reference and shell completions from the command definitions.
//
// # Order
//
// urfave/cli v2 stops at the first operand: in `cmd verify DIR --jobs 2` it takes
// --jobs for an operand. People come from podman and skopeo, where flags stand
// anywhere, so [Order] sorts the arguments first. It knows from the definitions
// which flags take a value. `--` ends flags and `-` is an operand.
package cmdline

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// A UsageError is a command line that no command accepts.
type UsageError struct {
	Command string // full name of the command, without the program; may be empty
	Msg     string
	Hint    string // how to do better; may be empty
}

func (e *UsageError) Error() string {
	if e.Command == "" {
		return e.Msg
	}
	return e.Command + ": " + e.Msg
}

// A Line is a command line in the order that urfave/cli wants.
type Line struct {
	// Args are the program name, global flags, the command's words, its flags,
	// "--", and its operands.
	Args []string
	// Path is the command that was named, outermost first; empty when there is none.
	Path []*cli.Command
	// Help and Version tell that --help or --version stand on the line: then
	// nothing is to run, and Args is not set.
	Help, Version bool
}

// Name returns the words that call the command at the end of path.
func Name(path []*cli.Command) string {
	words := make([]string, len(path))
	for i, c := range path {
		words[i] = c.Name
	}
	return strings.Join(words, " ")
}

// Order sorts args, the first of which is the program. All errors are a
// [*UsageError].
func Order(app *cli.App, args []string) (Line, error) {
	o := orderer{app: app}
	rest := args[min(1, len(args)):]
	for len(rest) > 0 {
		arg := rest[0]
		rest = rest[1:]
		switch {
		case arg == "--":
			o.operands = append(o.operands, rest...)
			rest = nil
		case len(arg) > 1 && arg[0] == '-':
			n, err := o.flag(arg, rest)
			if err != nil {
				return Line{}, err
			}
			rest = rest[n:]
		default:
			if err := o.word(arg); err != nil {
				return Line{}, err
			}
		}
	}
	return o.line(args)
}

type orderer struct {
	app           *cli.App
	path          []*cli.Command
	global        []string
	local         []given
	operands      []string
	help, version bool
}

// given is a flag that is no global one: it may stand before the word that
// makes clear whose it is.
type given struct{ written, name, arg string }

// commands returns those that may be named next.
func (o *orderer) commands() []*cli.Command {
	if len(o.path) == 0 {
		return o.app.Commands
	}
	return o.path[len(o.path)-1].Subcommands
}

func (o *orderer) fail(hint, format string, args ...any) error {
	return &UsageError{Command: Name(o.path), Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func (o *orderer) word(arg string) error {
	commands := o.commands()
	if len(commands) == 0 {
		o.operands = append(o.operands, arg)
		return nil
	}
	if len(o.path) == 0 && arg == "help" && !o.help {
		o.help = true
		return nil
	}
	var names []string
	for _, c := range commands {
		if c.HasName(arg) {
			o.path = append(o.path, c)
			return nil
		}
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	hint := fmt.Sprintf("%s --help lists the commands", strings.TrimSpace(o.app.Name+" "+Name(o.path)))
	if near := Suggest(arg, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	return o.fail(hint, "unknown command %s", strconv.Quote(arg))
}

// flag takes one flag and returns how many of rest are its value: 0 or 1.
func (o *orderer) flag(arg string, rest []string) (int, error) {
	long := strings.HasPrefix(arg, "--")
	name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
	written, _, _ := strings.Cut(arg, "=")
	if !long && !hasValue && len(name) > 1 && o.allShortBools(name) {
		for _, c := range name { // -qv is -q -v
			if _, err := o.flag("-"+string(c), nil); err != nil {
				return 0, err
			}
		}
		return 0, nil
	}
	if long == (len(name) == 1) { // -json, --q: not how they are documented
		return 0, o.unknown(written)
	}
	switch {
	case name == "help" || name == "h":
		o.help = true
		return 0, nil
	case name == "version" && (len(o.path) == 0 || o.lookup(name) == nil):
		o.version = true
		return 0, nil
	}
	global := find(o.app.Flags, name)
	found := global
	if found == nil {
		found = o.lookup(name)
		if o.disagree(name) {
			return 0, o.fail("write it after the command", "flag %s has a value in some commands and none in others", written)
		}
	}
	if found == nil {
		return 0, o.unknown(written)
	}
	used := 0
	if TakesValue(found) && !hasValue {
		if len(rest) == 0 {
			return 0, o.fail("", "flag %s needs a value", written)
		}
		value, hasValue, used = rest[0], true, 1
	}
	out := "--" + found.Names()[0]
	if hasValue {
		out += "=" + value
	}
	if global != nil {
		o.global = append(o.global, out)
	} else {
		o.local = append(o.local, given{written: written, name: name, arg: out})
	}
	return used, nil
}

func (o *orderer) allShortBools(letters string) bool {
	for _, c := range letters {
		f := find(o.app.Flags, string(c))
		if f == nil {
			f = o.lookup(string(c))
		}
		if string(c) != "h" && (f == nil || TakesValue(f)) {
			return false
		}
	}
	return true
}

// disagree tells whether the flag stands before the word that makes clear whose
// it is, and the commands that it may belong to do not agree on whether it
// takes a value.
func (o *orderer) disagree(name string) bool {
	if len(o.path) > 0 && find(o.path[len(o.path)-1].Flags, name) != nil {
		return false
	}
	kinds := map[bool]bool{}
	walk(o.commands(), nil, func(path []*cli.Command) {
		if f := find(path[len(path)-1].Flags, name); f != nil {
			kinds[TakesValue(f)] = true
		}
	})
	return len(kinds) > 1
}

// lookup finds a flag of the command or of any below it.
func (o *orderer) lookup(name string) cli.Flag {
	if len(o.path) > 0 {
		if f := find(o.path[len(o.path)-1].Flags, name); f != nil {
			return f
		}
	}
	var found cli.Flag
	walk(o.commands(), nil, func(path []*cli.Command) {
		if found == nil {
			found = find(path[len(path)-1].Flags, name)
		}
	})
	return found
}

func (o *orderer) unknown(written string) error {
	flags := slices.Clone(o.app.Flags)
	if len(o.path) > 0 {
		flags = append(flags, o.path[len(o.path)-1].Flags...)
	}
	names := []string{"--help"}
	for _, f := range flags {
		names = append(names, dashed(f)...)
	}
	near := Suggest(written, names)
	if bare := strings.TrimLeft(written, "-"); len(bare) > 1 && slices.Contains(names, "--"+bare) {
		near = "--" + bare
	}
	hint := fmt.Sprintf("%s --help lists the flags", strings.TrimSpace(o.app.Name+" "+Name(o.path)))
	if near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	return o.fail(hint, "unknown flag %s", written)
}

func (o *orderer) line(args []string) (Line, error) {
	line := Line{Path: o.path, Help: o.help, Version: o.version}
	if o.help || o.version {
		return line, nil
	}
	if commands := o.commands(); len(commands) > 0 {
		if len(o.operands) > 0 { // after "--"
			return Line{}, o.fail("", "%q stands after --, where only operands may stand", o.operands[0])
		}
		var names []string
		for _, c := range commands {
			if !c.Hidden {
				names = append(names, c.Name)
			}
		}
		prefix := strings.TrimSpace(o.app.Name + " " + Name(o.path))
		if len(o.path) == 0 {
			return Line{}, o.fail(prefix+" --help lists the commands", "no command given")
		}
		return Line{}, o.fail("", "one of %s must follow", strings.Join(names, ", "))
	}
	line.Args = append(slices.Clone(args[:min(1, len(args))]), o.global...)
	for _, c := range o.path {
		line.Args = append(line.Args, c.Name)
	}
	own := o.path[len(o.path)-1].Flags
	for _, g := range o.local {
		if find(own, g.name) == nil {
			return Line{}, o.unknown(g.written)
		}
		line.Args = append(line.Args, g.arg)
	}
	if len(o.operands) > 0 {
		line.Args = append(append(line.Args, "--"), o.operands...)
	}
	return line, nil
}

// TakesValue tells whether f is written with a value.
func TakesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func find(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// dashed returns the names of f as one writes them, the longest first.
func dashed(f cli.Flag) []string {
	var names []string
	for _, n := range f.Names() {
		if len(n) == 1 {
			names = append(names, "-"+n)
		} else {
			names = append([]string{"--" + n}, names...)
		}
	}
	return names
}

// walk calls fn for each command below commands, parents first, with its path.
func walk(commands, above []*cli.Command, fn func(path []*cli.Command)) {
	for _, c := range commands {
		path := append(slices.Clone(above), c)
		fn(path)
		walk(c.Subcommands, path, fn)
	}
}

// Suggest returns the one of names that is nearest to word, or "" when none is
// near enough to be a slip of the finger.
func Suggest(word string, names []string) string {
	best, least := "", min(2, 1+len(strings.TrimLeft(word, "-"))/3)
	for _, n := range names {
		if d := distance(word, n); d < least || d == least && best == "" {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to add, drop, change or swap with their neighbour
// to turn a into b (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// FlagKinds returns for each name of a flag whether it takes a value: both
// answers where commands disagree, and [Order] wants the flag after the command.
func FlagKinds(app *cli.App) map[string]map[bool]bool {
	kinds := map[string]map[bool]bool{}
	add := func(flags []cli.Flag) {
		for _, f := range flags {
			for _, n := range f.Names() {
				if kinds[n] == nil {
					kinds[n] = map[bool]bool{}
				}
				kinds[n][TakesValue(f)] = true
			}
		}
	}
	add(app.Flags)
	walk(app.Commands, nil, func(path []*cli.Command) { add(path[len(path)-1].Flags) })
	return kinds
}
