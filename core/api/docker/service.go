package docker

import (
	"context"
	"io"
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Services are what a swarm keeps running. A service is named by its ID, its name, or the beginning of its ID.
type Services interface {
	// Services lists them, with status with the number of their tasks.
	Services(ctx context.Context, filters map[string][]string, status bool) ([]wire.Service, error)
	// Service is one of them, with defaults for what its spec leaves open.
	Service(ctx context.Context, ref string, defaults bool) (wire.Service, error)
	// CreateService makes one. auth is X-Registry-Auth as it came; pin says that the daemon looks up the digest of
	// the image, as clients before v1.30 do not.
	CreateService(ctx context.Context, spec wire.ServiceSpec, auth string, pin bool) (wire.ServiceCreateResponse, error)
	UpdateService(ctx context.Context, ref string, spec wire.ServiceSpec, how wire.ServiceUpdate, auth string, pin bool) (wire.ServiceUpdateResponse, error)
	RemoveService(ctx context.Context, ref string) error
	// ServiceLogs writes the logs of its tasks in frames, or without frames when its tasks have a terminal.
	ServiceLogs(ctx context.Context, ref string, o wire.LogOptions, w io.Writer) error
}

func (s swarm) ofServices() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/services", Handle: s.services},
		{Method: http.MethodGet, Pattern: "/services/{id}", Handle: s.service},
		{Method: http.MethodPost, Pattern: "/services/create", Handle: s.createService},
		{Method: http.MethodPost, Pattern: "/services/{id}/update", Handle: s.updateService},
		{Method: http.MethodDelete, Pattern: "/services/{id}", Handle: s.removeService},
		{Method: http.MethodGet, Pattern: "/services/{id}/logs", Handle: s.serviceLogs},
	}
}

var serviceFilters = with(labelFilters, route.FilterKeys{
	"id": nil, "name": nil, "mode": nil, "runtime": nil,
})

func (s swarm) services(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	filters, status := q.Filters(serviceFilters), q.Bool("status") && r.Version >= 41
	if err := q.Err(); err != nil {
		return err
	}
	list, err := s.backend.Services(r.Context(), filters, status)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, orEmpty(list))
}

func (s swarm) service(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	defaults := q.Bool("insertDefaults")
	if err := q.Err(); err != nil {
		return err
	}
	found, err := s.backend.Service(r.Context(), r.Variable(), defaults)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, found)
}

func (s swarm) createService(w http.ResponseWriter, r *route.Request) error {
	var spec wire.ServiceSpec
	if err := r.Decode(w, &spec); err != nil {
		return err
	}
	shapeServiceSpec(&spec, r.Version)
	made, err := s.backend.CreateService(r.Detached(), spec, r.Header.Get("X-Registry-Auth"), r.Version < 30)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusCreated, made)
}

func (s swarm) updateService(w http.ResponseWriter, r *route.Request) error {
	var spec wire.ServiceSpec
	if err := r.Decode(w, &spec); err != nil {
		return err
	}
	version, err := objectVersion(r, "service")
	if err != nil {
		return err
	}
	q := r.Query()
	how := wire.ServiceUpdate{Version: version, RegistryAuthFrom: q.Text("registryAuthFrom"), Rollback: q.Text("rollback")}
	switch how.RegistryAuthFrom {
	case "", "spec", "previous-spec":
	default:
		return fault.New(fault.Invalid, "invalid registryAuthFrom '%s': expected spec or previous-spec", how.RegistryAuthFrom)
	}
	switch how.Rollback {
	case "", "none", "previous":
	default:
		return fault.New(fault.Invalid, "unrecognized rollback option %s: expected previous or none", how.Rollback)
	}
	shapeServiceSpec(&spec, r.Version)
	answer, err := s.backend.UpdateService(r.Detached(), r.Variable(), spec, how, r.Header.Get("X-Registry-Auth"), r.Version < 30)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, answer)
}

func (s swarm) removeService(_ http.ResponseWriter, r *route.Request) error {
	return s.backend.RemoveService(r.Detached(), r.Variable())
}

func (s swarm) serviceLogs(w http.ResponseWriter, r *route.Request) error {
	found, err := s.backend.Service(r.Context(), r.Variable(), false)
	if err != nil {
		return err
	}
	tty := found.Spec.TaskTemplate.ContainerSpec != nil && found.Spec.TaskTemplate.ContainerSpec.TTY
	return swarmLogs(w, r, tty, func(ctx context.Context, o wire.LogOptions, out io.Writer) error {
		return s.backend.ServiceLogs(ctx, found.ID, o, out)
	})
}

// shapeServiceSpec takes out what the client's version does not know, by the API's change log.
func shapeServiceSpec(spec *wire.ServiceSpec, v route.Version) {
	t, c := &spec.TaskTemplate, spec.TaskTemplate.ContainerSpec
	if c == nil {
		c = &wire.ContainerSpec{}
	}
	if v < 46 {
		c.OomScoreAdj = 0
	}
	if v < 44 {
		if c.Privileges != nil {
			c.Privileges.Seccomp, c.Privileges.AppArmor, c.Privileges.NoNewPrivileges = nil, nil, false
		}
		if c.Healthcheck != nil {
			c.Healthcheck.StartInterval = 0
		}
		if len(t.Networks) == 0 {
			t.Networks = spec.Networks
		}
	}
	spec.Networks = nil // it moved to the task's
	if v < 41 {
		c.CapabilityAdd, c.CapabilityDrop, c.Ulimits = nil, nil, nil
		if t.Resources != nil && t.Resources.Limits != nil {
			t.Resources.Limits.Pids = 0
		}
		spec.Mode.ReplicatedJob, spec.Mode.GlobalJob = nil, nil
	}
	if v < 40 {
		c.Sysctls = nil
		if t.Placement != nil {
			t.Placement.MaxReplicas = 0
		}
	}
}
