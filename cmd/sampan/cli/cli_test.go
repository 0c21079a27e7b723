package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// fake is a CLI whose streams are buffers and whose home is empty.
func fake(t *testing.T, env map[string]string) *CLI {
	t.Helper()
	c := New(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	home := t.TempDir()
	c.Env = func(name string) string {
		if name == "HOME" {
			return home
		}
		return env[name]
	}
	return c
}

func daemonSays(message string) error {
	return fault.As(fault.Invalid, &client.StatusError{Status: 400, Message: message})
}

func TestCodesAndMessages(t *testing.T) {
	tests := []struct {
		err     error
		code    int
		message string
	}{
		{nil, 0, ""},
		{errors.New("it broke"), 1, "sampan: it broke"},
		{daemonSays("it broke"), 1, "Error response from daemon: it broke"},
		{fmt.Errorf("ask for it: %w", daemonSays("it broke")), 1, "sampan: ask for it: it broke"},
		{Join([]error{daemonSays("a"), errors.New("b")}), 1, "Error response from daemon: a\nsampan: b"},
		{ContainerExit(42), 42, ""}, {ContainerExit(0), 0, ""},
		{context.Canceled, 130, ""},
		{Engine(nil), 0, ""},
		{Engine(errors.New("it broke")), 125, "sampan: it broke"},
		{Engine(daemonSays("exec: \"x\": executable file not found in $PATH")), 127, "Error response from daemon: exec: \"x\": executable file not found in $PATH"},
		{Engine(daemonSays("exec: \"/x\": permission denied")), 126, "Error response from daemon: exec: \"/x\": permission denied"},
		{Engine(errors.New("open /x: permission denied")), 125, "sampan: open /x: permission denied"}, // the client's own
		{Engine(ContainerExit(3)), 3, ""},
		{Engine(context.Canceled), 130, ""},
		{&Usage{Command: "sampan run", Err: errors.New("no such flag")}, 1, "sampan: no such flag\nSee 'sampan run --help'."},
		{errors.New("two\nlines"), 1, "sampan: two; lines"},
	}
	for _, tt := range tests {
		if code, message := Code(tt.err), Message(tt.err); code != tt.code || message != tt.message {
			t.Errorf("%v: got %d %q", tt.err, code, message)
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	tests := []struct{ args, message string }{
		{"rnu", `sampan: unknown command: sampan rnu (did you mean "run"?)`},
		{"run --memmory 1", `sampan: unknown flag: --memmory (did you mean "--memory"?)`},
		{"run --memory 2x", `sampan: --memory "2x": expected a size such as 512m or 2g`},
		{"run --count x", `sampan: --count "x": expected a whole number`},
		{"run", `sampan: 'sampan run' requires at least 1 argument`},
		{"none x", `sampan: 'sampan none' accepts no arguments`},
		{"exactly x y", `sampan: 'sampan exactly' requires 1 argument`},
	}
	for _, tt := range tests {
		out := newOut(&bytes.Buffer{})
		root := &cobra.Command{Use: "sampan", Args: Unknown, RunE: func(*cobra.Command, []string) error { return nil }}
		Prepare(root, out, out)
		var memory Bytes
		run := &cobra.Command{Use: "run", Args: MinArgs(1), RunE: func(*cobra.Command, []string) error { return nil }}
		run.Flags().Var(&memory, "memory", "")
		run.Flags().Int("count", 0, "")
		none := &cobra.Command{Use: "none", Args: NoArgs, RunE: run.RunE}
		exactly := &cobra.Command{Use: "exactly", Args: ExactArgs(1), RunE: run.RunE}
		root.AddCommand(run, none, exactly)
		root.SetArgs(strings.Fields(tt.args))
		err := root.Execute()
		if first, _, _ := strings.Cut(Message(err), "\n"); first != tt.message {
			t.Errorf("%s: got %q", tt.args, first)
		}
	}
}

func TestTimestamp(t *testing.T) {
	now := time.Unix(1000, 5)
	for given, want := range map[string]string{
		"": "", "12": "12", "12.5": "12.5", "10s": "990.000000005", "1m40s": "900.000000005", "1970-01-01T00:01:00Z": "60.000000000",
		"1970-01-01T01:00:00.5+01:00": "0.500000000",
	} {
		if got, err := Timestamp("--since", given, now); got != want || err != nil {
			t.Errorf("%s: got %q, %v", given, got, err)
		}
	}
	for _, given := range []string{"yesterday", "12.x", "1970-13-01", "-"} {
		if _, err := Timestamp("--since", given, now); err == nil || !strings.Contains(err.Error(), "--since") {
			t.Errorf("%s: got %v", given, err)
		}
	}
}

func TestFlagValues(t *testing.T) {
	var cpus CPUs
	for given, want := range map[string]int64{"1": 1e9, "0.5": 5e8, "1.000000001": 1_000_000_001, "0": 0} {
		if err := cpus.Set(given); err != nil || cpus.Nano != want {
			t.Errorf("cpus %s: %d, %v", given, cpus.Nano, err)
		}
	}
	for _, given := range []string{"", "x", "-1", "1/2", "1e3", "0.0000000001", "99999999999999999999"} {
		if cpus.Set(given) == nil {
			t.Errorf("cpus %q: no error", given)
		}
	}
	f := Filters{Keys: []string{"label", "label!", "status"}}
	for _, given := range []string{"label=a=b", "label!=c", "Status=running"} {
		if err := f.Set(given); err != nil {
			t.Error(err)
		}
	}
	if f.Values["label"][0] != "a=b" || f.Values["label!"][0] != "c" || f.Values["status"][0] != "running" {
		t.Errorf("%v", f.Values)
	}
	if err := f.Set("status"); err == nil || !strings.Contains(err.Error(), "KEY=VALUE") {
		t.Error(err)
	}
}

type thing struct {
	ID, Name string
	labels   map[string]string
}

func (t thing) Label(name string) string { return t.labels[name] }

func TestListings(t *testing.T) {
	l := Listing[thing]{
		Columns: []Column[thing]{{"ID", func(v thing) string { return v.ID }}, {"NAME", func(v thing) string { return v.Name }}},
		Headers: Headers{"ID": "THE ID", "Name": "NAME"},
	}
	rows := []thing{{"1", "one", map[string]string{"a.b-c": "x"}}, {"2", "two", nil}}
	for format, want := range map[string]string{
		"":                                  "ID        NAME\n1         one\n2         two\n",
		"table":                             "ID        NAME\n1         one\n2         two\n",
		"json":                              `{"ID":"1","Name":"one"}` + "\n" + `{"ID":"2","Name":"two"}` + "\n",
		"{{.Name}}":                         "one\ntwo\n",
		`table {{.ID}}\t{{upper .Name}}`:    "THE ID    NAME\n1         ONE\n2         TWO\n",
		`table {{.ID}}\t{{.Label "a.b-c"}}`: "THE ID    b c\n1         x\n2         \n",
	} {
		var b bytes.Buffer
		if err := l.Write(&b, format, rows); err != nil || b.String() != want {
			t.Errorf("%q: %v\n%q\n%q", format, err, b.String(), want)
		}
	}
	for _, format := range []string{"{{", "{{.Nope}}"} {
		if err := l.Write(&bytes.Buffer{}, format, rows); err == nil {
			t.Errorf("%q: no error", format)
		}
	}
}

func TestInspect(t *testing.T) {
	get := func(name string) (any, json.RawMessage, error) {
		if name == "none" {
			return nil, nil, errors.New("No such thing: none")
		}
		return thing{ID: name, Name: "n"}, json.RawMessage(`{"Id":"` + name + `","Extra":{"Deep":1}}`), nil
	}
	tests := []struct{ names, format, want, fails string }{
		{"a b", "", "[\n    {\n        \"Id\": \"a\",\n        \"Extra\": {\n            \"Deep\": 1\n        }\n    },\n    {\n        \"Id\": \"b\",\n        \"Extra\": {\n            \"Deep\": 1\n        }\n    }\n]\n", ""},
		{"a", "json", `[{"Id":"a","Extra":{"Deep":1}}]` + "\n", ""},
		{"a", "{{.ID}} {{.Name}}", "a n\n", ""},       // as Go has it
		{"a", "{{.Id}} {{.Extra.Deep}}", "a 1\n", ""}, // as the daemon sent it
		{"none", "", "[]\n", "No such thing: none"},
		{"a none", "{{.ID}}", "a\n", "No such thing: none"},
		{"a", "{{.Nope}}", "\n", "Nope"},
		{"a", "{{", "", "template parsing error"},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		err := Inspect(&b, strings.Fields(tt.names), tt.format, get)
		if b.String() != tt.want || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s %q: %q, %v", tt.names, tt.format, b.String(), err)
		}
	}
}

func TestEndpoint(t *testing.T) {
	tests := []struct {
		hosts   []string
		env     map[string]string
		host    string
		fails   string
		context string
	}{
		{nil, nil, client.DefaultHost, "", ""},
		{[]string{"tcp://h:1"}, map[string]string{"DOCKER_HOST": "tcp://d:1"}, "tcp://h:1", "", ""},
		{nil, map[string]string{"DOCKER_HOST": "tcp://d:1"}, "tcp://d:1", "", ""},
		{nil, map[string]string{"DOCKER_HOST": "tcp://d:1", "SAMPAN_HOST": "tcp://s:1"}, "tcp://s:1", "", ""},
		{[]string{"a", "b"}, nil, "", "only one --host", ""},
		{[]string{"http://x"}, nil, "", `--host "http://x": expected unix:///PATH`, ""},
		{[]string{"tcp://a:b:c"}, nil, "", `--host "tcp://a:b:c": expected`, ""},
		{[]string{"tcp://[::1]"}, nil, "tcp://[::1]:2375", "", ""},
		{[]string{"tcp://h:1"}, nil, "", "both --host and --context", "x"},
		{nil, nil, "", `--context "xx"`, "xx"},
		{nil, nil, client.DefaultHost, "", "default"},
	}
	for i, tt := range tests {
		c := fake(t, tt.env)
		c.Globals.Hosts, c.Globals.Context = tt.hosts, tt.context
		e, err := c.endpoint()
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%d: %v", i, err)
			}
		} else if err != nil || e.host != tt.host {
			t.Errorf("%d: %q, %v", i, e.host, err)
		}
	}
}

// A login is kept, found by any name of its registry, and forgotten; the rest of the file stays.
func TestLogins(t *testing.T) {
	c := fake(t, nil)
	path := filepath.Join(c.configDir(), "config.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"future":{"a":1},"auths":{"https://old.example/v1/":{"auth":"dTpw"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SaveLogin(Registry("docker.io"), &wire.AuthConfig{Username: "me", Password: "a:b"}); err != nil {
		t.Fatal(err)
	}
	for ref, user := range map[string]string{"busybox": "me", "docker.io/a/b": "me", "old.example/x": "u", "other.example/x": ""} {
		auth, err := c.Auth(ref)
		if err != nil || (auth == nil) != (user == "") || auth != nil && auth.Username != user {
			t.Errorf("%s: %+v, %v", ref, auth, err)
		}
	}
	if auth, _ := c.Auth("busybox"); auth.Password != "a:b" {
		t.Errorf("%+v", auth)
	}
	if _, err := c.SaveLogin("old.example", nil); err != nil {
		t.Fatal(err)
	}
	if auth, err := c.Auth("old.example/x"); auth != nil || err != nil {
		t.Errorf("%+v, %v", auth, err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(data, []byte(`"future"`)) {
		t.Errorf("%s, %v", data, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What a credential helper says of its failure is told, and nothing stands for what it does not say.
func TestHelperFails(t *testing.T) {
	dir := t.TempDir()
	for name, script := range map[string]string{"silent": "exit 3", "loud": "echo no keyring; exit 3"} {
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for name, want := range map[string]string{
		"silent": "docker-credential-silent erase: exit status 3", "loud": "docker-credential-loud erase: exit status 3: no keyring",
	} {
		if err := tellHelper(name, "hub.test", nil); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestEachKeepsOrderAndGoesOn(t *testing.T) {
	var b bytes.Buffer
	var args []string
	for i := range 200 {
		args = append(args, fmt.Sprint(i))
	}
	err := Named(&b, args, func(arg string) error {
		if arg == "7" || arg == "9" {
			return errors.New("not " + arg)
		}
		return nil
	})
	lines := strings.Fields(b.String())
	if len(lines) != 198 || lines[0] != "0" || lines[7] != "8" || lines[197] != "199" || err.Error() != "not 7\nnot 9" {
		t.Errorf("%d lines, %v", len(lines), err)
	}
}

func TestPlainProgress(t *testing.T) {
	var b bytes.Buffer
	show := Progress(newOut(&b))
	for _, m := range []wire.Message{
		{Status: "Pulling from x", ID: "latest"}, {Status: "Downloading", ID: "a", ProgressDetail: &wire.Progress{Current: 1, Total: 2}},
		{Status: "Pull complete", ID: "a"}, {Stream: "Step\n"}, {Aux: map[string]any{"ID": "x"}},
	} {
		if err := show(m); err != nil {
			t.Fatal(err)
		}
	}
	if want := "latest: Pulling from x\na: Pull complete\nStep\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

// An archive that fails half-way leaves no file, and not the old one either changed.
func TestToFile(t *testing.T) {
	c := fake(t, nil)
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(r *failing) func() (io.ReadCloser, error) { return func() (io.ReadCloser, error) { return r, nil } }
	if err := c.ToFile(path, open(&failing{text: "half", err: errors.New("it broke")})); err == nil {
		t.Error("no error")
	}
	if data, _ := os.ReadFile(path); string(data) != "old" {
		t.Errorf("%q", data)
	}
	missing := filepath.Join(path, "no", "a.tar")
	if err := c.ToFile(missing, open(&failing{})); err == nil || !strings.Contains(err.Error(), "open "+missing+": ") {
		t.Error(err)
	}
	if err := c.ToFile(path, open(&failing{text: "whole"})); err != nil {
		t.Error(err)
	}
	data, _ := os.ReadFile(path)
	left, _ := os.ReadDir(filepath.Dir(path))
	if string(data) != "whole" || len(left) != 1 {
		t.Errorf("%q, %v", data, left)
	}
}

// failing reads its text, then its error.
type failing struct {
	text string
	err  error
}

func (f *failing) Close() error { return nil }
func (f *failing) Read(p []byte) (int, error) {
	if f.text != "" {
		n := copy(p, f.text)
		f.text = f.text[n:]
		return n, nil
	}
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// TestFailed is about what is printed by functions that return no error.
func TestFailed(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close() //nolint:errcheck // nothing can be lost
	for name, c := range map[string]struct {
		to   io.Writer
		want error
	}{"all has arrived": {&bytes.Buffer{}, nil}, "no space": {full, syscall.ENOSPC}} {
		out := newOut(c.to)
		fmt.Fprint(out, "a page")
		fmt.Fprint(out, "another")
		if err := out.Failed(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, expected %v", name, err, c.want)
		}
	}
}
