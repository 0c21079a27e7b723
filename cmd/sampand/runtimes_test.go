package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/wire"
)

func TestRuntimes(t *testing.T) {
	o, err := told(t, `{"runtimes":{"runc":{"path":"runc","runtimeArgs":["--debug"]},"kata":{"path":"/k"}},"default-runtime":"kata"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]monitor.Runtime{"runc": {Path: "runc", Args: []string{"--debug"}}, "kata": {Path: "/k"}}
	if diff := cmp.Diff(want, o.Runtimes.programs()); diff != "" {
		t.Errorf("programs: %s", diff)
	}
	info := map[string]wire.InfoRuntime{"sampan": {Path: "sampan-runtime"}, "runc": {Path: "runc", Args: []string{"--debug"}}, "kata": {Path: "/k"}}
	if diff := cmp.Diff(info, o.Runtimes.info()); diff != "" {
		t.Errorf("info: %s", diff)
	}
	if o.defaultRuntime() != "kata" || o.Runtimes.text() != "kata:/k runc:runc" {
		t.Errorf("the default is %s of %s", o.defaultRuntime(), o.Runtimes.text())
	}
	// Docker's name of the usual one, where none of that name is configured, is ours.
	if o, err = told(t, `{"default-runtime":"runc"}`); err != nil || o.defaultRuntime() != "sampan" {
		t.Errorf("the default is %s (%v), want sampan", o.defaultRuntime(), err)
	}
}

func TestRuntimesRefused(t *testing.T) {
	for _, c := range []struct{ file, flag, want string }{
		{`{"runtimes":{"sampan":{"path":"/r"}}}`, "", "runtime name 'sampan' is reserved"},
		{`{"runtimes":{"":{"path":"/r"}}}`, "", "expected a name"},
		{`{"runtimes":{"k":{}}}`, "", "runtime k: either a runtimeType or a path must be configured"},
		{`{"runtimes":{"k":{"path":"/k","runtimeType":"t"}}}`, "", "runtime k: cannot configure both path and runtimeType"},
		{`{"runtimes":{"k":{"path":"/k","options":{"a":1}}}}`, "", "runtime k: options cannot be used with a path runtime"},
		{`{"runtimes":{"k":{"runtimeType":"t","runtimeArgs":["a"]}}}`, "", "runtime k: args cannot be used with a runtimeType runtime"},
		{`{"runtimes":{"k":{"runtimeType":"io.containerd.kata.v2"}}}`, "", "runtimeType io.containerd.kata.v2 is not supported: there is no containerd"},
		{`{"runtimes":{"k":{"paht":"/k"}}}`, "", "paht"},
		{`{"runtimes":{"k":{"path":"/k"}}}`, "--add-runtime=l=/l", "runtimes: (from flag: l:/l, from file:"},
		{"", "--add-runtime=k", "invalid runtime argument: k"},
		{"", "--add-runtime=k=/k --add-runtime=k=/l", "runtime 'k' was already defined"},
		{"", "--default-runtime=kata", "specified default runtime 'kata' does not exist (expected one of sampan)"},
	} {
		_, err := told(t, c.file, strings.Fields(c.flag)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: got %v, want %q", c.file, c.flag, err, c.want)
		}
	}
}
