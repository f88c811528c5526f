package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completeCommand is by what shells ask: its arguments are the words of the line, the last is the one to complete.
const completeCommand = "__complete"

// Completion is the command that prints what makes a shell complete a binary's words.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says how it is used.
func (Completion) Help() string {
	return `bash: add  source <(vssctl completion bash)  to ~/.bashrc.
zsh: add  source <(vssctl completion zsh)  to ~/.zshrc, below compinit.
fish: vssctl completion fish > ~/.config/fish/completions/vssctl.fish`
}

// Run prints the shell's script.
func (c Completion) Run(app *kong.Kong) error {
	_, err := fmt.Fprint(app.Stdout, strings.NewReplacer("NAME", app.Model.Name, "COMPLETE", completeCommand).Replace(scripts[c.Shell]))
	return err
}

// In all of them, the program that is on the line is asked, and where it has nothing to say, files are completed.
var scripts = map[string]string{
	"bash": `_NAME() {
	local IFS=$'\n'
	COMPREPLY=($("${COMP_WORDS[0]}" COMPLETE "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _NAME NAME
`,
	"zsh": `#compdef NAME
_NAME() {
	local -a found
	found=(${(f)"$("${words[1]}" COMPLETE "${(@)words[2,CURRENT]}" 2>/dev/null)"})
	if (( ${#found} )); then compadd -- "${found[@]}"; else _files; fi
}
compdef _NAME NAME
`,
	"fish": `function __NAME_complete
	set -l line (commandline -opc)
	$line[1] COMPLETE $line[2..] (commandline -ct | string collect --allow-empty) 2>/dev/null
end
complete -c NAME -a '(__NAME_complete)'
`,
}

// complete is what the last word may become: commands and flags of the command before it, or values of the
// flag or the argument that it is, where they are a few that are known.
func complete(node *kong.Node, words []string) (found []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "=" }) // bash splits --flag=value
	last := words[len(words)-1]
	keep := func(before string, values ...string) {
		for _, v := range values {
			if v = before + v; strings.HasPrefix(v, last) {
				found = append(found, v)
			}
		}
	}
	flags := slices.Clone(node.Flags)
	var wants *kong.Flag // the value that comes next
	arguments := 0
	for _, w := range words[:len(words)-1] {
		switch {
		case wants != nil:
			wants = nil
		case strings.HasPrefix(w, "--"):
			if f := flagOf(flags, w[2:]); f != nil && !f.IsBool() {
				wants = f
			}
		default:
			i := slices.IndexFunc(node.Children, func(c *kong.Node) bool { return c.Name == w })
			if i < 0 {
				arguments++
				continue
			}
			node = node.Children[i]
			flags = append(flags, node.Flags...)
		}
	}
	name, _, assigned := strings.Cut(strings.TrimPrefix(last, "--"), "=")
	switch {
	case wants != nil:
		keep("", values(wants.Value)...)
	case strings.HasPrefix(last, "-") && assigned:
		if f := flagOf(flags, name); f != nil {
			keep("--"+name+"=", values(f.Value)...)
		}
	case strings.HasPrefix(last, "-"):
		for _, f := range flags {
			if !f.Hidden {
				keep("", "--"+f.Name)
			}
		}
	case arguments < len(node.Positional):
		keep("", values(node.Positional[arguments])...)
	default:
		for _, c := range node.Children {
			if !c.Hidden {
				keep("", c.Name)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func flagOf(flags []*kong.Flag, name string) *kong.Flag {
	if i := slices.IndexFunc(flags, func(f *kong.Flag) bool { return f.Name == name }); i >= 0 {
		return flags[i]
	}
	return nil
}

func values(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}
