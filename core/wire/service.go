package wire

import "time"

// Service is what a swarm keeps running.
type Service struct {
	ID string `json:"ID"`
	ObjectMeta
	Spec          ServiceSpec     `json:"Spec"`
	PreviousSpec  *ServiceSpec    `json:"PreviousSpec,omitempty"`
	Endpoint      ServiceEndpoint `json:"Endpoint"`
	UpdateStatus  *UpdateStatus   `json:"UpdateStatus,omitempty"`
	ServiceStatus *ServiceStatus  `json:"ServiceStatus,omitempty"` // only in lists that ask for it
	JobStatus     *JobStatus      `json:"JobStatus,omitempty"`
}

// ServiceSpec is what users decide of a service.
type ServiceSpec struct {
	Annotations
	TaskTemplate   TaskSpec            `json:"TaskTemplate"`
	Mode           ServiceMode         `json:"Mode"`
	UpdateConfig   *UpdateConfig       `json:"UpdateConfig,omitempty"`
	RollbackConfig *UpdateConfig       `json:"RollbackConfig,omitempty"`
	Networks       []NetworkAttachment `json:"Networks,omitempty"`
	EndpointSpec   *EndpointSpec       `json:"EndpointSpec,omitempty"`
}

// ServiceMode has one of its fields.
type ServiceMode struct {
	Replicated    *Replicated    `json:"Replicated,omitempty"`
	Global        *Global        `json:"Global,omitempty"`
	ReplicatedJob *ReplicatedJob `json:"ReplicatedJob,omitempty"`
	GlobalJob     *Global        `json:"GlobalJob,omitempty"`
}

// Replicated is a number of equal tasks.
type Replicated struct {
	Replicas *uint64 `json:"Replicas,omitempty"`
}

// Global is a task on each node.
type Global struct{}

// ReplicatedJob is a number of tasks that shall end well.
type ReplicatedJob struct {
	MaxConcurrent    *uint64 `json:"MaxConcurrent,omitempty"`
	TotalCompletions *uint64 `json:"TotalCompletions,omitempty"`
}

// UpdateConfig says how tasks are exchanged for new ones. Times are nanoseconds.
type UpdateConfig struct {
	Parallelism     uint64        `json:"Parallelism"` // 0: all at once
	Delay           time.Duration `json:"Delay,omitempty"`
	FailureAction   string        `json:"FailureAction,omitempty"` // pause, continue, rollback
	Monitor         time.Duration `json:"Monitor,omitempty"`
	MaxFailureRatio float32       `json:"MaxFailureRatio"`
	Order           string        `json:"Order"` // stop-first, start-first
}

// States of an update.
const (
	UpdateUpdating          = "updating"
	UpdatePaused            = "paused"
	UpdateCompleted         = "completed"
	UpdateRollbackStarted   = "rollback_started"
	UpdateRollbackPaused    = "rollback_paused"
	UpdateRollbackCompleted = "rollback_completed"
)

// UpdateStatus is how far an update is.
type UpdateStatus struct {
	State       string     `json:"State,omitempty"`
	StartedAt   *time.Time `json:"StartedAt,omitempty"`
	CompletedAt *time.Time `json:"CompletedAt,omitempty"`
	Message     string     `json:"Message,omitempty"`
}

// ServiceStatus counts a service's tasks.
type ServiceStatus struct {
	RunningTasks   uint64 `json:"RunningTasks"`
	DesiredTasks   uint64 `json:"DesiredTasks"`
	CompletedTasks uint64 `json:"CompletedTasks"`
}

// JobStatus is which run of a job is the last.
type JobStatus struct {
	JobIteration  ObjectVersion `json:"JobIteration"`
	LastExecution time.Time     `json:"LastExecution"`
}

// EndpointSpec is how a service is reached. Mode is vip or dnsrr.
type EndpointSpec struct {
	Mode  string        `json:"Mode,omitempty"`
	Ports []ServicePort `json:"Ports,omitempty"`
}

// How a service's port is published: ingress on every node, host where a task runs.
const (
	PublishIngress = "ingress"
	PublishHost    = "host"
)

// ServicePort is a published port.
type ServicePort struct {
	Name          string `json:"Name,omitempty"`
	Protocol      string `json:"Protocol,omitempty"` // tcp, udp, sctp
	TargetPort    uint32 `json:"TargetPort,omitempty"`
	PublishedPort uint32 `json:"PublishedPort,omitempty"`
	PublishMode   string `json:"PublishMode,omitempty"` // PublishIngress, PublishHost
}

// ServiceEndpoint is where a service is reached.
type ServiceEndpoint struct {
	Spec       EndpointSpec  `json:"Spec"`
	Ports      []ServicePort `json:"Ports,omitempty"`
	VirtualIPs []VirtualIP   `json:"VirtualIPs,omitempty"`
}

// VirtualIP is a service's address on a network.
type VirtualIP struct {
	NetworkID string `json:"NetworkID,omitempty"`
	Addr      string `json:"Addr,omitempty"`
}

// NetworkAttachment is a network that tasks shall be in.
type NetworkAttachment struct {
	Target     string            `json:"Target,omitempty"`
	Aliases    []string          `json:"Aliases,omitempty"`
	DriverOpts map[string]string `json:"DriverOpts,omitempty"`
}

// ServiceCreateResponse answers POST /services/create.
type ServiceCreateResponse struct {
	ID       string   `json:"ID,omitempty"`
	Warnings []string `json:"Warnings,omitempty"`
}

// ServiceUpdateResponse answers POST /services/{id}/update.
type ServiceUpdateResponse struct {
	Warnings []string `json:"Warnings"`
}

// ServiceUpdate is the query of POST /services/{id}/update.
type ServiceUpdate struct {
	Version          uint64
	RegistryAuthFrom string // spec or previous-spec
	Rollback         string // previous, or nothing
}
