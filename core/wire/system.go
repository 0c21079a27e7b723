package wire

// Version answers GET /version.
type Version struct {
	Platform      struct{ Name string } `json:"Platform"`
	Components    []Component           `json:"Components,omitempty"`
	Version       string                `json:"Version"`
	APIVersion    string                `json:"ApiVersion"`
	MinAPIVersion string                `json:"MinAPIVersion,omitempty"`
	GitCommit     string                `json:"GitCommit"`
	GoVersion     string                `json:"GoVersion"`
	Os            string                `json:"Os"`
	Arch          string                `json:"Arch"`
	KernelVersion string                `json:"KernelVersion,omitempty"`
	Experimental  bool                  `json:"Experimental,omitempty"`
	BuildTime     string                `json:"BuildTime,omitempty"`
}

// Component is one part of the server in Version.
type Component struct {
	Name    string            `json:"Name"`
	Version string            `json:"Version"`
	Details map[string]string `json:"Details,omitempty"`
}

// Info answers GET /info.
type Info struct {
	ID                 string                 `json:"ID"`
	Containers         int                    `json:"Containers"`
	ContainersRunning  int                    `json:"ContainersRunning"`
	ContainersPaused   int                    `json:"ContainersPaused"`
	ContainersStopped  int                    `json:"ContainersStopped"`
	Images             int                    `json:"Images"`
	Driver             string                 `json:"Driver"`
	DriverStatus       [][2]string            `json:"DriverStatus"`
	SystemStatus       [][2]string            `json:"SystemStatus,omitempty"`
	Plugins            InfoPlugins            `json:"Plugins"`
	MemoryLimit        bool                   `json:"MemoryLimit"`
	SwapLimit          bool                   `json:"SwapLimit"`
	CPUCfsPeriod       bool                   `json:"CpuCfsPeriod"`
	CPUCfsQuota        bool                   `json:"CpuCfsQuota"`
	CPUShares          bool                   `json:"CPUShares"`
	CPUSet             bool                   `json:"CPUSet"`
	PidsLimit          bool                   `json:"PidsLimit"`
	IPv4Forwarding     bool                   `json:"IPv4Forwarding"`
	Debug              bool                   `json:"Debug"`
	NFd                int                    `json:"NFd"`
	OomKillDisable     bool                   `json:"OomKillDisable"`
	NGoroutines        int                    `json:"NGoroutines"`
	SystemTime         string                 `json:"SystemTime"`
	LoggingDriver      string                 `json:"LoggingDriver"`
	CgroupDriver       string                 `json:"CgroupDriver"`
	CgroupVersion      string                 `json:"CgroupVersion"`
	NEventsListener    int                    `json:"NEventsListener"`
	KernelVersion      string                 `json:"KernelVersion"`
	OperatingSystem    string                 `json:"OperatingSystem"`
	OSVersion          string                 `json:"OSVersion"`
	OSType             string                 `json:"OSType"`
	Architecture       string                 `json:"Architecture"`
	IndexServerAddress string                 `json:"IndexServerAddress"`
	RegistryConfig     *RegistryConfig        `json:"RegistryConfig"`
	NCPU               int                    `json:"NCPU"`
	MemTotal           int64                  `json:"MemTotal"`
	GenericResources   []any                  `json:"GenericResources"`
	DockerRootDir      string                 `json:"DockerRootDir"`
	HTTPProxy          string                 `json:"HttpProxy"`
	HTTPSProxy         string                 `json:"HttpsProxy"`
	NoProxy            string                 `json:"NoProxy"`
	Name               string                 `json:"Name"`
	Labels             []string               `json:"Labels"`
	ExperimentalBuild  bool                   `json:"ExperimentalBuild"`
	ServerVersion      string                 `json:"ServerVersion"`
	Runtimes           map[string]InfoRuntime `json:"Runtimes"`
	DefaultRuntime     string                 `json:"DefaultRuntime"`
	Swarm              InfoSwarm              `json:"Swarm"`
	LiveRestoreEnabled bool                   `json:"LiveRestoreEnabled"`
	Isolation          string                 `json:"Isolation"`
	InitBinary         string                 `json:"InitBinary"`
	ContainerdCommit   InfoCommit             `json:"ContainerdCommit"`
	RuncCommit         InfoCommit             `json:"RuncCommit"`
	InitCommit         InfoCommit             `json:"InitCommit"`
	SecurityOptions    []string               `json:"SecurityOptions"`
	CDISpecDirs        []string               `json:"CDISpecDirs"`
	Warnings           []string               `json:"Warnings"`
}

// InfoPlugins lists the drivers by kind.
type InfoPlugins struct {
	Volume        []string `json:"Volume"`
	Network       []string `json:"Network"`
	Authorization []string `json:"Authorization"`
	Log           []string `json:"Log"`
}

// RegistryConfig is the daemon's registry settings.
type RegistryConfig struct {
	IndexConfigs          map[string]RegistryIndex `json:"IndexConfigs"`
	InsecureRegistryCIDRs []string                 `json:"InsecureRegistryCIDRs"`
	Mirrors               []string                 `json:"Mirrors"`
}

// RegistryIndex is one registry's settings.
type RegistryIndex struct {
	Mirrors  []string
	Name     string
	Official bool
	Secure   bool
}

// InfoRuntime is one OCI runtime.
type InfoRuntime struct {
	Path string   `json:"path,omitempty"`
	Args []string `json:"runtimeArgs,omitempty"`
}

// InfoCommit is a component's commit.
type InfoCommit struct {
	ID string
}

// Event is one line of GET /events.
type Event struct {
	Status   string     `json:"status,omitempty"` // deprecated twin of Action, which old clients read
	ID       string     `json:"id,omitempty"`
	From     string     `json:"from,omitempty"`
	Type     string     `json:"Type"`
	Action   string     `json:"Action"`
	Actor    EventActor `json:"Actor"`
	Scope    string     `json:"scope,omitempty"`
	Time     int64      `json:"time"`
	TimeNano int64      `json:"timeNano"`
}

// EventActor is what the event happened to.
type EventActor struct {
	ID         string            `json:"ID"`
	Attributes map[string]string `json:"Attributes"`
}
