package wire

import "time"

// ObjectVersion counts the changes of an object of a swarm. Who changes it says which version was seen.
type ObjectVersion struct {
	Index uint64 `json:"Index,omitempty"`
}

// ObjectMeta is what every object of a swarm has.
type ObjectMeta struct {
	Version   ObjectVersion `json:"Version"`
	CreatedAt time.Time     `json:"CreatedAt"`
	UpdatedAt time.Time     `json:"UpdatedAt"`
}

// Annotations are the name and the labels of an object of a swarm.
type Annotations struct {
	Name   string            `json:"Name,omitempty"`
	Labels map[string]string `json:"Labels"`
}

// NamedDriver is a driver and its options.
type NamedDriver struct {
	Name    string            `json:"Name,omitempty"`
	Options map[string]string `json:"Options,omitempty"`
}

// SwarmTLSInfo is the root of trust of a swarm: certificates in PEM, subject and public key in DER.
type SwarmTLSInfo struct {
	TrustRoot           string `json:"TrustRoot,omitempty"`
	CertIssuerSubject   []byte `json:"CertIssuerSubject,omitempty"`
	CertIssuerPublicKey []byte `json:"CertIssuerPublicKey,omitempty"`
}

// SwarmInfo is a swarm without its secrets.
type SwarmInfo struct {
	ID string `json:"ID"`
	ObjectMeta
	Spec                   SwarmSpec    `json:"Spec"`
	TLSInfo                SwarmTLSInfo `json:"TLSInfo"`
	RootRotationInProgress bool         `json:"RootRotationInProgress"`
	DefaultAddrPool        []string     `json:"DefaultAddrPool"`
	SubnetSize             uint32       `json:"SubnetSize"`
	DataPathPort           uint32       `json:"DataPathPort"`
}

// Swarm answers GET /swarm.
type Swarm struct {
	SwarmInfo
	JoinTokens SwarmTokens `json:"JoinTokens"`
}

// SwarmTokens are what a node has to show to join.
type SwarmTokens struct {
	Worker  string `json:"Worker"`
	Manager string `json:"Manager"`
}

// SwarmSpec is what users decide of a swarm. Times are nanoseconds.
type SwarmSpec struct {
	Annotations
	Orchestration    SwarmOrchestration `json:"Orchestration"`
	Raft             SwarmRaft          `json:"Raft"`
	Dispatcher       SwarmDispatcher    `json:"Dispatcher"`
	CAConfig         SwarmCA            `json:"CAConfig"`
	TaskDefaults     SwarmTaskDefaults  `json:"TaskDefaults"`
	EncryptionConfig SwarmEncryption    `json:"EncryptionConfig"`
}

// SwarmOrchestration says how many tasks that ended are kept for each slot.
type SwarmOrchestration struct {
	TaskHistoryRetentionLimit *int64 `json:"TaskHistoryRetentionLimit,omitempty"`
}

// SwarmRaft are the settings of the managers' log. Ticks are seconds.
type SwarmRaft struct {
	SnapshotInterval           uint64  `json:"SnapshotInterval,omitempty"`
	KeepOldSnapshots           *uint64 `json:"KeepOldSnapshots,omitempty"`
	LogEntriesForSlowFollowers uint64  `json:"LogEntriesForSlowFollowers,omitempty"`
	ElectionTick               int     `json:"ElectionTick"`
	HeartbeatTick              int     `json:"HeartbeatTick"`
}

// SwarmDispatcher says how often nodes report.
type SwarmDispatcher struct {
	HeartbeatPeriod time.Duration `json:"HeartbeatPeriod,omitempty"`
}

// SwarmCA are the settings of the certificate authority.
type SwarmCA struct {
	NodeCertExpiry time.Duration `json:"NodeCertExpiry,omitempty"`
	ExternalCAs    []any         `json:"ExternalCAs,omitempty"`
	SigningCACert  string        `json:"SigningCACert,omitempty"`
	SigningCAKey   string        `json:"SigningCAKey,omitempty"`
	ForceRotate    uint64        `json:"ForceRotate,omitempty"`
}

// SwarmTaskDefaults hold for tasks whose service says nothing else.
type SwarmTaskDefaults struct {
	LogDriver *NamedDriver `json:"LogDriver,omitempty"`
}

// SwarmEncryption says whether a manager needs a key to start.
type SwarmEncryption struct {
	AutoLockManagers bool `json:"AutoLockManagers"`
}

// SwarmInitRequest is the body of POST /swarm/init.
type SwarmInitRequest struct {
	ListenAddr       string    `json:"ListenAddr"`
	AdvertiseAddr    string    `json:"AdvertiseAddr"`
	DataPathAddr     string    `json:"DataPathAddr"`
	DataPathPort     uint32    `json:"DataPathPort"`
	ForceNewCluster  bool      `json:"ForceNewCluster"`
	Spec             SwarmSpec `json:"Spec"`
	AutoLockManagers bool      `json:"AutoLockManagers"`
	Availability     string    `json:"Availability"`
	DefaultAddrPool  []string  `json:"DefaultAddrPool"`
	SubnetSize       uint32    `json:"SubnetSize"`
}

// SwarmJoinRequest is the body of POST /swarm/join.
type SwarmJoinRequest struct {
	ListenAddr    string   `json:"ListenAddr"`
	AdvertiseAddr string   `json:"AdvertiseAddr"`
	DataPathAddr  string   `json:"DataPathAddr"`
	RemoteAddrs   []string `json:"RemoteAddrs"`
	JoinToken     string   `json:"JoinToken"`
	Availability  string   `json:"Availability"`
}

// SwarmRotation says which secrets POST /swarm/update makes anew: its query parameters.
type SwarmRotation struct {
	WorkerToken, ManagerToken, ManagerUnlockKey bool
}

// SwarmPeer is a manager as a node knows it.
type SwarmPeer struct {
	NodeID string `json:"NodeID"`
	Addr   string `json:"Addr"`
}

// The states of a daemon's own part in a swarm.
const (
	SwarmInactive = "inactive"
	SwarmPending  = "pending"
	SwarmActive   = "active"
	SwarmError    = "error"
	SwarmLocked   = "locked"
)

// InfoSwarm is a daemon's own part in a swarm, in GET /info.
type InfoSwarm struct {
	NodeID           string
	NodeAddr         string
	LocalNodeState   string // SwarmInactive, ...
	ControlAvailable bool   // it is a manager
	Error            string
	RemoteManagers   []SwarmPeer
	Nodes            int        `json:",omitempty"`
	Managers         int        `json:",omitempty"`
	Cluster          *SwarmInfo `json:",omitempty"`
	Warnings         []string   `json:",omitempty"`
}
