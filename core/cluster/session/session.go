// Package session has the messages of the stream that each node of a swarm keeps open to the leader:
// lines of JSON both ways. Both directions say what is, not what has changed: whoever has missed a line
// is right again after the next one.
package session

import (
	"encoding/json"
	"fmt"

	"github.com/sampan-project/sampan/core/wire"
)

// Bounds of one line, in bytes.
const (
	MaxReport = 1 << 20 // from a node
	MaxWanted = 8 << 20 // from the leader
)

// Report is a line of a node. One without any field set is a sign of life.
type Report struct {
	// Addr is the node's cluster address, host:port, and Description what it says of itself: on the first line, and
	// when they change.
	Addr        string                `json:"addr,omitempty"`
	Description *wire.NodeDescription `json:"description,omitempty"`
	// Tasks are statuses by task ID: those that changed; on the first line all.
	Tasks map[string]wire.TaskStatus `json:"tasks,omitempty"`
	// Gone are tasks whose removal was wanted, and of which nothing is left.
	Gone []string `json:"gone,omitempty"`
}

// Wanted is a line of the leader: all that concerns the node.
type Wanted struct {
	Role         string           `json:"role"` // wire.RoleWorker, wire.RoleManager
	Managers     []wire.SwarmPeer `json:"managers"`
	HeartbeatSec float64          `json:"heartbeatSeconds"` // the longest time between two lines of the node
	Roots        []byte           `json:"roots,omitempty"`  // PEM of the swarm's authority
	Tasks        []Task           `json:"tasks"`
	Routes       []Route          `json:"routes"`
	// Specs are what the tasks are made of, once for all that are of one. See Pack.
	Specs []wire.TaskSpec `json:"specs,omitempty"`
}

// Pack has the tasks share their specifications, of which a node would be told hundreds of times else.
func (w *Wanted) Pack() error {
	known := map[string]int{}
	for i := range w.Tasks {
		t := &w.Tasks[i]
		text, err := json.Marshal(t.Spec)
		if err != nil {
			return err
		}
		if known[string(text)] == 0 {
			w.Specs = append(w.Specs, t.Spec)
			known[string(text)] = len(w.Specs)
		}
		t.Spec, t.SpecOf = wire.TaskSpec{}, known[string(text)]
	}
	return nil
}

// Unpack gives the tasks their specifications back, which they share from then on.
func (w *Wanted) Unpack() error {
	for i := range w.Tasks {
		t := &w.Tasks[i]
		if t.SpecOf < 1 || t.SpecOf > len(w.Specs) {
			return fmt.Errorf("task %.64s: specification %d, expected one of the %d that there are", t.ID, t.SpecOf, len(w.Specs))
		}
		t.Spec, t.SpecOf = w.Specs[t.SpecOf-1], 0
	}
	w.Specs = nil
	return nil
}

// Task is a task of the node, with what it takes to run it. Its DesiredState says what shall become of it.
type Task struct {
	wire.Task
	Service   ServiceName        `json:"service"`
	Ports     []wire.ServicePort `json:"ports,omitempty"`     // published ports of its service, of both modes
	Auth      string             `json:"auth,omitempty"`      // registry credentials, as in X-Registry-Auth
	LogDriver *wire.NamedDriver  `json:"logDriver,omitempty"` // the swarm's, for tasks that ask for none
	SpecOf    int                `json:"specOf,omitempty"`    // which of Wanted.Specs its Spec is on its way, from 1
}

// ServiceName is what a task's container shows of its service.
type ServiceName struct {
	ID     string            `json:"id"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Global bool              `json:"global,omitempty"` // its tasks are named by node and not by slot
}

// Route is a port that every node listens on, and the running tasks behind it.
type Route struct {
	Service string           `json:"service"` // ID
	Port    wire.ServicePort `json:"port"`    // of mode ingress
	Targets []Target         `json:"targets"`
}

// Target is a running task.
type Target struct {
	Task string `json:"task"`
	Node string `json:"node"`
	Addr string `json:"addr"` // host:port of its node's cluster listener
}
