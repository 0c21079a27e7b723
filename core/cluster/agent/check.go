package agent

import (
	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/wire"
)

// Check says why no node would make a container of the specification: for managers, before there is such a service. Its
// templates are worked out for a task that stands for all.
func Check(spec *wire.ServiceSpec) error {
	want := session.Task{
		Task: wire.Task{
			ID: "taskid", Annotations: wire.Annotations{Name: "taskname"}, ServiceID: "serviceid", Slot: 1, NodeID: "nodeid",
			Spec: spec.TaskTemplate,
		},
		Service: session.ServiceName{ID: "serviceid", Name: "servicename", Labels: spec.Labels},
	}
	if spec.EndpointSpec != nil {
		want.Ports = spec.EndpointSpec.Ports
	}
	if err := refuse(&want); err != nil {
		return err
	}
	_, err := expand(&want, &wire.Info{Name: "nodeHostname", OSType: "os", Architecture: "architecture"})
	return err
}
