package cmdline

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// Shells are those that [CompletionScript] knows.
var Shells = []string{"bash", "zsh", "fish"}

// CompletionScript returns what makes shell complete the program's command line.
// The script asks the program itself (its hidden command __complete), so that it
// fits every later version.
func CompletionScript(app *cli.App, shell string) (string, bool) {
	script, ok := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[shell]
	return strings.NewReplacer("PROGRAM", app.Name, "FUNC", strings.ReplaceAll(app.Name, "-", "_")).Replace(script), ok
}

const bashScript = `# bash completion for PROGRAM; load it with: source <(PROGRAM completion bash)
_FUNC() {
    local IFS=$'\n'
    COMPREPLY=($(PROGRAM __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f 1))
}
complete -o default -o bashdefault -F _FUNC PROGRAM
`

const zshScript = `#compdef PROGRAM
# zsh completion for PROGRAM; load it with: source <(PROGRAM completion zsh)
_FUNC() {
    local line
    local -a found
    for line in ${(f)"$(PROGRAM __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"}; do
        found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    if (( ${#found} )); then
        _describe 'PROGRAM' found
    else
        _files
    fi
}
compdef _FUNC PROGRAM
`

const fishScript = `# fish completion for PROGRAM; load it with: PROGRAM completion fish | source
function __FUNC_complete
    set -l words (commandline -opc) (commandline -ct)
    PROGRAM __complete -- $words[2..-1] 2>/dev/null
end
complete -c PROGRAM -a '(__FUNC_complete)'
`

// Complete returns what the last of words may become, as lines of a candidate, a
// tab and what it is: commands, flags, or the values of a flag or operand that
// has a fixed set of them. No line means that the shell should offer file names.
func Complete(app *cli.App, words []string, values func(name string) []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	o := orderer{app: app}
	last := words[len(words)-1]
	for i := 0; i < len(words)-1; i++ {
		arg := words[i]
		if arg == "--" {
			return nil // operands only
		}
		if len(arg) > 1 && arg[0] == '-' {
			n, err := o.flag(arg, words[i+1:])
			if err != nil {
				continue // a wrong flag further left is no reason to stop helping
			}
			if i += n; i == len(words)-1 { // the last word is this flag's value
				return prefixed(last, values(strings.TrimLeft(arg, "-")), "")
			}
			continue
		}
		if o.word(arg) != nil {
			return nil
		}
	}
	if name, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(last, "--") {
		var out []string
		for _, v := range prefixed(value, values(strings.TrimLeft(name, "-")), "") {
			out = append(out, name+"="+v)
		}
		return out
	}
	if strings.HasPrefix(last, "-") {
		return o.completeFlag(last)
	}
	var out []string
	for _, c := range o.commands() {
		if !c.Hidden && strings.HasPrefix(c.Name, last) {
			out = append(out, c.Name+"\t"+c.Usage)
		}
	}
	if len(o.commands()) == 0 && len(o.operands) == 0 {
		out = prefixed(last, values(Name(o.path)), "")
	}
	return out
}

func (o *orderer) completeFlag(last string) []string {
	docs := flagDocs(o.app.Flags)
	if len(o.path) > 0 {
		docs = append(flagDocs(o.path[len(o.path)-1].Flags), docs...)
	}
	docs = append(docs, flagDoc{names: []string{"--help"}, usage: "show help"})
	var out []string
	for _, d := range docs {
		for _, n := range d.names {
			if strings.HasPrefix(n, last) && (len(n) > 2 || last == n) {
				out = append(out, fmt.Sprintf("%s\t%s", n, d.usage))
			}
		}
	}
	return out
}

func prefixed(last string, values []string, usage string) []string {
	var out []string
	for _, v := range values {
		if strings.HasPrefix(v, last) {
			out = append(out, v+"\t"+usage)
		}
	}
	return out
}
