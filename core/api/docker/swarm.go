package docker

import (
	"context"
	"io"
	"net/http"
	"strconv"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Swarm is what the handlers need of core/cluster: this node's own part in a swarm, and on managers all that
// the swarm has.
type Swarm interface {
	// Status is for the header that tells clients what they may ask: "inactive", "active/manager".
	Status() string
	// Forward has the leader answer the request, when this node is a manager and does not lead. done says that w has
	// the answer. An error says that this node is no manager.
	Forward(w http.ResponseWriter, r *http.Request) (done bool, err error)

	InitSwarm(ctx context.Context, req wire.SwarmInitRequest) (nodeID string, err error)
	JoinSwarm(ctx context.Context, req wire.SwarmJoinRequest) error
	LeaveSwarm(ctx context.Context, force bool) error
	InspectSwarm(ctx context.Context) (wire.Swarm, error)
	UpdateSwarm(ctx context.Context, version uint64, spec wire.SwarmSpec, rotate wire.SwarmRotation) error

	Nodes
	Services
	Tasks
}

type swarm struct{ backend Swarm }

// manages reports whether this node is a manager: others answer what a swarm alone has as Docker's do.
func manages(s Swarm) bool { return s != nil && s.Status() == wire.SwarmActive+"/"+wire.RoleManager }

// What a node answers that is in no swarm.
var (
	errNoManager = fault.New(fault.Unavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	errNoSwarm   = fault.New(fault.Unavailable, "This node is not part of a swarm")
	errSwarmless = fault.New(fault.NotImplemented, "swarm mode is not supported by this daemon")
)

func (s swarm) routes() []route.Route {
	routes := []route.Route{
		{Method: http.MethodPost, Pattern: "/swarm/init", Handle: s.init},
		{Method: http.MethodPost, Pattern: "/swarm/join", Handle: s.join},
		{Method: http.MethodPost, Pattern: "/swarm/leave", Handle: s.leave},
	}
	if s.backend == nil {
		routes[0].Handle, routes[1].Handle, routes[2].Handle = answer(errSwarmless), answer(errSwarmless), answer(errNoSwarm)
	}
	for _, r := range [][]route.Route{s.ofSwarm(), s.ofNodes(), s.ofServices(), s.ofTasks(), s.ofSecrets()} {
		for _, r := range r {
			r.Handle = s.led(r.Handle)
			routes = append(routes, r)
		}
	}
	return routes
}

func (s swarm) ofSwarm() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/swarm", Handle: s.inspect},
		{Method: http.MethodPost, Pattern: "/swarm/update", Handle: s.update},
		{Method: http.MethodGet, Pattern: "/swarm/unlockkey", Handle: s.unlockKey},
		{Method: http.MethodPost, Pattern: "/swarm/unlock", Handle: answer(fault.New(fault.Conflict, "swarm is not locked"))},
	}
}

// ofSecrets are the groups of which a swarm here has none, and can have none yet.
func (s swarm) ofSecrets() []route.Route {
	var routes []route.Route
	for _, noun := range []string{"secret", "config"} {
		group := "/" + noun + "s"
		missing := func(_ http.ResponseWriter, r *route.Request) error {
			return fault.New(fault.NotFound, "%s %s not found", noun, r.Variable())
		}
		routes = append(routes,
			route.Route{Method: http.MethodGet, Pattern: group, Handle: none},
			route.Route{Method: http.MethodPost, Pattern: group + "/create", Handle: answer(fault.New(fault.NotImplemented, "%ss of a swarm are not supported by this daemon", noun))},
			route.Route{Method: http.MethodGet, Pattern: group + "/{id}", Handle: missing},
			route.Route{Method: http.MethodDelete, Pattern: group + "/{id}", Handle: missing},
			route.Route{Method: http.MethodPost, Pattern: group + "/{id}/update", Handle: missing},
		)
	}
	return routes
}

// answer is the handler that refuses.
func answer(err error) route.Handler {
	return func(http.ResponseWriter, *route.Request) error { return err }
}

// none answers with an empty list.
func none(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	q.Filters(with(labelFilters, route.FilterKeys{"id": nil, "name": nil, "names": nil}))
	if err := q.Err(); err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, []struct{}{})
}

// led is the handler on the leader: on another manager the leader answers, on any other node nobody does.
func (s swarm) led(handle route.Handler) route.Handler {
	if s.backend == nil {
		return answer(errNoManager)
	}
	return func(w http.ResponseWriter, r *route.Request) error {
		if done, err := s.backend.Forward(w, r.Request); done || err != nil {
			return err
		}
		return handle(w, r)
	}
}

func (s swarm) init(w http.ResponseWriter, r *route.Request) error {
	var req wire.SwarmInitRequest
	if err := r.Decode(w, &req); err != nil {
		return err
	}
	if r.Version < 39 {
		req.DefaultAddrPool, req.SubnetSize = nil, 0
	}
	if r.Version < 40 {
		req.DataPathPort = 0
	}
	id, err := s.backend.InitSwarm(r.Detached(), req)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, id)
}

func (s swarm) join(w http.ResponseWriter, r *route.Request) error {
	var req wire.SwarmJoinRequest
	if err := r.Decode(w, &req); err != nil {
		return err
	}
	return s.backend.JoinSwarm(r.Detached(), req)
}

func (s swarm) leave(_ http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	force := q.Bool("force")
	if err := q.Err(); err != nil {
		return err
	}
	return s.backend.LeaveSwarm(r.Detached(), force)
}

func (s swarm) inspect(w http.ResponseWriter, r *route.Request) error {
	found, err := s.backend.InspectSwarm(r.Context())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, found)
}

func (s swarm) update(w http.ResponseWriter, r *route.Request) error {
	var spec wire.SwarmSpec
	if err := r.Decode(w, &spec); err != nil {
		return err
	}
	version, err := objectVersion(r, "swarm")
	if err != nil {
		return err
	}
	q := r.Query()
	rotate := wire.SwarmRotation{WorkerToken: q.Bool("rotateWorkerToken"), ManagerToken: q.Bool("rotateManagerToken"), ManagerUnlockKey: q.Bool("rotateManagerUnlockKey")}
	if err := q.Err(); err != nil {
		return err
	}
	return s.backend.UpdateSwarm(r.Detached(), version, spec, rotate)
}

// unlockKey answers that there is none, as of a swarm without autolock.
func (s swarm) unlockKey(w http.ResponseWriter, _ *route.Request) error {
	return route.WriteJSON(w, http.StatusOK, struct{ UnlockKey string }{})
}

// objectVersion is the version of the object that the client has seen and wants changed.
func objectVersion(r *route.Request, noun string) (uint64, error) {
	given := r.URL.Query().Get("version")
	version, err := strconv.ParseUint(given, 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "invalid %s version '%s': expected the number of Version.Index in its inspect", noun, given)
	}
	return version, nil
}

// swarmLogs streams the logs of a service's or of one task's containers. tty says that all of them have a terminal,
// so that the answer has no frames.
func swarmLogs(w http.ResponseWriter, r *route.Request, tty bool, do func(ctx context.Context, o wire.LogOptions, out io.Writer) error) error {
	q := r.Query()
	o := wire.LogOptions{
		Stdout: q.Bool("stdout"), Stderr: q.Bool("stderr"), Follow: q.Bool("follow"),
		Timestamps: q.Bool("timestamps"), Details: q.Bool("details"), Since: q.Time("since"), Tail: -1,
	}
	if tail := q.Text("tail"); tail != "" && tail != "all" {
		n, err := strconv.Atoi(tail)
		if err != nil || n < 0 {
			return &fault.Field{Field: "tail", Given: tail, Expected: `a number of lines, or "all"`}
		}
		o.Tail = n
	}
	if err := q.Err(); err != nil {
		return err
	}
	if !o.Stdout && !o.Stderr {
		return fault.New(fault.Invalid, "Bad parameters: you must choose at least one stream")
	}
	ctx, cancel := r.Stream()
	defer cancel()
	out := &logAnswer{w: w, contentType: streamType(tty, r.Version)}
	out.begin() // nothing that comes is an error of the request
	err := do(ctx, o, out)
	out.close()
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return out.fail(err, tty)
}
