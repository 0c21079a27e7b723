package task

import (
	"context"
	"time"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/apply"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/reference"
	"github.com/sampan-project/sampan/starlark/script"
)

// imageType is the name of an image, or one that the environment builds.
var imageType = arg.Type{Name: "image", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if r, ok := v.(*graph.Ref); ok && r.Kind() == graph.KindImage {
		return r.Resources[0].Name, nil
	}
	return reference.Type.Convert(v)
}}

// containerParams are the arguments of run and start that say what the container is like.
var containerParams = []arg.Param{
	{Name: "image", Type: imageType, Required: true, Doc: "The image, which is pulled when it is missing."},
	{Name: "command", Type: commandType, Shows: "the image's", Doc: "The command: a list, or a string for the shell."},
	envParam, userParam, workdirParam,
	{Name: "name", Type: arg.Name, Doc: "Its name on the network; also its host name."},
	{Name: "network", Type: arg.String, Default: "", Shows: "the engine's default network", Doc: "What ctx.network() returned, or a network of the engine."},
	{Name: "mounts", Type: arg.List[*graph.MountValue](graph.MountType), Doc: "bind(...).at(...) and tmpfs(...).at(...)."},
	{Name: "memory", Type: arg.Size, Default: int64(0), Shows: "no limit", Doc: "Memory limit, such as 512m."},
}

func (r *runner) runFunc() arg.Func {
	return arg.Func{
		Name: "run", Of: "ctx", Positional: 2, Returns: "result",
		Doc:     "Runs a command in a new container, waits for its end and removes it. The result has .exit_code, .stdout and .stderr.",
		Example: `print(ctx.run("busybox", ["echo", "hello"]).stdout)`,
		Params:  append(containerParams[:len(containerParams):len(containerParams)], stdinParam, checkParam, showParam, timeoutParam),
		Do:      r.run,
	}
}

func (r *runner) startFunc() arg.Func {
	return arg.Func{
		Name: "start", Of: "ctx", Positional: 2, Returns: "container",
		Doc:     "Starts a container and leaves it running until the script ends. Its value has .name, .id and .address, and .exec, .at, .logs and .stop.",
		Example: `db = ctx.start("redis", name = "db", network = ctx.network())`,
		Params:  containerParams,
		Do: func(c *arg.Call) (starlark.Value, error) {
			ctx := script.Context(c.Thread)
			made, err := r.create(ctx, c, false)
			if err != nil {
				return nil, err
			}
			if err := r.engine.ContainerStart(ctx, made); err != nil {
				return nil, failed(c, "command", err)
			}
			inspect, err := r.engine.ContainerInspect(ctx, made, false)
			if err != nil {
				return nil, failed(c, "", err)
			}
			return r.newBox(inspect), nil
		},
	}
}

// create makes a container that is removed at the script's end.
func (r *runner) create(ctx context.Context, c *arg.Call, attached bool) (string, error) {
	ref := arg.Get[string](c, "image")
	if err := r.ensure(ctx, ref); err != nil {
		return "", failed(c, "image", err)
	}
	name, network := arg.Get[string](c, "name"), arg.Get[string](c, "network")
	body := wire.ContainerCreateRequest{
		ContainerConfig: wire.ContainerConfig{
			Image: ref, Cmd: arg.Get[[]string](c, "command"), Env: variables(arg.Get[map[string]string](c, "env")), User: arg.Get[string](c, "user"),
			WorkingDir: arg.Get[string](c, "workdir"), Hostname: name, Labels: r.labels(),
			AttachStdout: attached, AttachStderr: attached,
		},
		HostConfig: &wire.HostConfig{NetworkMode: network, RestartPolicy: wire.RestartPolicy{Name: "no"}, Resources: wire.Resources{Memory: arg.Get[int64](c, "memory")}},
	}
	if attached && c.Given("stdin") {
		body.AttachStdin, body.OpenStdin, body.StdinOnce = true, true, true
	}
	for _, m := range arg.Get[[]*graph.MountValue](c, "mounts") {
		volume := ""
		if m.Ref != nil {
			volume = m.Ref.Resources[0].Name
		}
		body.HostConfig.Mounts = append(body.HostConfig.Mounts, apply.MountSpec(m.Mount, volume))
	}
	if name != "" && network != "" && network != "host" && network != "none" && network != "bridge" {
		body.NetworkingConfig = &wire.NetworkingConfig{EndpointsConfig: map[string]*wire.EndpointSettings{network: {Aliases: []string{name}}}}
	}
	made, err := r.engine.ContainerCreate(ctx, "", "", body)
	if err != nil {
		return "", failed(c, "", err)
	}
	r.mu.Lock()
	r.boxes = append(r.boxes, &Box{id: made.ID})
	r.mu.Unlock()
	return made.ID, nil
}

// ensure pulls an image that is missing.
func (r *runner) ensure(ctx context.Context, ref string) error {
	_, err := r.engine.ImageInspect(ctx, ref)
	if err == nil || !fault.Is(err, fault.NotFound) {
		return err
	}
	var auth *wire.AuthConfig
	if r.o.Auth != nil {
		if auth, err = r.o.Auth(ref); err != nil {
			return err
		}
	}
	return r.engine.ImagePull(ctx, ref, "", auth, func(wire.Message) error { return nil })
}

func (r *runner) run(c *arg.Call) (starlark.Value, error) {
	ctx, cancel := deadline(c)
	defer cancel()
	id, err := r.create(ctx, c, true)
	if err != nil {
		return nil, err
	}
	defer r.discard(context.WithoutCancel(ctx), id)
	stream, err := r.engine.ContainerAttach(ctx, id, client.AttachOptions{Stream: true, Stdin: c.Given("stdin"), Stdout: true, Stderr: true})
	if err != nil {
		return nil, r.late(ctx, c, err)
	}
	wait, err := r.engine.ContainerWait(ctx, id, client.WaitNextExit)
	if err != nil {
		_ = stream.Close()
		return nil, r.late(ctx, c, err)
	}
	if err := r.engine.ContainerStart(ctx, id); err != nil {
		_ = stream.Close()
		return nil, failed(c, "command", err)
	}
	out, err := r.collect(ctx, c, stream)
	if err != nil {
		return nil, r.late(ctx, c, err)
	}
	exit, err := wait()
	if err != nil {
		return nil, r.late(ctx, c, err)
	}
	return out.result(c, command(c), exit.StatusCode)
}

// command is the command as an error names it.
func command(c *arg.Call) []string {
	if list := arg.Get[[]string](c, "command"); len(list) > 0 {
		return list
	}
	return []string{arg.Get[string](c, "image")}
}

// discard removes a container that has done its work. One that cannot be removed now is tried again
// at the script's end.
func (r *runner) discard(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := r.engine.ContainerRemove(ctx, id, client.RemoveOptions{Force: true, Volumes: true}); err != nil && !fault.Is(err, fault.NotFound) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, b := range r.boxes {
		if b.id == id {
			r.boxes = append(r.boxes[:i], r.boxes[i+1:]...)
			return
		}
	}
}
