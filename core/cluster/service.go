package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/sampan-project/sampan/core/cluster/agent"
	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/orchestrator"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/container/name"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func serviceID(s *wire.Service) string { return s.ID }

func serviceName(s *wire.Service) string { return s.Spec.Name }

func (s *seat) service(r store.Reader, ref string) (*wire.Service, error) {
	return find("service", ref, r.Services(), serviceID, serviceName)
}

// Services lists the services that pass the filters.
func (m *Manager) Services(_ context.Context, filters map[string][]string, status bool) ([]wire.Service, error) {
	s, err := m.leading()
	if err != nil {
		return nil, err
	}
	r := s.store.Reader()
	var list []wire.Service
	for _, service := range r.Services() {
		if !anyPrefix(service.ID, filters["id"]) || !anyPrefix(service.Spec.Name, filters["name"]) ||
			!anyOf(mode(service), filters["mode"]) || !hasLabels(service.Spec.Labels, filters["label"]) ||
			!anyOf("container", filters["runtime"]) {
			continue
		}
		shown := *service
		if status {
			count := orchestrator.Status(r, service)
			shown.ServiceStatus = &count
		}
		list = append(list, shown)
	}
	return list, nil
}

// mode is the word of the filter.
func mode(s *wire.Service) string {
	switch m := s.Spec.Mode; {
	case m.Global != nil:
		return "global"
	case m.ReplicatedJob != nil:
		return "replicated-job"
	case m.GlobalJob != nil:
		return "global-job"
	}
	return "replicated"
}

// Service is one service.
func (m *Manager) Service(_ context.Context, ref string, defaults bool) (wire.Service, error) {
	s, err := m.leading()
	if err != nil {
		return wire.Service{}, err
	}
	found, err := s.service(s.store.Reader(), ref)
	if err != nil {
		return wire.Service{}, err
	}
	shown := *found
	if defaults {
		shown.Spec = orchestrator.Defaults(shown.Spec)
	}
	return shown, nil
}

// CreateService makes a service. That its tasks run is waited for by whoever wants to.
func (m *Manager) CreateService(ctx context.Context, spec wire.ServiceSpec, auth string, pin bool) (wire.ServiceCreateResponse, error) {
	s, err := m.leading()
	if err != nil {
		return wire.ServiceCreateResponse{}, err
	}
	if err := checkAuth(auth); err != nil {
		return wire.ServiceCreateResponse{}, err
	}
	made := wire.ServiceCreateResponse{ID: identity.NewID()}
	spec, made.Warnings = m.pinned(ctx, spec, auth, pin)
	err = s.update(ctx, func(w store.Writer) error {
		if spec.Name == "" {
			spec.Name = name.Generate(func(n string) bool { return w.ServiceNamed(n) != nil })
		}
		service, err := orchestrator.Create(w, made.ID, spec, time.Now())
		if err == nil {
			err = agent.Check(&service.Spec)
		}
		if err != nil {
			return err
		}
		if auth != "" {
			w.PutAuth(made.ID, auth)
		}
		return nil
	})
	if err != nil {
		return wire.ServiceCreateResponse{}, err
	}
	return made, nil
}

// UpdateService gives a service another specification, or its previous one. The credentials for its registry are one
// for both.
func (m *Manager) UpdateService(ctx context.Context, ref string, spec wire.ServiceSpec, how wire.ServiceUpdate, auth string, pin bool) (wire.ServiceUpdateResponse, error) {
	s, err := m.leading()
	if err != nil {
		return wire.ServiceUpdateResponse{}, err
	}
	if err := checkAuth(auth); err != nil {
		return wire.ServiceUpdateResponse{}, err
	}
	old, err := s.service(s.store.Reader(), ref)
	if err != nil {
		return wire.ServiceUpdateResponse{}, err
	}
	use := auth
	if use == "" {
		use = s.store.Reader().Auth(old.ID)
	}
	var answer wire.ServiceUpdateResponse
	spec, answer.Warnings = m.pinned(ctx, spec, use, pin)
	err = s.update(ctx, func(w store.Writer) error {
		now := w.Service(old.ID)
		if now == nil {
			return fault.New(fault.NotFound, "service %s not found", ref)
		}
		if err := outOfSequence(how.Version, now.Version.Index); err != nil {
			return err
		}
		if how.RegistryAuthFrom == "previous-spec" && auth == "" && now.PreviousSpec == nil {
			return fault.New(fault.Invalid, "service does not have a previous spec")
		}
		if how.Rollback == "previous" {
			_, err = orchestrator.Revert(w, now.ID, how.Version, time.Now())
		} else {
			now, err = orchestrator.Change(w, now.ID, how.Version, spec, time.Now())
			if err == nil {
				err = agent.Check(&now.Spec)
			}
		}
		if err == nil && auth != "" {
			w.PutAuth(old.ID, auth)
		}
		return err
	})
	return answer, err
}

// checkAuth bounds a login that all managers keep, and nodes are sent.
func checkAuth(auth string) error {
	if len(auth) > agent.MaxAuth {
		return &fault.Field{Field: "X-Registry-Auth", Given: fmt.Sprintf("%d bytes", len(auth)), Expected: fmt.Sprintf("at most %d bytes", agent.MaxAuth)}
	}
	return nil
}

// RemoveService removes a service; its tasks follow.
func (m *Manager) RemoveService(ctx context.Context, ref string) error {
	s, err := m.leading()
	if err != nil {
		return err
	}
	return s.update(ctx, func(w store.Writer) error {
		found, err := s.service(w, ref)
		if err != nil {
			return err
		}
		w.DeleteService(found.ID)
		return nil
	})
}

// pinned is the spec with the digest of its image, for clients that do not look it up themselves.
func (m *Manager) pinned(ctx context.Context, spec wire.ServiceSpec, auth string, pin bool) (wire.ServiceSpec, []string) {
	c := spec.TaskTemplate.ContainerSpec
	if !pin || m.o.Digest == nil || c == nil || c.Image == "" {
		return spec, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	image, err := m.o.Digest(ctx, c.Image, auth)
	if err != nil {
		m.log.Info("pin a service's image by its digest", "image", c.Image, "error", err)
		return spec, []string{fmt.Sprintf("image %s could not be accessed on a registry to record\nits digest. Each node will access %s independently,\npossibly leading to different nodes running different\nversions of the image.\n", c.Image, c.Image)}
	}
	pinned := *c
	pinned.Image = image
	spec.TaskTemplate.ContainerSpec = &pinned
	return spec, nil
}

// upToDate reports whether the task is of its service's present specification.
func upToDate(service *wire.Service, t *wire.Task) bool {
	if service == nil {
		return false
	}
	made := wire.ServiceSpec{TaskTemplate: t.Spec}
	if t.Origin != nil {
		made.EndpointSpec = t.Origin.Endpoint
	}
	if service.JobStatus != nil && (t.JobIteration == nil || *t.JobIteration != service.JobStatus.JobIteration) {
		return false
	}
	return !orchestrator.NeedsNewTask(&made, &service.Spec)
}
