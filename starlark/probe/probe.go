// Package probe is the language's word for health probes, which images and containers share:
//
//	health = probe.exec(["pg_isready"], interval = "5s")
//	health = probe.shell("test -e /ready")
package probe

import (
	"fmt"
	"time"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/script"
)

// Value is a probe.
type Value struct{ Check wire.Healthcheck }

// String shows the command.
func (v *Value) String() string { return fmt.Sprintf("probe%q", v.Check.Test) }

// Type is "probe".
func (v *Value) Type() string { return "probe" }

// Freeze does nothing: a probe never changes.
func (v *Value) Freeze() {}

// Truth is true.
func (v *Value) Truth() starlark.Bool { return true }

// Hash refuses.
func (v *Value) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable: probe") }

// Type is the type of arguments that take a probe. A command alone says what to do.
var Type = arg.Type{Name: "probe", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if p, ok := v.(*Value); ok {
		return p, nil
	}
	reject := &arg.Reject{Expected: "probe", Given: v}
	switch v.(type) {
	case *starlark.List, starlark.Tuple:
		reject.Cure = "say how it is run: probe.exec([...])"
	case starlark.String:
		reject.Cure = "say how it is run: probe.shell(\"...\")"
	}
	return nil, reject
}}

// Funcs declares the constructors.
func Funcs() []arg.Func {
	times := []arg.Param{
		{Name: "interval", Type: arg.Duration, Default: time.Duration(0), Shows: `"30s"`, Doc: "The time between two probes."},
		{Name: "timeout", Type: arg.Duration, Default: time.Duration(0), Shows: `"30s"`, Doc: "A probe that takes longer has failed."},
		{Name: "start_period", Type: arg.Duration, Default: time.Duration(0), Shows: `"0s"`, Doc: "Failures in this time after the start do not count."},
		{Name: "start_interval", Type: arg.Duration, Default: time.Duration(0), Shows: `"5s"`, Doc: "The time between two probes in the start period."},
		{Name: "retries", Type: arg.Int(1, 1000), Default: int64(0), Shows: "3", Doc: "So many failures in a row make the container unhealthy."},
	}
	return []arg.Func{
		{
			Name: "exec", Of: "probe", Positional: 1, Returns: "probe",
			Doc:     "A container is healthy while this command, run in it, ends with status 0.",
			Example: `health = probe.exec(["redis-cli", "ping"], interval = "1s")`,
			Params:  append([]arg.Param{{Name: "command", Type: arg.List[string](arg.String), Required: true, Doc: "The program and its arguments."}}, times...),
			Do: func(c *arg.Call) (starlark.Value, error) {
				command := arg.Get[[]string](c, "command")
				if len(command) == 0 {
					return nil, c.Problem("command", "expected a program and its arguments, got an empty list")
				}
				return check(c, append([]string{"CMD"}, command...)), nil
			},
		},
		{
			Name: "shell", Of: "probe", Positional: 1, Returns: "probe",
			Doc:     "A container is healthy while this shell command, run in it, ends with status 0.",
			Example: `health = probe.shell("test -e /tmp/ready", interval = "1s")`,
			Params:  append([]arg.Param{{Name: "command", Type: arg.String, Required: true, Doc: "What its /bin/sh runs."}}, times...),
			Do: func(c *arg.Call) (starlark.Value, error) {
				return check(c, []string{"CMD-SHELL", arg.Get[string](c, "command")}), nil
			},
		},
		{
			Name: "none", Of: "probe", Returns: "probe",
			Doc:     "Turns off the probe that the image has.",
			Example: `health = probe.none()`,
			Do: func(*arg.Call) (starlark.Value, error) {
				return &Value{wire.Healthcheck{Test: []string{"NONE"}}}, nil
			},
		},
	}
}

func check(c *arg.Call, test []string) *Value {
	return &Value{wire.Healthcheck{
		Test: test, Interval: nanos(c, "interval"), Timeout: nanos(c, "timeout"),
		StartPeriod: nanos(c, "start_period"), StartInterval: nanos(c, "start_interval"), Retries: int(arg.Get[int64](c, "retries")),
	}}
}

func nanos(c *arg.Call, name string) int64 { return int64(arg.Get[time.Duration](c, name)) }

// Module is the name probe in scripts.
func Module() starlark.Value { return script.NewValue("module", "probe", Funcs()) }
