package docker

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/wire"
)

// Containers is what the handlers need of core/container.
type Containers interface {
	Create(ctx context.Context, name, platform string, req wire.ContainerCreateRequest) (wire.ContainerCreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref, signal string, timeout *int) error
	Restart(ctx context.Context, ref, signal string, timeout *int) error
	Kill(ctx context.Context, ref, signal string) error
	Remove(ctx context.Context, ref string, o container.RemoveOptions) error
	// Wait has registered the waiter when it returns.
	Wait(ctx context.Context, ref, condition string) (<-chan wire.WaitResponse, error)
	Inspect(ctx context.Context, ref string, size bool) (wire.ContainerInspect, error)
	List(ctx context.Context, o container.ListOptions) ([]wire.ContainerSummary, error)
	Logs(ctx context.Context, ref string, o container.LogOptions, w io.Writer) error
	TTY(ref string) (bool, error)
	// Attach returns a stream that misses no byte written after it returned.
	Attach(ctx context.Context, ref string, o container.AttachOptions) (container.Stream, error)
	Resize(ctx context.Context, ref string, height, width uint16) error
	ExecCreate(ctx context.Context, ref string, c wire.ExecConfig) (string, error)
	// ExecStart returns a nil stream for a detached start. That the command itself cannot be run
	// is an error of class Invalid, and the exit code of ExecInspect.
	ExecStart(ctx context.Context, id string, s wire.ExecStart) (container.Stream, error)
	ExecInspect(ctx context.Context, id string) (wire.ExecInspect, error)
	ExecResize(ctx context.Context, id string, height, width uint16) error
	Rename(ctx context.Context, ref, name string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Top(ctx context.Context, ref, psArgs string) (wire.TopResponse, error)
}

// The optional abilities of Containers.
type (
	ContainerChanger interface {
		Changes(ctx context.Context, ref string) ([]wire.Change, error)
	}
	ContainerUpdater interface {
		Update(ctx context.Context, ref string, u wire.UpdateRequest) (wire.Warnings, error)
	}
	ContainerPruner interface {
		Prune(ctx context.Context, filters map[string][]string) (wire.ContainersPrune, error)
	}
	ContainerExporter interface {
		Export(ctx context.Context, ref string, w io.Writer) error
	}
)

type containers struct{ backend Containers }

func (c containers) routes() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/containers/json", Handle: c.list},
		{Method: http.MethodPost, Pattern: "/containers/create", Handle: c.create},
		{Method: http.MethodPost, Pattern: "/containers/prune", Handle: c.prune},
		{Method: http.MethodGet, Pattern: "/containers/{name}/json", Handle: c.inspect},
		{Method: http.MethodGet, Pattern: "/containers/{name}/top", Handle: c.top},
		{Method: http.MethodGet, Pattern: "/containers/{name}/logs", Handle: c.logs},
		{Method: http.MethodGet, Pattern: "/containers/{name}/stats", Handle: c.stats},
		{Method: http.MethodGet, Pattern: "/containers/{name}/changes", Handle: c.changes},
		{Method: http.MethodGet, Pattern: "/containers/{name}/export", Handle: c.export},
		{Method: http.MethodPost, Pattern: "/containers/{name}/start", Handle: c.start},
		{Method: http.MethodPost, Pattern: "/containers/{name}/stop", Handle: c.stop},
		{Method: http.MethodPost, Pattern: "/containers/{name}/restart", Handle: c.restart},
		{Method: http.MethodPost, Pattern: "/containers/{name}/kill", Handle: c.kill},
		{Method: http.MethodPost, Pattern: "/containers/{name}/pause", Handle: c.pause},
		{Method: http.MethodPost, Pattern: "/containers/{name}/unpause", Handle: c.unpause},
		{Method: http.MethodPost, Pattern: "/containers/{name}/rename", Handle: c.rename},
		{Method: http.MethodPost, Pattern: "/containers/{name}/update", Handle: c.update},
		{Method: http.MethodPost, Pattern: "/containers/{name}/resize", Handle: c.resize},
		{Method: http.MethodPost, Pattern: "/containers/{name}/wait", Handle: c.wait},
		{Method: http.MethodPost, Pattern: "/containers/{name}/attach", Handle: c.attach},
		{Method: http.MethodGet, Pattern: "/containers/{name}/attach/ws", Handle: c.attachWebsocket},
		{Method: http.MethodHead, Pattern: "/containers/{name}/archive", Handle: c.statPath},
		{Method: http.MethodGet, Pattern: "/containers/{name}/archive", Handle: c.copyFrom},
		{Method: http.MethodPut, Pattern: "/containers/{name}/archive", Handle: c.copyTo},
		{Method: http.MethodDelete, Pattern: "/containers/{name}", Handle: c.remove},
	}
}

var containerFilters = with(labelFilters, route.FilterKeys{
	"ancestor": nil, "before": nil, "expose": nil, "id": nil, "isolation": nil, "name": nil,
	"network": nil, "publish": nil, "since": nil, "volume": nil,
	"exited":  route.IsNumber,
	"health":  route.OneOf("none", "starting", "healthy", "unhealthy"),
	"is-task": route.IsBool,
	"status":  route.OneOf("created", "running", "paused", "restarting", "removing", "exited", "dead"),
})

// list answers the containers. With "brief", which is ours and which Docker's daemon overlooks, they have only
// what a table shows, in the brief form.
func (c containers) list(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	o := container.ListOptions{All: q.Bool("all"), Limit: q.Int("limit", 0), Size: q.Bool("size"), Brief: q.Bool("brief"), Filters: q.Filters(containerFilters)}
	if err := q.Err(); err != nil {
		return err
	}
	if o.Limit < 0 { // docker-py's way to say that there is no limit
		o.Limit = 0
	}
	// The last n are of any state, and so are those of a filter by state.
	o.All = o.All || o.Limit > 0 || len(o.Filters["status"]) > 0
	list, err := c.backend.List(r.Context(), o)
	if err != nil {
		return err
	}
	if o.Brief {
		return route.WriteBody(w, "application/json", wire.AppendBrief(make([]byte, 0, 384*len(list)), list))
	}
	for i := range list {
		shapeSummary(&list[i], r.Version)
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

// shapeSummary writes empty lists as such, and leaves out what the client's version does not know.
func shapeSummary(s *wire.ContainerSummary, v route.Version) {
	s.Ports, s.Mounts, s.Names = orEmpty(s.Ports), orEmpty(s.Mounts), orEmpty(s.Names)
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if v < 46 {
		s.HostConfig.Annotations = nil
	}
}

// orEmpty makes JSON's null a [].
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (c containers) inspect(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	size := q.Bool("size")
	if err := q.Err(); err != nil {
		return err
	}
	answer, err := c.backend.Inspect(r.Context(), r.Variable(), size)
	if err != nil {
		return err
	}
	shapeInspect(&answer, r.Version)
	return route.WriteJSON(w, http.StatusOK, answer)
}

func (c containers) top(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	args := q.Text("ps_args")
	if err := q.Err(); err != nil {
		return err
	}
	answer, err := c.backend.Top(r.Context(), r.Variable(), args)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, answer)
}

func (c containers) changes(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ContainerChanger](c.backend, "listing the changes of a container")
	if err != nil {
		return err
	}
	list, err := b.Changes(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

func (c containers) export(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ContainerExporter](c.backend, "exporting a container")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	return b.Export(r.Context(), r.Variable(), w)
}

func (c containers) start(w http.ResponseWriter, r *route.Request) error {
	// A body was a second HostConfig before v1.24. "{}" and "null" still come from old clients.
	if r.ContentLength > 7 || r.ContentLength < 0 {
		return errStartBody
	}
	q := r.Query()
	if q.Text("checkpoint") != "" {
		return errCheckpoint
	}
	if err := q.Err(); err != nil {
		return err
	}
	if err := c.backend.Start(r.Detached(), r.Variable()); err != nil {
		return err
	}
	return route.NoContent(w)
}

// stopQuery reads what stop and restart share.
func stopQuery(r *route.Request) (signal string, timeout *int, err error) {
	q := r.Query()
	if r.Version >= 42 {
		signal = q.Text("signal")
	}
	timeout = q.Seconds("t")
	return signal, timeout, q.Err()
}

func (c containers) stop(w http.ResponseWriter, r *route.Request) error {
	signal, timeout, err := stopQuery(r)
	if err != nil {
		return err
	}
	if err := c.backend.Stop(r.Detached(), r.Variable(), signal, timeout); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (c containers) restart(w http.ResponseWriter, r *route.Request) error {
	signal, timeout, err := stopQuery(r)
	if err != nil {
		return err
	}
	if err := c.backend.Restart(r.Detached(), r.Variable(), signal, timeout); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (c containers) kill(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	signal := q.Text("signal")
	if err := q.Err(); err != nil {
		return err
	}
	if err := c.backend.Kill(r.Detached(), r.Variable(), signal); err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", r.Variable(), err)
	}
	return route.NoContent(w)
}

func (c containers) pause(w http.ResponseWriter, r *route.Request) error {
	if err := c.backend.Pause(r.Detached(), r.Variable()); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (c containers) unpause(w http.ResponseWriter, r *route.Request) error {
	if err := c.backend.Unpause(r.Detached(), r.Variable()); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (c containers) rename(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	name := q.Required("name", "the new name")
	if err := q.Err(); err != nil {
		return err
	}
	if err := c.backend.Rename(r.Detached(), r.Variable(), name); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (c containers) update(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ContainerUpdater](c.backend, "updating a container")
	if err != nil {
		return err
	}
	var u wire.UpdateRequest
	if err := r.Decode(w, &u); err != nil {
		return err
	}
	if r.Version < 40 {
		u.PidsLimit = nil
	}
	// -1 and 0 both mean no limit; nil means no change.
	if u.PidsLimit != nil && *u.PidsLimit < 0 {
		u.PidsLimit = new(int64)
	}
	answer, err := b.Update(r.Detached(), r.Variable(), u)
	if err != nil {
		return err
	}
	answer.Warnings = orEmpty(answer.Warnings)
	return route.WriteJSON(w, http.StatusOK, answer)
}

func (c containers) resize(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	height, width := q.Cells("h", "height"), q.Cells("w", "width")
	if err := q.Err(); err != nil {
		return err
	}
	return c.backend.Resize(r.Context(), r.Variable(), height, width)
}

func (c containers) remove(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	o := container.RemoveOptions{Force: q.Bool("force"), Volumes: q.Bool("v"), Link: q.Bool("link")}
	if err := q.Err(); err != nil {
		return err
	}
	if err := c.backend.Remove(r.Detached(), r.Variable(), o); err != nil {
		return err
	}
	return route.NoContent(w)
}

func (c containers) prune(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[ContainerPruner](c.backend, "pruning containers")
	if err != nil {
		return err
	}
	return prune(w, r, pruneFilters, b.Prune)
}
