package wire

import "time"

// States of a task, in the order in which they come. Those from TaskComplete on are ends.
const (
	TaskNew       = "new"
	TaskAllocated = "allocated"
	TaskPending   = "pending"
	TaskAssigned  = "assigned"
	TaskAccepted  = "accepted"
	TaskPreparing = "preparing"
	TaskReady     = "ready"
	TaskStarting  = "starting"
	TaskRunning   = "running"
	TaskComplete  = "complete"
	TaskShutdown  = "shutdown"
	TaskFailed    = "failed"
	TaskRejected  = "rejected"
	TaskRemove    = "remove"
	TaskOrphaned  = "orphaned"
)

// Task is one container of a service, as it is wanted and as it is.
type Task struct {
	ID string `json:"ID"`
	ObjectMeta
	Annotations
	Spec                TaskSpec       `json:"Spec"`
	ServiceID           string         `json:"ServiceID,omitempty"`
	Slot                int            `json:"Slot,omitempty"`
	NodeID              string         `json:"NodeID,omitempty"`
	Status              TaskStatus     `json:"Status"`
	DesiredState        string         `json:"DesiredState,omitempty"`
	NetworksAttachments []any          `json:"NetworksAttachments,omitempty"`
	GenericResources    []any          `json:"GenericResources,omitempty"`
	JobIteration        *ObjectVersion `json:"JobIteration,omitempty"`
	Volumes             []any          `json:"Volumes"`
	// Origin is what the managers keep of how the task came to be. It is not part of Docker's API.
	Origin *TaskOrigin `json:"Origin,omitempty"`
}

// TaskOrigin is how a task came to be. All of its times are of the leader's clock.
type TaskOrigin struct {
	Endpoint  *EndpointSpec `json:"Endpoint,omitempty"` // its service's, when it was made
	NotBefore time.Time     `json:"NotBefore,omitzero"` // it is not started earlier: the delay of the restart policy
	After     string        `json:"After,omitempty"`    // ID of the task that shall have ended before it starts
	Restarts  uint64        `json:"Restarts,omitempty"` // how many tasks of the same specification were before it in its place
	Update    string        `json:"Update,omitempty"`   // the update that made it
	Ran       time.Time     `json:"Ran,omitzero"`       // when it was first seen running; only for tasks of an update
	Ended     time.Time     `json:"Ended,omitzero"`     // when it was first seen ended
}

// TaskSpec is what tasks of a service are made of.
type TaskSpec struct {
	ContainerSpec         *ContainerSpec      `json:"ContainerSpec,omitempty"`
	PluginSpec            any                 `json:"PluginSpec,omitempty"`
	NetworkAttachmentSpec any                 `json:"NetworkAttachmentSpec,omitempty"`
	Resources             *TaskResources      `json:"Resources,omitempty"`
	RestartPolicy         *TaskRestart        `json:"RestartPolicy,omitempty"`
	Placement             *Placement          `json:"Placement,omitempty"`
	Networks              []NetworkAttachment `json:"Networks,omitempty"`
	LogDriver             *NamedDriver        `json:"LogDriver,omitempty"`
	ForceUpdate           uint64              `json:"ForceUpdate"`
	Runtime               string              `json:"Runtime,omitempty"` // container
}

// ContainerSpec is the container of a task. StopGracePeriod is nanoseconds.
type ContainerSpec struct {
	Image           string            `json:"Image,omitempty"`
	Labels          map[string]string `json:"Labels,omitempty"`
	Command         []string          `json:"Command,omitempty"`
	Args            []string          `json:"Args,omitempty"`
	Hostname        string            `json:"Hostname,omitempty"`
	Env             []string          `json:"Env,omitempty"`
	Dir             string            `json:"Dir,omitempty"`
	User            string            `json:"User,omitempty"`
	Groups          []string          `json:"Groups,omitempty"`
	Privileges      *Privileges       `json:"Privileges,omitempty"`
	Init            *bool             `json:"Init,omitempty"`
	StopSignal      string            `json:"StopSignal,omitempty"`
	TTY             bool              `json:"TTY,omitempty"`
	OpenStdin       bool              `json:"OpenStdin,omitempty"`
	ReadOnly        bool              `json:"ReadOnly,omitempty"`
	Mounts          []MountSpec       `json:"Mounts,omitempty"`
	StopGracePeriod *time.Duration    `json:"StopGracePeriod,omitempty"`
	Healthcheck     *Healthcheck      `json:"Healthcheck,omitempty"`
	Hosts           []string          `json:"Hosts,omitempty"` // as lines of hosts(5): "ADDRESS NAME..."
	DNSConfig       *TaskDNS          `json:"DNSConfig,omitempty"`
	Secrets         []*TaskSecret     `json:"Secrets,omitempty"`
	Configs         []*TaskConfig     `json:"Configs,omitempty"`
	Isolation       string            `json:"Isolation,omitempty"`
	Sysctls         map[string]string `json:"Sysctls,omitempty"`
	CapabilityAdd   []string          `json:"CapabilityAdd,omitempty"`
	CapabilityDrop  []string          `json:"CapabilityDrop,omitempty"`
	Ulimits         []Ulimit          `json:"Ulimits,omitempty"`
	OomScoreAdj     int64             `json:"OomScoreAdj,omitempty"`
}

// TaskDNS is the resolver of a task's container.
type TaskDNS struct {
	Nameservers []string `json:"Nameservers,omitempty"`
	Search      []string `json:"Search,omitempty"`
	Options     []string `json:"Options,omitempty"`
}

// Privileges are the security settings of a task's container.
type Privileges struct {
	CredentialSpec  any             `json:"CredentialSpec"`
	SELinuxContext  *SELinuxContext `json:"SELinuxContext"`
	Seccomp         *SeccompChoice  `json:"Seccomp,omitempty"`
	AppArmor        *AppArmorChoice `json:"AppArmor,omitempty"`
	NoNewPrivileges bool            `json:"NoNewPrivileges"`
}

// SELinuxContext is a label, or none.
type SELinuxContext struct {
	Disable                 bool
	User, Role, Type, Level string
}

// SeccompChoice is default, unconfined, or custom with a profile.
type SeccompChoice struct {
	Mode    string `json:"Mode,omitempty"`
	Profile []byte `json:"Profile,omitempty"`
}

// AppArmorChoice is default or disabled.
type AppArmorChoice struct {
	Mode string `json:"Mode,omitempty"`
}

// FileTarget is where a secret or config lies in the container. Mode is of os.FileMode.
type FileTarget struct {
	Name string `json:"Name"`
	UID  string `json:"UID"`
	GID  string `json:"GID"`
	Mode uint32 `json:"Mode"`
}

// TaskSecret is a secret that a task gets.
type TaskSecret struct {
	File       *FileTarget `json:"File,omitempty"`
	SecretID   string      `json:"SecretID"`
	SecretName string      `json:"SecretName"`
}

// TaskConfig is a config that a task gets.
type TaskConfig struct {
	File       *FileTarget `json:"File,omitempty"`
	Runtime    *struct{}   `json:"Runtime,omitempty"`
	ConfigID   string      `json:"ConfigID"`
	ConfigName string      `json:"ConfigName"`
}

// TaskResources are limits, and what must be free on a node.
type TaskResources struct {
	Limits       *TaskLimit     `json:"Limits,omitempty"`
	Reservations *NodeResources `json:"Reservations,omitempty"`
}

// TaskLimit is what a task may use at most; 0 is no limit.
type TaskLimit struct {
	NanoCPUs    int64 `json:"NanoCPUs,omitempty"`
	MemoryBytes int64 `json:"MemoryBytes,omitempty"`
	Pids        int64 `json:"Pids,omitempty"`
}

// When a task that ended is replaced.
const (
	RestartNone      = "none"
	RestartOnFailure = "on-failure"
	RestartAny       = "any"
)

// TaskRestart is the restart policy of a service. Times are nanoseconds.
type TaskRestart struct {
	Condition   string         `json:"Condition,omitempty"`
	Delay       *time.Duration `json:"Delay,omitempty"`
	MaxAttempts *uint64        `json:"MaxAttempts,omitempty"`
	Window      *time.Duration `json:"Window,omitempty"`
}

// Placement says on which nodes tasks may run.
type Placement struct {
	Constraints []string              `json:"Constraints,omitempty"` // "node.role==manager"
	Preferences []PlacementPreference `json:"Preferences,omitempty"`
	MaxReplicas uint64                `json:"MaxReplicas,omitempty"` // on one node; 0 is no limit
	Platforms   []NodePlatform        `json:"Platforms,omitempty"`
}

// PlacementPreference spreads tasks over the values of a label.
type PlacementPreference struct {
	Spread *SpreadOver `json:"Spread"`
}

// SpreadOver names what to spread over, as node.labels.datacenter.
type SpreadOver struct {
	SpreadDescriptor string `json:"SpreadDescriptor"`
}

// TaskStatus is what the task's node says of it.
type TaskStatus struct {
	Timestamp       time.Time            `json:"Timestamp"`
	State           string               `json:"State,omitempty"`
	Message         string               `json:"Message,omitempty"`
	Err             string               `json:"Err,omitempty"`
	ContainerStatus *TaskContainerStatus `json:"ContainerStatus,omitempty"`
	PortStatus      TaskPortStatus       `json:"PortStatus"`
}

// TaskContainerStatus is the task's container.
type TaskContainerStatus struct {
	ContainerID string `json:"ContainerID"`
	PID         int    `json:"PID"`
	ExitCode    int    `json:"ExitCode"`
}

// TaskPortStatus are the ports that the task's node published for it alone.
type TaskPortStatus struct {
	Ports []ServicePort `json:"Ports,omitempty"`
}
