package wire

// ContainerConfig is the portable part of a container's configuration ("Config").
type ContainerConfig struct {
	Hostname        string              `json:"Hostname"`
	Domainname      string              `json:"Domainname"`
	User            string              `json:"User"`
	AttachStdin     bool                `json:"AttachStdin"`
	AttachStdout    bool                `json:"AttachStdout"`
	AttachStderr    bool                `json:"AttachStderr"`
	ExposedPorts    map[string]struct{} `json:"ExposedPorts,omitempty"` // "80/tcp"
	Tty             bool                `json:"Tty"`
	OpenStdin       bool                `json:"OpenStdin"`
	StdinOnce       bool                `json:"StdinOnce"`
	Env             []string            `json:"Env"`
	Cmd             []string            `json:"Cmd"`
	Healthcheck     *Healthcheck        `json:"Healthcheck,omitempty"`
	Image           string              `json:"Image"`
	Volumes         map[string]struct{} `json:"Volumes"`
	WorkingDir      string              `json:"WorkingDir"`
	Entrypoint      []string            `json:"Entrypoint"`
	NetworkDisabled bool                `json:"NetworkDisabled,omitempty"`
	MacAddress      string              `json:"MacAddress,omitempty"`
	OnBuild         []string            `json:"OnBuild"`
	Labels          map[string]string   `json:"Labels"`
	StopSignal      string              `json:"StopSignal,omitempty"`
	StopTimeout     *int                `json:"StopTimeout,omitempty"` // seconds
	Shell           []string            `json:"Shell,omitempty"`
}

// Healthcheck is a container's health probe; times are nanoseconds.
type Healthcheck struct {
	Test          []string `json:"Test,omitempty"`
	Interval      int64    `json:"Interval,omitempty"`
	Timeout       int64    `json:"Timeout,omitempty"`
	StartPeriod   int64    `json:"StartPeriod,omitempty"`
	StartInterval int64    `json:"StartInterval,omitempty"`
	Retries       int      `json:"Retries,omitempty"`
	// OnFailure is what happens to a container that has become unhealthy: none, restart, stop or kill; "" is
	// none. Docker's engine has no such thing.
	OnFailure string `json:"OnFailure,omitempty"`
}

// HostConfig is the part of a container's configuration that concerns this host.
type HostConfig struct {
	Binds           []string                 `json:"Binds"`
	ContainerIDFile string                   `json:"ContainerIDFile"`
	LogConfig       LogConfig                `json:"LogConfig"`
	NetworkMode     string                   `json:"NetworkMode"`
	PortBindings    map[string][]PortBinding `json:"PortBindings"`
	RestartPolicy   RestartPolicy            `json:"RestartPolicy"`
	AutoRemove      bool                     `json:"AutoRemove"`
	VolumeDriver    string                   `json:"VolumeDriver"`
	VolumesFrom     []string                 `json:"VolumesFrom"`
	Mounts          []MountSpec              `json:"Mounts,omitempty"`
	ConsoleSize     [2]uint                  `json:"ConsoleSize"` // height, width
	Annotations     map[string]string        `json:"Annotations,omitempty"`
	CapAdd          []string                 `json:"CapAdd"`
	CapDrop         []string                 `json:"CapDrop"`
	CgroupnsMode    string                   `json:"CgroupnsMode"`
	DNS             []string                 `json:"Dns"`
	DNSOptions      []string                 `json:"DnsOptions"`
	DNSSearch       []string                 `json:"DnsSearch"`
	ExtraHosts      []string                 `json:"ExtraHosts"`
	GroupAdd        []string                 `json:"GroupAdd"`
	IpcMode         string                   `json:"IpcMode"`
	Cgroup          string                   `json:"Cgroup"`
	Links           []string                 `json:"Links"`
	OomScoreAdj     int                      `json:"OomScoreAdj"`
	PidMode         string                   `json:"PidMode"`
	Privileged      bool                     `json:"Privileged"`
	PublishAllPorts bool                     `json:"PublishAllPorts"`
	ReadonlyRootfs  bool                     `json:"ReadonlyRootfs"`
	SecurityOpt     []string                 `json:"SecurityOpt"`
	StorageOpt      map[string]string        `json:"StorageOpt,omitempty"`
	Tmpfs           map[string]string        `json:"Tmpfs,omitempty"`
	UTSMode         string                   `json:"UTSMode"`
	UsernsMode      string                   `json:"UsernsMode"`
	ShmSize         int64                    `json:"ShmSize"` // bytes
	Sysctls         map[string]string        `json:"Sysctls,omitempty"`
	Runtime         string                   `json:"Runtime"`
	Isolation       string                   `json:"Isolation"`
	Init            *bool                    `json:"Init,omitempty"`
	Resources
	MaskedPaths   []string `json:"MaskedPaths"`
	ReadonlyPaths []string `json:"ReadonlyPaths"`
}

// Resources are a container's limits; memory in bytes, CPU quota and period in microseconds.
type Resources struct {
	CPUShares            int64            `json:"CpuShares"`
	Memory               int64            `json:"Memory"`
	NanoCPUs             int64            `json:"NanoCpus"` // 1e9 is one CPU
	CgroupParent         string           `json:"CgroupParent"`
	BlkioWeight          uint16           `json:"BlkioWeight"`
	BlkioWeightDevice    []WeightDevice   `json:"BlkioWeightDevice"`
	BlkioDeviceReadBps   []ThrottleDevice `json:"BlkioDeviceReadBps"`
	BlkioDeviceWriteBps  []ThrottleDevice `json:"BlkioDeviceWriteBps"`
	BlkioDeviceReadIOps  []ThrottleDevice `json:"BlkioDeviceReadIOps"`
	BlkioDeviceWriteIOps []ThrottleDevice `json:"BlkioDeviceWriteIOps"`
	CPUPeriod            int64            `json:"CpuPeriod"`
	CPUQuota             int64            `json:"CpuQuota"`
	CPURealtimePeriod    int64            `json:"CpuRealtimePeriod"`
	CPURealtimeRuntime   int64            `json:"CpuRealtimeRuntime"`
	CpusetCpus           string           `json:"CpusetCpus"`
	CpusetMems           string           `json:"CpusetMems"`
	Devices              []DeviceMapping  `json:"Devices"`
	DeviceCgroupRules    []string         `json:"DeviceCgroupRules"`
	DeviceRequests       []DeviceRequest  `json:"DeviceRequests"`
	MemoryReservation    int64            `json:"MemoryReservation"`
	MemorySwap           int64            `json:"MemorySwap"`
	MemorySwappiness     *int64           `json:"MemorySwappiness"`
	OomKillDisable       *bool            `json:"OomKillDisable"`
	PidsLimit            *int64           `json:"PidsLimit"`
	Ulimits              []Ulimit         `json:"Ulimits"`
	CPUCount             int64            `json:"CpuCount"`
	CPUPercent           int64            `json:"CpuPercent"`
	IOMaximumIOps        uint64           `json:"IOMaximumIOps"`
	IOMaximumBandwidth   uint64           `json:"IOMaximumBandwidth"`
}

// WeightDevice is a block device's share.
type WeightDevice struct {
	Path   string
	Weight uint16
}

// ThrottleDevice is a block device's rate limit.
type ThrottleDevice struct {
	Path string
	Rate uint64
}

// DeviceMapping puts a host device into the container.
type DeviceMapping struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

// DeviceRequest asks a device driver (GPUs) for devices.
type DeviceRequest struct {
	Driver       string
	Count        int
	DeviceIDs    []string
	Capabilities [][]string
	Options      map[string]string
}

// UlimitNames are the resources of getrlimit(2) in ulimit's spelling.
var UlimitNames = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile",
	"nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

// Ulimit is one resource limit.
type Ulimit struct {
	Name string
	Hard int64
	Soft int64
}

// LogConfig names the logging driver and its options.
type LogConfig struct {
	Type   string            `json:"Type"`
	Config map[string]string `json:"Config"`
}

// PortBinding is the host's side of a published port; HostPort "" means any free one.
type PortBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string `json:"HostPort"`
}

// RestartPolicy is "no", "always", "unless-stopped" or "on-failure" with a count.
type RestartPolicy struct {
	Name              string
	MaximumRetryCount int
}

// MountSpec is one --mount.
type MountSpec struct {
	Type          string              `json:"Type,omitempty"` // bind, volume, tmpfs, image
	Source        string              `json:"Source,omitempty"`
	Target        string              `json:"Target,omitempty"`
	ReadOnly      bool                `json:"ReadOnly,omitempty"`
	Consistency   string              `json:"Consistency,omitempty"`
	BindOptions   *MountBindOptions   `json:"BindOptions,omitempty"`
	VolumeOptions *MountVolumeOptions `json:"VolumeOptions,omitempty"`
	ImageOptions  *MountImageOptions  `json:"ImageOptions,omitempty"`
	TmpfsOptions  *MountTmpfsOptions  `json:"TmpfsOptions,omitempty"`
}

// MountBindOptions are the options of a bind mount.
type MountBindOptions struct {
	Propagation            string `json:"Propagation,omitempty"`
	NonRecursive           bool   `json:"NonRecursive,omitempty"`
	CreateMountpoint       bool   `json:"CreateMountpoint,omitempty"`
	ReadOnlyNonRecursive   bool   `json:"ReadOnlyNonRecursive,omitempty"`
	ReadOnlyForceRecursive bool   `json:"ReadOnlyForceRecursive,omitempty"`
}

// MountVolumeOptions are the options of a volume mount.
type MountVolumeOptions struct {
	NoCopy       bool              `json:"NoCopy,omitempty"`
	Labels       map[string]string `json:"Labels,omitempty"`
	Subpath      string            `json:"Subpath,omitempty"`
	DriverConfig *VolumeDriver     `json:"DriverConfig,omitempty"`
}

// MountImageOptions are the options of a mount of an image.
type MountImageOptions struct {
	Subpath string `json:"Subpath,omitempty"`
}

// VolumeDriver names a volume driver and its options.
type VolumeDriver struct {
	Name    string            `json:"Name,omitempty"`
	Options map[string]string `json:"Options,omitempty"`
}

// MountTmpfsOptions are the options of a tmpfs mount.
type MountTmpfsOptions struct {
	SizeBytes int64      `json:"SizeBytes,omitempty"`
	Mode      uint32     `json:"Mode,omitempty"`
	Options   [][]string `json:"Options,omitempty"`
}

// ContainerCreateRequest is the body of POST /containers/create.
type ContainerCreateRequest struct {
	ContainerConfig
	HostConfig       *HostConfig       `json:"HostConfig,omitempty"`
	NetworkingConfig *NetworkingConfig `json:"NetworkingConfig,omitempty"`
}

// NetworkingConfig lists the networks to join, by name.
type NetworkingConfig struct {
	EndpointsConfig map[string]*EndpointSettings `json:"EndpointsConfig"`
}

// ContainerCreateResponse answers POST /containers/create.
type ContainerCreateResponse struct {
	ID       string   `json:"Id"`
	Warnings []string `json:"Warnings"`
}

// ContainerSummary is one row of GET /containers/json.
type ContainerSummary struct {
	ID         string            `json:"Id"`
	Names      []string          `json:"Names"`
	Image      string            `json:"Image"`
	ImageID    string            `json:"ImageID"`
	Command    string            `json:"Command"`
	Created    int64             `json:"Created"` // seconds since 1970
	Ports      []Port            `json:"Ports"`
	SizeRw     int64             `json:"SizeRw,omitempty"`
	SizeRootFs int64             `json:"SizeRootFs,omitempty"`
	Labels     map[string]string `json:"Labels"`
	State      string            `json:"State"`
	Status     string            `json:"Status"`
	HostConfig struct {
		NetworkMode string            `json:"NetworkMode,omitempty"`
		Annotations map[string]string `json:"Annotations,omitempty"`
	} `json:"HostConfig"`
	NetworkSettings *SummaryNetworkSettings `json:"NetworkSettings"`
	Mounts          []MountPoint            `json:"Mounts"`
}

// SummaryNetworkSettings is the network part of a ContainerSummary.
type SummaryNetworkSettings struct {
	Networks map[string]*EndpointSettings `json:"Networks"`
}

// Port is one exposed or published port of a summary.
type Port struct {
	IP          string `json:"IP,omitempty"`
	PrivatePort uint16 `json:"PrivatePort"`
	PublicPort  uint16 `json:"PublicPort,omitempty"`
	Type        string `json:"Type"`
}

// ContainerInspect answers GET /containers/{id}/json.
type ContainerInspect struct {
	ID              string           `json:"Id"`
	Created         string           `json:"Created"` // RFC 3339 with nanoseconds
	Path            string           `json:"Path"`
	Args            []string         `json:"Args"`
	State           *ContainerState  `json:"State"`
	Image           string           `json:"Image"`
	ResolvConfPath  string           `json:"ResolvConfPath"`
	HostnamePath    string           `json:"HostnamePath"`
	HostsPath       string           `json:"HostsPath"`
	LogPath         string           `json:"LogPath"`
	Name            string           `json:"Name"` // with a leading slash
	RestartCount    int              `json:"RestartCount"`
	Driver          string           `json:"Driver"`
	Platform        string           `json:"Platform"`
	MountLabel      string           `json:"MountLabel"`
	ProcessLabel    string           `json:"ProcessLabel"`
	AppArmorProfile string           `json:"AppArmorProfile"`
	ExecIDs         []string         `json:"ExecIDs"`
	HostConfig      *HostConfig      `json:"HostConfig"`
	GraphDriver     GraphDriver      `json:"GraphDriver"`
	SizeRw          *int64           `json:"SizeRw,omitempty"`
	SizeRootFs      *int64           `json:"SizeRootFs,omitempty"`
	Mounts          []MountPoint     `json:"Mounts"`
	Config          *ContainerConfig `json:"Config"`
	NetworkSettings *NetworkSettings `json:"NetworkSettings"`
}

// ContainerState is what a container is doing; times are RFC 3339 with nanoseconds.
type ContainerState struct {
	Status     string       `json:"Status"` // created running paused restarting removing exited dead
	Running    bool         `json:"Running"`
	Paused     bool         `json:"Paused"`
	Restarting bool         `json:"Restarting"`
	OOMKilled  bool         `json:"OOMKilled"`
	Dead       bool         `json:"Dead"`
	Pid        int          `json:"Pid"`
	ExitCode   int          `json:"ExitCode"`
	Error      string       `json:"Error"`
	StartedAt  string       `json:"StartedAt"`
	FinishedAt string       `json:"FinishedAt"`
	Health     *HealthState `json:"Health,omitempty"`
}

// HealthState is the result of the health probe.
type HealthState struct {
	Status        string         `json:"Status"` // starting healthy unhealthy
	FailingStreak int            `json:"FailingStreak"`
	Log           []HealthResult `json:"Log"`
}

// HealthResult is one run of the health probe.
type HealthResult struct {
	Start    string
	End      string
	ExitCode int
	Output   string
}

// GraphDriver says where a root filesystem is kept on the host.
type GraphDriver struct {
	Data map[string]string `json:"Data"`
	Name string            `json:"Name"`
}

// MountPoint is one mount as inspect shows it.
type MountPoint struct {
	Type        string `json:"Type,omitempty"`
	Name        string `json:"Name,omitempty"`
	Source      string `json:"Source"`
	Destination string `json:"Destination"`
	Driver      string `json:"Driver,omitempty"`
	Mode        string `json:"Mode"`
	RW          bool   `json:"RW"`
	Propagation string `json:"Propagation"`
}

// NetworkSettings is the network part of ContainerInspect.
type NetworkSettings struct {
	Bridge                 string                       `json:"Bridge"`
	SandboxID              string                       `json:"SandboxID"`
	SandboxKey             string                       `json:"SandboxKey"`
	Ports                  map[string][]PortBinding     `json:"Ports"`
	HairpinMode            bool                         `json:"HairpinMode"`
	LinkLocalIPv6Address   string                       `json:"LinkLocalIPv6Address"`
	LinkLocalIPv6PrefixLen int                          `json:"LinkLocalIPv6PrefixLen"`
	SecondaryIPAddresses   []string                     `json:"SecondaryIPAddresses"`
	SecondaryIPv6Addresses []string                     `json:"SecondaryIPv6Addresses"`
	EndpointID             string                       `json:"EndpointID"`
	Gateway                string                       `json:"Gateway"`
	GlobalIPv6Address      string                       `json:"GlobalIPv6Address"`
	GlobalIPv6PrefixLen    int                          `json:"GlobalIPv6PrefixLen"`
	IPAddress              string                       `json:"IPAddress"`
	IPPrefixLen            int                          `json:"IPPrefixLen"`
	IPv6Gateway            string                       `json:"IPv6Gateway"`
	MacAddress             string                       `json:"MacAddress"`
	Networks               map[string]*EndpointSettings `json:"Networks"`
}

// WaitResponse answers POST /containers/{id}/wait.
type WaitResponse struct {
	StatusCode int64      `json:"StatusCode"`
	Error      *WaitError `json:"Error,omitempty"`
}

// WaitError says why waiting, or the removal that was waited for, failed.
type WaitError struct {
	Message string `json:"Message"`
}

// TopResponse answers GET /containers/{id}/top.
type TopResponse struct {
	Titles    []string
	Processes [][]string
}

// UpdateRequest is the body of POST /containers/{id}/update.
type UpdateRequest struct {
	Resources
	RestartPolicy RestartPolicy
}

// Warnings answers requests whose only result is advice.
type Warnings struct {
	Warnings []string `json:"Warnings"`
}

// ExecConfig is the body of POST /containers/{id}/exec.
type ExecConfig struct {
	User         string   `json:"User,omitempty"`
	Privileged   bool     `json:"Privileged,omitempty"`
	Tty          bool     `json:"Tty,omitempty"`
	ConsoleSize  *[2]uint `json:"ConsoleSize,omitempty"` // height, width
	AttachStdin  bool     `json:"AttachStdin,omitempty"`
	AttachStderr bool     `json:"AttachStderr,omitempty"`
	AttachStdout bool     `json:"AttachStdout,omitempty"`
	DetachKeys   string   `json:"DetachKeys,omitempty"`
	Env          []string `json:"Env,omitempty"`
	WorkingDir   string   `json:"WorkingDir,omitempty"`
	Cmd          []string `json:"Cmd"`
}

// ID answers requests that made one thing.
type ID struct {
	ID string `json:"Id"`
}

// ExecStart is the body of POST /exec/{id}/start.
type ExecStart struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint `json:",omitempty"`
}

// ExecInspect answers GET /exec/{id}/json.
type ExecInspect struct {
	ID            string            `json:"ID"`
	Running       bool              `json:"Running"`
	ExitCode      *int              `json:"ExitCode"`
	ProcessConfig ExecProcessConfig `json:"ProcessConfig"`
	OpenStdin     bool              `json:"OpenStdin"`
	OpenStderr    bool              `json:"OpenStderr"`
	OpenStdout    bool              `json:"OpenStdout"`
	CanRemove     bool              `json:"CanRemove"`
	ContainerID   string            `json:"ContainerID"`
	DetachKeys    string            `json:"DetachKeys"`
	Pid           int               `json:"Pid"`
}

// ExecProcessConfig is the command of an exec.
type ExecProcessConfig struct {
	Tty        bool     `json:"tty"`
	Entrypoint string   `json:"entrypoint"`
	Arguments  []string `json:"arguments"`
	Privileged *bool    `json:"privileged,omitempty"`
	User       string   `json:"user,omitempty"`
}

// PathStat is the base64-encoded JSON of the X-Docker-Container-Path-Stat header.
type PathStat struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Mode       uint32 `json:"mode"` // os.FileMode bits
	Mtime      string `json:"mtime"`
	LinkTarget string `json:"linkTarget"`
}
