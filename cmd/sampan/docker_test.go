package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// nowhere is a host at which no daemon can be.
const nowhere = "unix:///nonexistent/engine.sock"

// docker is a stock client of version 28, whose help is the specification of ours.
type docker struct{ path, home string }

func newDocker(t *testing.T) docker {
	path, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("there is no docker client to compare with")
	}
	out, err := exec.Command(path, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "Docker version 28.") {
		t.Skipf("the docker client is not of version 28: %s", out)
	}
	return docker{path: path, home: t.TempDir()}
}

// run returns what the client prints, with its own name for ours.
func (d docker) run(t *testing.T, args ...string) string {
	cmd := exec.CommandContext(t.Context(), d.path, args...)
	cmd.Dir = t.TempDir() // some write a file where they are
	cmd.Env = []string{"HOME=" + d.home, "DOCKER_HOST=" + nowhere, "PATH=" + os.Getenv("PATH")}
	out, _ := cmd.CombinedOutput() // what matters is printed, also by what fails
	text := strings.ReplaceAll(string(out), d.home+"/.docker", "~/.sampan")
	text = oldCount.ReplaceAllString(text, fmt.Sprintf("'sampan %s' requires 1 argument", strings.Join(slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "word" }), " ")))
	return strings.NewReplacer("--docker", "--docker", "docker", "sampan", "Docker version", "Sampan version").Replace(text)
}

// oldCount is what cobra itself says where docker leaves the counting to it.
var oldCount = regexp.MustCompile(`accepts 1 arg\(s\), received \d`)

// sampan returns what our client prints.
func sampan(t *testing.T, args ...string) string {
	var out bytes.Buffer
	c := cli.New(strings.NewReader(""), &out, &out)
	home := t.TempDir()
	c.Env = func(name string) string { return map[string]string{"HOME": home, "SAMPAN_HOST": nowhere}[name] }
	root := newRoot(c)
	root.SetArgs(args)
	if err := root.ExecuteContext(context.WithoutCancel(t.Context())); err != nil {
		out.WriteString(cli.Message(err))
	}
	return out.String()
}

// page is a help text, read.
type page struct {
	usage, aliases string
	flags          map[string]flag
	commands       []string
}

type flag struct{ Shorthand, Kind, Default string }

var (
	heading      = regexp.MustCompile(`^([A-Z][\w ()]*):$`)
	flagLine     = regexp.MustCompile(`^ {2,6}(?:-(\w), )?--([\w-]+)(?: (\S+))?(?: {2,}(.*))?$`)
	commandLine  = regexp.MustCompile(`^  ([a-z-]+)\*? +\S`)
	defaultValue = regexp.MustCompile(`\(default (.+)\)$`)
)

// parsePage reads the help of either client. Their text is free; what it is about is not.
func parsePage(text string) page {
	p := page{flags: map[string]flag{}}
	section, last := "", ""
	about := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if m := heading.FindStringSubmatch(line); m != nil {
			section = m[1]
			continue
		}
		if line == "" || line[0] != ' ' {
			if after, ok := strings.CutPrefix(line, "Usage:"); ok {
				p.usage = strings.TrimSpace(after)
			}
			last = ""
			continue
		}
		switch {
		case section == "Aliases":
			p.aliases = strings.TrimSpace(line)
		case strings.HasSuffix(section, "Options"):
			if m := flagLine.FindStringSubmatch(line); m != nil {
				last = m[2]
				p.flags[last], about[last] = flag{Shorthand: m[1], Kind: m[3]}, m[4]
			} else if last != "" {
				about[last] += " " + strings.TrimSpace(line)
			}
		case strings.HasSuffix(section, "Commands"):
			if m := commandLine.FindStringSubmatch(line); m != nil {
				p.commands = append(p.commands, m[1])
			}
		}
	}
	for name, text := range about {
		if m := defaultValue.FindStringSubmatch(text); m != nil && m[1] != "[]" && m[1] != "map[]" { // an empty list has no default
			f := p.flags[name]
			f.Default = m[1]
			p.flags[name] = f
		}
	}
	return p
}

// differences are the rows of testdata/docker.tsv, which docs/compatibility.md shows too: a command, what
// of it is different (a flag, or "" for the whole command), and why.
type differences struct {
	reasons map[[2]string]string
	used    map[[2]string]bool
}

func readDifferences(t *testing.T) *differences {
	text, err := os.ReadFile("testdata/docker.tsv")
	if err != nil {
		t.Fatal(err)
	}
	d := &differences{reasons: map[[2]string]string{}, used: map[[2]string]bool{}}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) != 3 || fields[2] == "" {
			t.Fatalf("testdata/docker.tsv: expected COMMAND, FLAG or -, and REASON between tabs: %q", line)
		}
		for _, command := range strings.Split(fields[0], ",") {
			for _, name := range strings.Split(fields[1], ",") {
				d.reasons[[2]string{command, name}] = fields[2]
			}
		}
	}
	return d
}

// explains reports that a difference is known.
func (d *differences) explains(command, what string) bool {
	key := [2]string{command, what}
	_, ok := d.reasons[key]
	d.used[key] = d.used[key] || ok
	return ok
}

// TestHelpAsDocker compares the whole tree of commands: each command's usage line, aliases and flags with
// their shorthands, kinds and defaults, and what it says about a wrong number of arguments.
func TestHelpAsDocker(t *testing.T) {
	peer, known := newDocker(t), readDifferences(t)
	var walk func(path []string)
	walk = func(path []string) {
		name := strings.Join(path, " ")
		want, got := parsePage(peer.run(t, append(slices.Clone(path), "--help")...)), parsePage(sampan(t, append(slices.Clone(path), "--help")...))
		if diff := gocmp.Diff([]string{want.usage, want.aliases}, []string{got.usage, got.aliases}); diff != "" && !known.explains(name, "usage") {
			t.Errorf("%s: usage and aliases (-docker +sampan):\n%s", name, diff)
		}
		compareFlags(t, known, name, want.flags, got.flags)
		if len(want.commands) == 0 && !known.explains(name, "usage") {
			compareArguments(t, peer, path)
		}
		for _, child := range want.commands {
			whole := strings.TrimSpace(name + " " + child)
			switch {
			case slices.Contains(got.commands, child):
				walk(append(slices.Clone(path), child))
			case !known.explains(whole, "-"):
				t.Errorf("%s: there is no such command", whole)
			}
		}
	}
	walk(nil)
	for key := range known.reasons {
		if !known.used[key] {
			t.Errorf("testdata/docker.tsv: %s %s is no difference any more: remove the row", key[0], key[1])
		}
	}
}

func compareFlags(t *testing.T, known *differences, command string, want, got map[string]flag) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		ours, ok := got[name]
		if name == "help" || ok && ours == want[name] || known.explains(command, "--"+name) {
			continue
		}
		if !ok {
			t.Errorf("%s: there is no --%s", command, name)
			continue
		}
		t.Errorf("%s --%s (-docker +sampan):\n%s", command, name, gocmp.Diff(want[name], ours))
	}
	for name := range got {
		if _, ok := want[name]; !ok && !known.explains(command, "--"+name) {
			t.Errorf("%s: docker has no --%s", command, name)
		}
	}
}

var countError = regexp.MustCompile(`'sampan [^']*' (requires [^\n]*|accepts no arguments)`)

// compareArguments runs a command with none to three arguments: what is said about their number is the
// same. With the right number there is no daemon, and that is the end of it.
func compareArguments(t *testing.T, peer docker, path []string) {
	t.Helper()
	for n := range 4 {
		args := append(slices.Clone(path), strings.Fields(strings.Repeat("word ", n))...)
		want, got := countError.FindString(peer.run(t, args...)), countError.FindString(sampan(t, args...))
		if want != got {
			t.Errorf("%s with %d arguments: docker says %q, sampan %q", strings.Join(path, " "), n, want, got)
		}
	}
}

// TestHiddenFlags checks that what the table says is hidden is there.
func TestHiddenFlags(t *testing.T) {
	root := newRoot(cli.New(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}))
	known := readDifferences(t)
	for key, reason := range known.reasons {
		if !strings.HasPrefix(reason, "hidden") {
			continue
		}
		cmd, _, err := root.Find(strings.Fields(key[0]))
		if err != nil || cmd.Flags().Lookup(strings.TrimPrefix(key[1], "--")) == nil {
			t.Errorf("%s %s: there is no such flag (%v)", key[0], key[1], err)
		}
	}
}

// TestRoot is what docker does with the words before a command.
func TestRoot(t *testing.T) {
	peer := newDocker(t)
	first := func(s string) string {
		line, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(s, "sampan: "), "sampan: "), "\n")
		line, _, _ = strings.Cut(line, " (did you mean")
		return line
	}
	for _, line := range []string{
		"", "--help", "help", "help ps", "help nothing", "help container ls", "nothing", "container nothing", "image", "network nothing --help",
		"--nothing ps", "ps --nothing", "ps -H x", "ps --format", "run", "run --nothing x", "exec a", "--context", "-Z",
	} {
		args := strings.Fields(line)
		if want, got := first(peer.run(t, args...)), first(sampan(t, args...)); want != got {
			t.Errorf("%q: docker says %q, sampan %q", line, want, got)
		}
	}
}

// TestOrder checks that every group is in the order of docker's help.
func TestOrder(t *testing.T) {
	root := newRoot(cli.New(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}))
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		names := parsePage(sampan(t, append(strings.Fields(cmd.CommandPath())[1:], "--help")...)).commands
		if cmd != root && !slices.IsSortedFunc(names, cmp.Compare[string]) {
			t.Errorf("%s: %v", cmd.CommandPath(), names)
		}
		for _, child := range cmd.Commands() {
			if child.HasSubCommands() && !child.Hidden {
				check(child)
			}
		}
	}
	check(root)
}
