// Package store keeps what the managers of a swarm agree on: the swarm itself, its nodes, services and
// tasks. Every manager has all of it in memory and on its disk; one of them, the leader, changes it.
//
//	reading    Reader: one moment of the state, which does not change any more. Any manager can read; only the
//	           leader is sure to have the newest (Store.Barrier)
//	changing   Store.Update: a function that sees the newest state and puts what shall become of it. All of it
//	           comes to be at once on every manager, or nothing does
//	watching   Store.Changed: a channel that is closed at the next change of the state or of the leadership
//	managers   Store.Bootstrap, AddManager, RemoveManager, StepDown, Managers; Recover
//
// Objects are immutable once they are put: who wants to change one puts a changed copy, and copies whatever
// it changes in depth. Memory is the same tables without managers and without a disk, for tests.
//
// Below is Raft (github.com/hashicorp/raft) with its log in one bbolt file and its snapshots beside it. The
// package knows no network: it is given a raft.StreamLayer. Its files:
//
//	state.go, table.go   the tables: persistent trees, so that a Reader costs nothing
//	change.go            one change as a log entry, made by the leader, applied by every manager
//	snapshot.go          the whole state as lines of JSON
//	machine.go           the tables as Raft's state machine
//	raft.go              the Store: a running Raft, its beginning and its end
//	update.go            changes, and what is known of them when the leadership ends
//	manager.go           who is in it
//	log.go               Raft's log and its few values, in bbolt
//	transport.go         Raft's messages over the layer
package store

import (
	"slices"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Bounds. An object that is put is at most MaxObject bytes of JSON, and one Update at most MaxChange in sum.
const (
	MaxObject = 2 << 20
	MaxChange = 8 << 20
)

// ErrNotLeader answers who asks a manager for what the leader alone can do. Nothing was changed.
var ErrNotLeader = fault.New(fault.Unavailable, "this manager is not the leader of the swarm")

// ErrUncertain is that the leadership, the store or the caller's context ended while a change was on its way to the
// other managers. Whether it comes to be is decided by the next leader: nobody knows before its Barrier. It is whole
// or not at all, and it does not come to be any more once a later Update has succeeded.
var ErrUncertain = fault.New(fault.Unavailable, "the swarm's leader changed while the change was on its way: it may have come to be or not")

// Reader is one moment of the state. What it returns must not be changed: it is shared by all readers.
// A thing that is not there is nil. Lists are ordered by CreatedAt, then by ID.
type Reader interface {
	// Index counts the changes of the state; it grows with each.
	Index() uint64
	Cluster() *Cluster
	Node(id string) *wire.Node
	Nodes() []*wire.Node
	Service(id string) *wire.Service
	Services() []*wire.Service
	ServiceNamed(name string) *wire.Service
	Task(id string) *wire.Task
	Tasks() []*wire.Task
	TasksOf(serviceID string) []*wire.Task
	TasksOn(nodeID string) []*wire.Task // of "": those that have no node yet
	Auth(serviceID string) string       // the X-Registry-Auth that came with the service
}

// Writer is the newest state and the changes that an Update makes to it, which its reading methods show at
// once. What is put belongs to the store from then on.
//
// Of each put object the store sets CreatedAt, when it is zero, to the time of the Update; and when the
// change comes to be UpdatedAt to that time, and Version.Index to the change's index. Until then Version and
// UpdatedAt are those from before the Update, whatever the object that was put had in them. An object that is put as it
// already is makes no change.
type Writer interface {
	Reader
	PutCluster(*Cluster)
	PutNode(*wire.Node)
	DeleteNode(id string)
	PutService(*wire.Service)
	DeleteService(id string) // and its Auth, not its tasks
	PutTask(*wire.Task)
	DeleteTask(id string)
	PutAuth(serviceID, auth string) // "" removes it
	// Full says that the change has become half as large as one may be: who has much to change goes on in the
	// next Update.
	Full() bool
}

// Cluster is the swarm, with what must never leave the managers.
type Cluster struct {
	wire.SwarmInfo
	RootCert     []byte   `json:"RootCert,omitempty"` // PEM
	RootKey      []byte   `json:"RootKey,omitempty"`  // PEM
	WorkerToken  string   `json:"WorkerToken,omitempty"`
	ManagerToken string   `json:"ManagerToken,omitempty"`
	Removed      []Former `json:"Removed,omitempty"` // nodes that may not come back
	// LongestCert is the most that NodeCertExpiry has ever been: the certificates of that time may still be good.
	LongestCert time.Duration `json:"LongestCert,omitempty"`
}

// Former is a node that was removed, for as long as it may have a certificate.
type Former struct {
	ID    string    `json:"ID"`
	Until time.Time `json:"Until"`
}

// HasRemoved reports whether a node was removed and may have a certificate.
func (c *Cluster) HasRemoved(id string) bool {
	return slices.ContainsFunc(c.Removed, func(f Former) bool { return f.ID == id })
}
