package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// TestPart checks that a command alone is the one of the whole tree: its row has its name, and its help is the same.
func TestPart(t *testing.T) {
	say := func(args []string, out *bytes.Buffer) func(whole bool) string {
		return func(whole bool) string {
			out.Reset()
			c := cli.New(strings.NewReader(""), out, out)
			root := newRootFor(c, args)
			if whole {
				root = newRoot(c)
			} else if n := len(root.Commands()); n != 1 {
				t.Errorf("%q: %d commands were made, expected one", args, n)
			}
			root.SetArgs(args)
			if err := root.ExecuteContext(t.Context()); err != nil {
				t.Errorf("%q: %v", args, err)
			}
			return out.String()
		}
	}
	seen := map[string]bool{}
	for _, section := range tree {
		for _, v := range section.verbs {
			cmd := v.New(cli.New(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}))
			if cmd.Name() != v.Name || seen[v.Name] {
				t.Errorf("the command %q stands in the table as %q", cmd.Name(), v.Name)
			}
			seen[v.Name] = true
			args := []string{v.Name, "--help"}
			var out bytes.Buffer
			help := say(args, &out)
			if alone, whole := help(false), help(true); alone != whole || alone == "" {
				t.Errorf("%q says alone\n%s\nand in the whole tree\n%s", args, alone, whole)
			}
		}
	}
}

// TestFirstWord is about what may stand before a command.
func TestFirstWord(t *testing.T) {
	flags := bareRoot(cli.New(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})).Flags()
	for line, want := range map[string]string{
		"ps": "ps", "ps -a": "ps", "-D ps": "ps", "--debug ps": "ps", "--debug=false ps": "ps", "-H run ps": "ps", "--host run ps": "ps",
		"--host=run ps": "ps", "-c x --tls ps": "ps",
		"": "", "-H": "", "--help ps": "", "-- ps": "", "- ps": "", "-DH run ps": "", "-Hrun ps": "", "--nothing ps": "", "-Z": "",
	} {
		if got := firstWord(flags, strings.Fields(line)); got != want {
			t.Errorf("%q: %q, expected %q", line, got, want)
		}
	}
}
