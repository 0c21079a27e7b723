package docker

import (
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

type execs struct{ backend Containers }

func (e execs) routes() []route.Route {
	return []route.Route{
		{Method: http.MethodPost, Pattern: "/containers/{name}/exec", Handle: e.create},
		{Method: http.MethodPost, Pattern: "/exec/{id}/start", Handle: e.start},
		{Method: http.MethodPost, Pattern: "/exec/{id}/resize", Handle: e.resize},
		{Method: http.MethodGet, Pattern: "/exec/{id}/json", Handle: e.inspect},
	}
}

func (e execs) create(w http.ResponseWriter, r *route.Request) error {
	var body struct {
		wire.ExecConfig
		Cmd words
	}
	if err := r.Decode(w, &body); err != nil {
		return err
	}
	config := body.ExecConfig
	config.Cmd = body.Cmd
	if len(config.Cmd) == 0 {
		return fault.New(fault.Invalid, "No exec command specified")
	}
	if _, err := detachKeys(config.DetachKeys); err != nil {
		return err
	}
	if r.Version < 42 {
		config.ConsoleSize = nil
	}
	id, err := e.backend.ExecCreate(r.Detached(), r.Variable(), config)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusCreated, wire.ID{ID: id})
}

// start runs the command. That it cannot be run is told in the stream, as output, with an exit code
// in inspect: so the client exits with 126 or 127 as if the command had said it itself. What is
// wrong with the request or the container is an answer with a status.
func (e execs) start(w http.ResponseWriter, r *route.Request) error {
	var body wire.ExecStart
	if err := r.Decode(w, &body); err != nil {
		return err
	}
	exec, err := e.backend.ExecInspect(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	if r.Version < 42 || !body.Tty {
		body.ConsoleSize = nil
	}
	tty := exec.ProcessConfig.Tty
	s, err := e.backend.ExecStart(r.Detached(), r.Variable(), body)
	switch {
	case body.Detach && s != nil: // nobody will read it
		s.Close()
		return err
	case body.Detach:
		return err
	case err != nil && !fault.Is(err, fault.Invalid):
		return err
	case err == nil && s == nil:
		return fault.New(fault.Internal, "exec %s has no stream", r.Variable())
	}
	talk, hijackErr := hijack(w, r, streamType(tty, r.Version))
	switch {
	case hijackErr != nil:
		if s != nil {
			s.Close()
		}
		return hijackErr
	case err != nil:
		talk.fail(err, tty)
		return nil
	}
	talk.stdin = exec.OpenStdin
	if tty {
		// They were checked when the exec was made.
		talk.keys, _ = detachKeys(exec.DetachKeys)
	}
	talk.run(s, r.Stopping)
	return nil
}

func (e execs) resize(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	height, width := q.Cells("h", "height"), q.Cells("w", "width")
	if err := q.Err(); err != nil {
		return err
	}
	return e.backend.ExecResize(r.Context(), r.Variable(), height, width)
}

func (e execs) inspect(w http.ResponseWriter, r *route.Request) error {
	answer, err := e.backend.ExecInspect(r.Context(), r.Variable())
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, answer)
}
