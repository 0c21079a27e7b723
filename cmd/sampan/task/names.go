package task

import (
	"context"
	"fmt"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

// Names asks what nodes and services are called, each once. What cannot be told has its ID for a name: a list of
// tasks outlives the services and the nodes that it speaks of.
type Names struct {
	engine          *client.Client
	ids             bool // leave them as they are
	nodes, services map[string]string
}

// NewNames returns an empty memory of names; with ids it asks for none.
func NewNames(engine *client.Client, ids bool) *Names {
	return &Names{engine: engine, ids: ids, nodes: map[string]string{}, services: map[string]string{}}
}

// Node is what the user calls a node or, without that, its host's name.
func (n *Names) Node(ctx context.Context, id string) string {
	return n.resolve(n.nodes, id, func() string {
		node, err := n.engine.NodeInspect(ctx, id)
		if err != nil {
			return ""
		}
		if node.Spec.Name != "" {
			return node.Spec.Name
		}
		return node.Description.Hostname
	})
}

// Service is a service's name.
func (n *Names) Service(ctx context.Context, id string) string {
	return n.resolve(n.services, id, func() string {
		service, err := n.engine.ServiceInspect(ctx, id)
		if err != nil {
			return ""
		}
		return service.Spec.Name
	})
}

func (n *Names) resolve(known map[string]string, id string, ask func() string) string {
	if n.ids || id == "" {
		return id
	}
	if known[id] == "" {
		if known[id] = ask(); known[id] == "" {
			known[id] = id
		}
	}
	return known[id]
}

// task is a task's name: of a service with slots SERVICE.SLOT, of a global one SERVICE.NODE_ID.
func (n *Names) task(ctx context.Context, t *wire.Task) string {
	service := n.Service(ctx, t.ServiceID)
	if t.Slot != 0 {
		return fmt.Sprintf("%s.%d", service, t.Slot)
	}
	return service + "." + t.NodeID
}
