package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/script"
)

const (
	maxBody     = 1 << 20
	betweenAsks = 100 * time.Millisecond
)

var urlType = arg.Of(`a URL such as "http://127.0.0.1:8080/"`, func(v starlark.Value) (string, bool) {
	s, _ := starlark.AsString(v)
	u, err := url.Parse(s)
	return s, err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
})

func (r *runner) waitHTTPFunc() arg.Func {
	return arg.Func{
		Name: "wait_http", Of: "ctx", Positional: 1, Returns: "response",
		Doc:     "Asks a URL until it answers as it should. The response has .status and .body. It is this machine that asks, not a container.",
		Example: `page = ctx.wait_http("http://" + web.address + "/").body`,
		Params: []arg.Param{
			{Name: "url", Type: urlType, Required: true, Doc: "What to ask."},
			{Name: "status", Type: arg.Int(100, 599), Default: int64(0), Shows: "any from 200 to 399", Doc: "The status that is expected."},
			{Name: "timeout", Type: arg.Duration, Default: 30 * time.Second, Shows: `"30s"`, Doc: "How long to try."},
		},
		Do: r.waitHTTP,
	}
}

func (r *runner) waitHTTP(c *arg.Call) (starlark.Value, error) {
	timeout := arg.Get[time.Duration](c, "timeout")
	outer := script.Context(c.Thread)
	ctx, cancel := context.WithTimeout(outer, timeout)
	defer cancel()
	// A client of its own: no proxy, which knows nothing of containers, and no connection that stays.
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	h := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	target, want, last := arg.Get[string](c, "url"), int(arg.Get[int64](c, "status")), "it did not answer"
	for {
		status, body, err := ask(ctx, h, target)
		switch {
		case err == nil && (status == want || want == 0 && status >= 200 && status < 400):
			return script.NewValue("response", fmt.Sprintf("<response %d>", status), nil).
				With("status", starlark.MakeInt(status)).With("body", starlark.String(body)), nil
		case err == nil:
			last = fmt.Sprintf("it answered with status %d", status)
		case ctx.Err() == nil:
			last = reason(err)
		}
		if pause(ctx, betweenAsks) != nil {
			if outer.Err() != nil {
				return nil, outer.Err()
			}
			p := c.Problem("url", "%s is not there after %s: %s", target, timeout, last)
			p.Cause = fault.New(fault.Deadline, "timeout")
			return nil, p
		}
	}
}

func reason(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

func ask(ctx context.Context, h *http.Client, target string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := h.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, string(body), err
}

func (r *runner) waitFunc() arg.Func {
	return arg.Func{
		Name: "wait", Of: "ctx", Positional: 2, Returns: "int",
		Doc:     "Waits until a container is healthy, or has ended; the result is its exit status, 0 while it runs.",
		Example: `ctx.wait(db, "healthy")`,
		Params: []arg.Param{
			{Name: "container", Type: target, Required: true, Doc: "What ctx.start returned, or container() in the environment."},
			{Name: "condition", Type: arg.OneOf("healthy", "exited"), Default: "exited", Doc: "What to wait for."},
			{Name: "timeout", Type: arg.Duration, Default: time.Minute, Shows: `"1m"`, Doc: "How long to wait."},
		},
		Do: func(c *arg.Call) (starlark.Value, error) {
			outer := script.Context(c.Thread)
			ctx, cancel := context.WithTimeout(outer, arg.Get[time.Duration](c, "timeout"))
			defer cancel()
			code, err := r.await(ctx, arg.Get[string](c, "container"), arg.Get[string](c, "condition"))
			if outer.Err() != nil {
				return nil, outer.Err()
			}
			if ctx.Err() != nil {
				p := c.Problem("container", "it is not %s after %s", arg.Get[string](c, "condition"), arg.Get[time.Duration](c, "timeout"))
				p.Cause = fault.New(fault.Deadline, "timeout")
				return nil, p
			}
			if err != nil {
				return nil, failed(c, "container", err)
			}
			return starlark.MakeInt64(code), nil
		},
	}
}

func (r *runner) await(ctx context.Context, id, condition string) (int64, error) {
	if condition == "exited" {
		wait, err := r.engine.ContainerWait(ctx, id, client.WaitNotRunning)
		if err != nil {
			return 0, err
		}
		exit, err := wait()
		return exit.StatusCode, err
	}
	for {
		c, err := r.engine.ContainerInspect(ctx, id, false)
		if err != nil {
			return 0, err
		}
		if done, err := healthy(c); done || err != nil {
			return 0, err
		}
		if err := pause(ctx, betweenAsks); err != nil {
			return 0, err
		}
	}
}

func healthy(c wire.ContainerInspect) (bool, error) {
	switch {
	case c.State == nil:
		return false, nil
	case !c.State.Running:
		return false, fault.New(fault.Conflict, "it has ended with status %d before it was healthy", c.State.ExitCode)
	case c.State.Health == nil && (c.Config == nil || c.Config.Healthcheck == nil):
		return false, fault.New(fault.Invalid, "it has no health probe, so it cannot become healthy")
	case c.State.Health == nil:
		return false, nil
	}
	return c.State.Health.Status == "healthy", nil
}
