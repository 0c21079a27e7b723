package task

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/apply"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/script"
)

// Box is a container that a script started.
type Box struct {
	*script.Value
	id string
}

// newBox makes the value of a container that runs.
func (r *runner) newBox(c wire.ContainerInspect) *Box {
	b := &Box{id: c.ID}
	b.Value = script.NewValue("container", "<container "+strings.TrimPrefix(c.Name, "/")+">", r.boxFuncs(b)).
		With("id", starlark.String(c.ID)).With("name", starlark.String(strings.TrimPrefix(c.Name, "/"))).
		With("address", starlark.String(apply.Address(c)))
	return b
}

func (r *runner) boxFuncs(b *Box) []arg.Func {
	method := r.execFunc()
	method.Of, method.Params = "container", method.Params[1:]
	method.Positional = 1
	method.Example = `db.exec(["psql", "-c", "select 1"])`
	method.Do = func(c *arg.Call) (starlark.Value, error) { return r.exec(c, b.id) }
	return []arg.Func{method, atFunc(b.id), r.logsFunc(b), r.stopFunc(b)}
}

// BoxFuncs declares the methods of a container, for the reference.
func BoxFuncs() []arg.Func { return (&runner{}).boxFuncs(&Box{}) }

// target is a container of the script, or one that the environment declares.
var target = arg.Type{Name: "container", Convert: func(v starlark.Value) (any, *arg.Reject) {
	switch v := v.(type) {
	case *Box:
		return v.id, nil
	case *graph.Ref:
		if v.Kind() == graph.KindContainer {
			return v.Resources[0].Name, nil
		}
	case starlark.String:
		return nil, &arg.Reject{Expected: "container", Given: v, Cure: "give the value that ctx.start or container() returned"}
	}
	return nil, &arg.Reject{Expected: "container", Given: v}
}}

// Place is a path in a container.
type Place struct {
	*script.Value
	container, path string
}

// placeType keeps the slash at a path's end, which says that it is a directory.
var placeType = arg.Of(`an absolute path such as "/tmp/"`, func(v starlark.Value) (string, bool) {
	s, ok := starlark.AsString(v)
	return s, ok && strings.HasPrefix(s, "/") && !strings.Contains(s, "\x00")
})

func atFunc(container string) arg.Func {
	return arg.Func{
		Name: "at", Of: "container", Positional: 1, Returns: "a place, for ctx.copy",
		Doc:     "A path in the container.",
		Example: `ctx.copy("app.conf", box.at("/etc/app.conf"))`,
		Params:  []arg.Param{{Name: "path", Type: placeType, Required: true, Doc: "The path; a slash at its end says that it is a directory."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			p := arg.Get[string](c, "path")
			return &Place{script.NewValue("place", "<"+p+">", nil), container, p}, nil
		},
	}
}

func (r *runner) stopFunc(b *Box) arg.Func {
	return arg.Func{
		Name: "stop", Of: "container", Returns: "None",
		Doc: "Asks the container to end, and waits for it. It is removed with the others, at the script's end.",
		Do: func(c *arg.Call) (starlark.Value, error) {
			err := r.engine.ContainerStop(script.Context(c.Thread), b.id, "", nil)
			if err != nil && !fault.Is(err, fault.NotModified) {
				return nil, failed(c, "", err)
			}
			return starlark.None, nil
		},
	}
}

func (r *runner) logsFunc(b *Box) arg.Func {
	return arg.Func{
		Name: "logs", Of: "container", Returns: "string",
		Doc: "What the container has written so far, to both streams.",
		Do: func(c *arg.Call) (starlark.Value, error) {
			logs, err := r.engine.ContainerLogs(script.Context(c.Thread), b.id, client.LogOptions{Stdout: true, Stderr: true})
			if err != nil {
				return nil, failed(c, "", err)
			}
			defer logs.Close()
			var text capture
			if _, err := client.StdCopy(&text, &text, logs); err != nil {
				return nil, failed(c, "", err)
			}
			if err := text.err(); err != nil {
				return nil, failed(c, "", err)
			}
			return starlark.String(text.String()), nil
		},
	}
}

// commandType is a command line: a list is run as it is, a string by /bin/sh -c.
var commandType = arg.Type{Name: "list of string, or a string for the shell", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if s, ok := starlark.AsString(v); ok {
		return []string{"/bin/sh", "-c", s}, nil
	}
	list, reject := arg.List[string](arg.String).Convert(v)
	if reject == nil {
		return list, nil
	}
	if len(reject.Path) == 0 {
		reject.Expected = "list of string, or a string for the shell"
	}
	return nil, reject
}}

// The arguments that run, start and exec have in common.
var (
	envParam     = arg.Param{Name: "env", Type: arg.Dict[string](arg.String), Doc: "Variables of the environment."}
	userParam    = arg.Param{Name: "user", Type: arg.String, Default: "", Shows: "the image's", Doc: "USER, or USER:GROUP."}
	workdirParam = arg.Param{Name: "workdir", Type: arg.Absolute, Default: "", Shows: "the image's", Doc: "The working directory."}
	checkParam   = arg.Param{Name: "check", Type: arg.Bool, Default: true, Doc: "A status other than 0 ends the script."}
	showParam    = arg.Param{Name: "show", Type: arg.Bool, Default: false, Doc: "Also print what the command writes, as it comes."}
	stdinParam   = arg.Param{Name: "stdin", Type: arg.String, Doc: "What the command reads from its standard input."}
	timeoutParam = arg.Param{Name: "timeout", Type: arg.Duration, Default: time.Duration(0), Shows: "none", Doc: "A command that takes longer is an error."}
)

func (r *runner) execFunc() arg.Func {
	return arg.Func{
		Name: "exec", Of: "ctx", Positional: 2, Returns: "result",
		Doc:     "Runs a command in a container and waits for its end. The result has .exit_code, .stdout and .stderr.",
		Example: `ctx.exec(db, ["psql", "-c", "select 1"])`,
		Params: []arg.Param{
			{Name: "container", Type: target, Required: true, Doc: "What ctx.start returned, or container() in the environment."},
			{Name: "command", Type: commandType, Required: true, Doc: "The command: a list, or a string for the shell."},
			envParam, userParam, workdirParam, stdinParam, checkParam, showParam, timeoutParam,
		},
		Do: func(c *arg.Call) (starlark.Value, error) { return r.exec(c, arg.Get[string](c, "container")) },
	}
}

func (r *runner) exec(c *arg.Call, container string) (starlark.Value, error) {
	ctx, cancel := deadline(c)
	defer cancel()
	command := arg.Get[[]string](c, "command")
	if len(command) == 0 {
		return nil, c.Problem("command", "expected a program and its arguments, got an empty list")
	}
	id, err := r.engine.ExecCreate(ctx, container, wire.ExecConfig{
		Cmd: command, Env: variables(arg.Get[map[string]string](c, "env")), User: arg.Get[string](c, "user"), WorkingDir: arg.Get[string](c, "workdir"),
		AttachStdout: true, AttachStderr: true, AttachStdin: c.Given("stdin"),
	})
	if err != nil {
		return nil, failed(c, "command", err)
	}
	stream, err := r.engine.ExecAttach(ctx, id, wire.ExecStart{})
	if err != nil {
		return nil, failed(c, "command", err)
	}
	out, err := r.collect(ctx, c, stream)
	if err != nil {
		return nil, r.late(ctx, c, err)
	}
	for { // the output may end a moment before the status is known
		e, err := r.engine.ExecInspect(ctx, id)
		if err != nil {
			return nil, r.late(ctx, c, err)
		}
		if !e.Running && e.ExitCode != nil {
			return out.result(c, command, int64(*e.ExitCode))
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return nil, r.late(ctx, c, err)
		}
	}
}

// deadline is the evaluation's context with the call's timeout.
func deadline(c *arg.Call) (context.Context, context.CancelFunc) {
	ctx := script.Context(c.Thread)
	if d := arg.Get[time.Duration](c, "timeout"); d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return context.WithCancel(ctx)
}

// late says that the timeout was the reason, when it was.
func (r *runner) late(ctx context.Context, c *arg.Call, err error) error {
	if ctx.Err() == context.DeadlineExceeded && c.Given("timeout") {
		p := c.Problem("timeout", "the command takes longer than %s", arg.Get[time.Duration](c, "timeout"))
		p.Cause = fault.New(fault.Deadline, "timeout")
		return p
	}
	if err := script.Context(c.Thread).Err(); err != nil {
		return err
	}
	return failed(c, "", err)
}

// maxOutput bounds what a script gets of a command.
const maxOutput = 16 << 20

// capture keeps the output of a command, up to the bound.
type capture struct {
	bytes.Buffer
	over bool
}

func (c *capture) Write(p []byte) (int, error) {
	if c.Len()+len(p) > maxOutput {
		c.over = true
		return len(p), nil
	}
	return c.Buffer.Write(p)
}

func (c *capture) err() error {
	if c.over {
		return fault.New(fault.Invalid, "the output has more than %d MiB: write it to a file and copy that", maxOutput>>20)
	}
	return nil
}

// output is what a command wrote.
type output struct{ stdout, stderr capture }

// collect feeds and reads an attached process until its output ends.
func (r *runner) collect(ctx context.Context, c *arg.Call, stream *client.Hijacked) (*output, error) {
	defer stream.Close() //nolint:errcheck // all that matters was read
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	defer stop()
	if c.Given("stdin") {
		go func() { // a process that does not read its input must not keep us from reading its output
			if _, err := io.WriteString(stream.Conn, arg.Get[string](c, "stdin")); err == nil {
				_ = stream.CloseWrite()
			}
		}()
	}
	out := &output{}
	stdout, stderr := io.Writer(&out.stdout), io.Writer(&out.stderr)
	if arg.Get[bool](c, "show") {
		stdout, stderr = io.MultiWriter(stdout, orDiscard(r.o.Stdout)), io.MultiWriter(stderr, orDiscard(r.o.Stderr))
	}
	_, err := client.StdCopy(stdout, stderr, stream.Reader)
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	if err == nil {
		err = out.stdout.err()
	}
	if err == nil {
		err = out.stderr.err()
	}
	return out, err
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// result is the value of a command that has ended; with check a bad status is an error.
func (o *output) result(c *arg.Call, command []string, code int64) (starlark.Value, error) {
	if code != 0 && arg.Get[bool](c, "check") {
		said := strings.TrimSpace(o.stderr.String())
		if said == "" {
			said = strings.TrimSpace(o.stdout.String())
		}
		if i := strings.LastIndexByte(said, '\n'); i >= 0 {
			said = said[i+1:]
		}
		if said != "" {
			said = ": " + clip(said)
		}
		return nil, &diag.Problem{Subject: c.Subject, Arg: "command", Message: fmt.Sprintf("%s ended with status %d%s", clip(strings.Join(command, " ")), code, said),
			Cure: "check = False gives the status to the script instead"}
	}
	return script.NewValue("result", fmt.Sprintf("<result: status %d>", code), nil).
		With("exit_code", starlark.MakeInt64(code)).With("stdout", starlark.String(o.stdout.String())).With("stderr", starlark.String(o.stderr.String())), nil
}

func clip(s string) string {
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "..."
	}
	return s
}

func variables(env map[string]string) []string {
	var out []string
	for _, k := range arg.Keys(env) {
		out = append(out, k+"="+env[k])
	}
	return out
}

func cut(s string) (string, string, bool) { return strings.Cut(strings.TrimLeft(s, "-"), "=") }

func join(names []string) string { return strings.Join(names, ", ") }
