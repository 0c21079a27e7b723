// Package task runs functions of scripts that have effects: main(ctx) of `sampan script run.star`,
// and the tasks of an env.star.
//
//	def main(ctx):
//	    print(ctx.run("busybox", ["echo", "hello"]).stdout.strip())
//	    box = ctx.start("busybox", ["httpd", "-f"])
//	    ctx.wait_http("http://" + box.address + "/")
//
// Effects are only in the methods of ctx, which go through the engine's API, so whatever a script
// does Docker's own client could do too. What a script starts is removed when it ends, however it
// ends; of one that was killed, by the next script on the same machine (sweep.go). On the host it can only read and write below its workspace.
//
// run.go has ctx.run and ctx.start, box.go the container they make and ctx.exec, copy.go ctx.copy,
// wait.go what waits.
package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/script"
)

// Engine is what tasks call; *client.Client is one.
type Engine interface {
	ContainerCreate(ctx context.Context, name, platform string, r wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error)
	ContainerStart(ctx context.Context, id string) error
	ContainerStop(ctx context.Context, id, signal string, timeout *int) error
	ContainerRemove(ctx context.Context, id string, o client.RemoveOptions) error
	ContainerInspect(ctx context.Context, id string, size bool) (wire.ContainerInspect, error)
	ContainerAttach(ctx context.Context, id string, o client.AttachOptions) (*client.Hijacked, error)
	ContainerWait(ctx context.Context, id, condition string) (func() (wire.WaitResponse, error), error)
	ContainerLogs(ctx context.Context, id string, o client.LogOptions) (io.ReadCloser, error)
	ExecCreate(ctx context.Context, container string, config wire.ExecConfig) (string, error)
	ExecAttach(ctx context.Context, id string, start wire.ExecStart) (*client.Hijacked, error)
	ExecInspect(ctx context.Context, id string) (wire.ExecInspect, error)
	CopyFrom(ctx context.Context, id, path string) (io.ReadCloser, wire.PathStat, error)
	CopyTo(ctx context.Context, id, path string, tar io.Reader, o client.CopyOptions) error
	ImageInspect(ctx context.Context, ref string) (wire.ImageInspect, error)
	ImagePull(ctx context.Context, ref, platform string, auth *wire.AuthConfig, each func(wire.Message) error) error
	NetworkCreate(ctx context.Context, r wire.NetworkCreateRequest) (wire.NetworkCreateResponse, error)
	NetworkRemove(ctx context.Context, ref string) error
	ContainerList(ctx context.Context, o client.ListOptions) ([]wire.ContainerSummary, error)
	NetworkList(ctx context.Context, f client.Filters) ([]wire.NetworkInspect, error)
}

var _ Engine = (*client.Client)(nil)

// Label marks what a script made; its value is the script's name.
const Label = "sh.sampan.script"

// Options say how a task is run.
type Options struct {
	Name   string         // of the script, for Label
	Args   starlark.Value // ctx.args
	Stdout io.Writer      // what commands with show = True write
	Stderr io.Writer
	Auth   func(ref string) (*wire.AuthConfig, error)
	// Network makes the name of a network unique; tests replace it.
	Unique func() string
}

// runner is one run of a task.
type runner struct {
	engine  Engine
	session *script.Session
	o       Options
	owner   string // this process, for LabelOwner

	mu       sync.Mutex
	boxes    []*Box
	networks []string
}

// Run calls the function with a context, and clears away what it made. First it clears away what
// runs left that could not do so, because they were killed.
func Run(ctx context.Context, e Engine, s *script.Session, fn starlark.Value, o Options) (err error) {
	r := &runner{engine: e, session: s, o: o, owner: owner()}
	r.sweep(ctx)
	defer func() {
		if cleared := r.clear(context.WithoutCancel(ctx)); err == nil {
			err = cleared
		}
	}()
	_, err = s.Call(ctx, fn, starlark.Tuple{r.context()}, nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.Files.Explain(err)
}

// clear removes the containers, the newest first, and then the networks.
func (r *runner) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r.mu.Lock()
	boxes, networks := r.boxes, r.networks
	r.boxes, r.networks = nil, nil
	r.mu.Unlock()
	var errs []error
	for i := len(boxes) - 1; i >= 0; i-- {
		if err := r.engine.ContainerRemove(ctx, boxes[i].id, client.RemoveOptions{Force: true, Volumes: true}); err != nil && !fault.Is(err, fault.NotFound) {
			errs = append(errs, err)
		}
	}
	for _, n := range networks {
		if err := r.engine.NetworkRemove(ctx, n); err != nil && !fault.Is(err, fault.NotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// context is the value ctx.
func (r *runner) context() starlark.Value {
	v := script.NewValue("context", "<task context>", r.funcs())
	if r.o.Args != nil {
		v.With("args", r.o.Args)
	} else {
		v.With("args", starlark.NewList(nil))
	}
	return v
}

func (r *runner) funcs() []arg.Func {
	return []arg.Func{r.runFunc(), r.startFunc(), r.execFunc(), r.copyFunc(), r.waitHTTPFunc(), r.waitFunc(), r.networkFunc(), r.sleepFunc(), r.failFunc()}
}

// Funcs declares the methods of ctx, for the reference.
func Funcs() []arg.Func { return (&runner{}).funcs() }

func (r *runner) failFunc() arg.Func {
	return arg.Func{
		Name: "fail", Of: "ctx", Positional: 1, Returns: "nothing",
		Doc:     "Ends the script with an error.",
		Example: `ctx.fail("the page does not say hello")`,
		Params:  []arg.Param{{Name: "message", Type: arg.String, Required: true, Doc: "What is wrong."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			// Without a subject: the message says it all.
			return nil, &diag.Problem{Subject: "failed", Message: arg.Get[string](c, "message")}
		},
	}
}

func (r *runner) sleepFunc() arg.Func {
	return arg.Func{
		Name: "sleep", Of: "ctx", Positional: 1, Returns: "None",
		Doc:     "Does nothing for a while. To wait for something, ctx.wait_http and ctx.wait are better.",
		Example: `ctx.sleep("500ms")`,
		Params:  []arg.Param{{Name: "duration", Type: arg.Duration, Required: true, Doc: "How long."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			return starlark.None, pause(script.Context(c.Thread), arg.Get[time.Duration](c, "duration"))
		},
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *runner) networkFunc() arg.Func {
	return arg.Func{
		Name: "network", Of: "ctx", Returns: "string",
		Doc:     "A network of its own, on which containers reach each other by name. It is removed when the script ends.",
		Example: "net = ctx.network()\ndb = ctx.start(\"redis\", name = \"db\", network = net)",
		Params:  []arg.Param{{Name: "driver", Type: arg.String, Default: "bridge", Doc: "The network driver."}},
		Do: func(c *arg.Call) (starlark.Value, error) {
			name := "script-" + r.unique()
			_, err := r.engine.NetworkCreate(script.Context(c.Thread), wire.NetworkCreateRequest{Name: name, Driver: arg.Get[string](c, "driver"), Options: map[string]string{}, Labels: r.labels()})
			if err != nil {
				return nil, failed(c, "", err)
			}
			r.mu.Lock()
			r.networks = append(r.networks, name)
			r.mu.Unlock()
			return starlark.String(name), nil
		},
	}
}

func (r *runner) unique() string {
	if r.o.Unique != nil {
		return r.o.Unique()
	}
	return fmt.Sprintf("%x", time.Now().UnixNano())
}

func (r *runner) labels() map[string]string {
	labels := map[string]string{Label: r.o.Name}
	if r.owner != "" {
		labels[LabelOwner] = r.owner
	}
	return labels
}

// failed is an error of the engine, at the call and argument it came of.
func failed(c *arg.Call, argument string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	p := c.Problem(argument, "%v", err)
	p.Cause = err
	return p
}

// Arguments reads the command line of a task: NAME=VALUE for each argument that it declares. The
// result is ctx.args.
func Arguments(t graph.Task, words []string) (starlark.Value, error) {
	values := starlark.StringDict{}
	for _, w := range words {
		name, text, ok := cut(w)
		spec, known := t.Args[name]
		if !ok || !known {
			expected := "NAME=VALUE"
			if names := arg.Keys(t.Args); len(names) == 0 {
				expected = "no arguments: task " + t.Name + " declares none"
			} else {
				expected += fmt.Sprintf(" with a name that task %s declares: %s", t.Name, join(names))
			}
			return nil, &fault.Field{Field: "argument", Given: w, Expected: expected, Nearest: fault.Nearest(name, arg.Keys(t.Args))}
		}
		v, err := spec.Parse(text)
		var f *fault.Field
		if errors.As(err, &f) {
			f.Field = name
		}
		if err != nil {
			return nil, err
		}
		values[name] = v
	}
	for _, name := range arg.Keys(t.Args) {
		if values[name] != nil {
			continue
		}
		if t.Args[name].Default == nil {
			return nil, &fault.Field{Field: "argument", Given: "", Expected: name + "=VALUE, which task " + t.Name + " needs"}
		}
		values[name] = t.Args[name].Default
	}
	return starlarkstruct.FromStringDict(starlark.String("args"), values), nil
}
