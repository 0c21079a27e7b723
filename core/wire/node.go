package wire

// Roles of a node.
const (
	RoleWorker  = "worker"
	RoleManager = "manager"
)

// What a node is there for: active takes tasks, pause takes no new ones, drain keeps none.
const (
	AvailabilityActive = "active"
	AvailabilityPause  = "pause"
	AvailabilityDrain  = "drain"
)

// States of a node, as managers see it.
const (
	NodeUnknown      = "unknown"
	NodeDown         = "down"
	NodeReady        = "ready"
	NodeDisconnected = "disconnected"
)

// Whether a manager can be reached by the others.
const (
	ReachabilityUnknown     = "unknown"
	ReachabilityUnreachable = "unreachable"
	ReachabilityReachable   = "reachable"
)

// Node is a daemon in a swarm.
type Node struct {
	ID string `json:"ID"`
	ObjectMeta
	Spec          NodeSpec        `json:"Spec"`
	Description   NodeDescription `json:"Description"`
	Status        NodeStatus      `json:"Status"`
	ManagerStatus *ManagerStatus  `json:"ManagerStatus,omitempty"`
}

// NodeSpec is what users decide of a node.
type NodeSpec struct {
	Annotations
	Role         string `json:"Role,omitempty"`
	Availability string `json:"Availability,omitempty"`
}

// NodeDescription is what a node says of itself.
type NodeDescription struct {
	Hostname  string        `json:"Hostname,omitempty"`
	Platform  NodePlatform  `json:"Platform"`
	Resources NodeResources `json:"Resources"`
	Engine    NodeEngine    `json:"Engine"`
	TLSInfo   SwarmTLSInfo  `json:"TLSInfo"`
}

// NodeResources is what a node has, or a task asks to be kept for it.
type NodeResources struct {
	NanoCPUs         int64 `json:"NanoCPUs,omitempty"`
	MemoryBytes      int64 `json:"MemoryBytes,omitempty"`
	GenericResources []any `json:"GenericResources,omitempty"`
}

// NodeEngine describes a node's daemon.
type NodeEngine struct {
	EngineVersion string            `json:"EngineVersion,omitempty"`
	Labels        map[string]string `json:"Labels,omitempty"`
	Plugins       []NodePlugin      `json:"Plugins,omitempty"`
}

// NodePlugin is a driver that a node has.
type NodePlugin struct {
	Type string `json:"Type,omitempty"`
	Name string `json:"Name,omitempty"`
}

// NodeStatus is what managers see of a node.
type NodeStatus struct {
	State   string `json:"State,omitempty"`
	Message string `json:"Message,omitempty"`
	Addr    string `json:"Addr,omitempty"` // IP address without a port
}

// ManagerStatus is there for managers only.
type ManagerStatus struct {
	Leader       bool   `json:"Leader,omitempty"`
	Reachability string `json:"Reachability,omitempty"`
	Addr         string `json:"Addr,omitempty"` // host:port
}

// NodePlatform is a machine's architecture, by the kernel's names, and operating system.
type NodePlatform struct {
	Architecture string `json:"Architecture,omitempty"`
	OS           string `json:"OS,omitempty"`
}
