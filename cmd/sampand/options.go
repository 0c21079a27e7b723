package main

import (
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/api"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/wire"
)

// options are what flags and daemon.json say, under the names that dockerd has for both. A field's key
// is that of daemon.json.
type options struct {
	ConfigFile string

	Hosts      []string
	DataRoot   string
	ExecRoot   string
	PidFile    string
	Group      string
	Debug      bool
	LogLevel   string
	LogFormat  string
	Metrics    string
	Labels     []string
	PluginDirs []string
	Runtime    string
	Init       string

	Bridge      string
	BIP         string
	MTU         int
	DNS         []string
	DNSOptions  []string
	DNSSearch   []string
	HostGateway string
	FixedCIDR   string
	SwarmAddr   string // an address or an interface
	Publish     string // the address on which ports are published when none is given
	ICC         bool
	Masquerade  bool
	Pools       pools
	NetworkOpts networkOptions

	CgroupParent    string
	IpcMode         string
	CgroupnsMode    string
	DefaultInit     bool
	NoNewPrivileges bool
	Seccomp         string
	DefaultRuntime  string
	Runtimes        runtimes
	ExecOptions     []string
	StorageOptions  []string
	LogDriver       string
	LogOptions      map[string]string
	Ulimits         map[string]wire.Ulimit
	ShmSize         int64
	LiveRestore     bool
	ShutdownTimeout int

	LazyPull bool // layers are shown before they are there

	Insecure []string
	Mirrors  []string
	Trust    trust.Config
	Proxies  proxies

	Downloads, Uploads, Attempts int

	TLS, TLSVerify             bool
	TLSCACert, TLSCert, TLSKey string
	AllowPlainTCP              bool
	StorageDriver              string
	UsernsRemap, SubIDs        string
	OOMScore                   *int

	validate, version bool

	// warnings are what is said when the daemon starts, of settings without an effect.
	warnings []string
}

// Defaults.
const (
	defaultHost       = "unix:///run/sampan.sock"
	defaultConfigFile = "/etc/sampan/daemon.json"
	defaultPlugins    = "/usr/local/libexec/sampan/plugins"
	distroPlugins     = "/usr/libexec/sampan/plugins"
)

func newOptions() *options {
	return &options{
		ConfigFile: defaultConfigFile, DataRoot: "/var/lib/sampan", ExecRoot: "/run/sampan", PidFile: "/run/sampan.pid",
		LogLevel: "info", LogFormat: "text", ICC: true, Masquerade: true, NetworkOpts: networkOptions{},
		IpcMode: "private", DefaultRuntime: "sampan", Bridge: "sampan0", LogDriver: "json-file", ShutdownTimeout: 15, Downloads: 3, Uploads: 5, Attempts: 5,
		LogOptions: map[string]string{}, Ulimits: map[string]wire.Ulimit{}, StorageDriver: "overlay2", SubIDs: "/etc", Group: api.DefaultGroup,
	}
}

func (o *options) addFlags(f *pflag.FlagSet) {
	f.SortFlags = true
	f.StringVar(&o.ConfigFile, "config-file", o.ConfigFile, "Daemon configuration file")
	f.StringArrayVarP(&o.Hosts, "host", "H", nil, "Daemon socket(s) to connect to (default "+defaultHost+")")
	f.StringVar(&o.DataRoot, "data-root", o.DataRoot, "Root directory of persistent state")
	f.StringVar(&o.ExecRoot, "exec-root", o.ExecRoot, "Root directory for execution state files")
	f.StringVarP(&o.PidFile, "pidfile", "p", o.PidFile, "Path to use for daemon PID file")
	f.StringVarP(&o.Group, "group", "G", o.Group, "Group for the unix socket; root alone if there is none of the default's name")
	f.BoolVarP(&o.Debug, "debug", "D", false, "Enable debug mode")
	f.StringVarP(&o.LogLevel, "log-level", "l", o.LogLevel, `Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")`)
	f.StringVar(&o.LogFormat, "log-format", o.LogFormat, `Set the logging format ("text"|"json")`)
	f.StringVar(&o.Metrics, "metrics-addr", "", "Address and port to serve the metrics API on")
	f.StringArrayVar(&o.Labels, "label", nil, "Set key=value labels to the daemon")
	f.StringArrayVar(&o.PluginDirs, "plugin-dir", nil, "Directory with plugins, may be repeated (default: plugins beside this program, "+defaultPlugins+", "+distroPlugins+")")
	f.StringVar(&o.Runtime, "runtime-path", "", "Program sampan-runtime (default: beside this program, then in PATH)")
	f.StringVar(&o.Init, "init-path", "", "Program of --init, static (default: docker-init, tini-static or catatonit in PATH)")
	f.StringVarP(&o.Bridge, "bridge", "b", o.Bridge, "Bridge of the default network; it is made when it is missing")
	f.StringVar(&o.BIP, "bip", "", "Address of the default bridge with its prefix length, such as 172.30.0.1/16")
	f.IntVar(&o.MTU, "mtu", 0, "MTU of the default network")
	f.StringArrayVar(&o.DNS, "dns", nil, "DNS server to use")
	f.StringArrayVar(&o.DNSOptions, "dns-opt", nil, "DNS options to use")
	f.StringArrayVar(&o.DNSSearch, "dns-search", nil, "DNS search domains to use")
	f.StringVar(&o.HostGateway, "host-gateway-ip", "", `IP address that the special 'host-gateway' string in --add-host resolves to`)
	f.StringVar(&o.SwarmAddr, "swarm-default-advertise-addr", "", "Address or interface by which other nodes of a swarm reach this one, unless init or join says another")
	f.StringVar(&o.FixedCIDR, "fixed-cidr", "", "IPv4 subnet for the containers of the default bridge, within its own")
	f.StringVar(&o.Publish, "ip", "", "Host IP for port publishing from the default bridge network")
	f.BoolVar(&o.ICC, "icc", o.ICC, "Enable inter-container communication for the default bridge network")
	f.BoolVar(&o.Masquerade, "ip-masq", o.Masquerade, "Enable IP masquerading for the default bridge network")
	f.Var(&o.Pools, "default-address-pool", "Default address pools for networks, such as base=10.8.0.0/16,size=24")
	f.Var(o.NetworkOpts, "default-network-opt", "Default network options, such as bridge=com.docker.network.driver.mtu=1400")
	f.StringVar(&o.IpcMode, "default-ipc-mode", o.IpcMode, `Default mode for containers ipc ("shareable" | "private")`)
	f.StringVar(&o.CgroupnsMode, "default-cgroupns-mode", "", `Default mode for containers cgroup namespace ("host" | "private") (default: private with cgroup v2)`)
	f.BoolVar(&o.DefaultInit, "init", false, "Run an init in the container to forward signals and reap processes")
	f.BoolVar(&o.NoNewPrivileges, "no-new-privileges", false, "Set no-new-privileges by default for new containers")
	f.StringVar(&o.Seccomp, "seccomp-profile", "", `Path to seccomp profile; "builtin" or "unconfined" (default builtin)`)
	f.StringVar(&o.DefaultRuntime, "default-runtime", o.DefaultRuntime, "Default OCI runtime for containers (sampan, or one of --add-runtime)")
	f.Var(&o.Runtimes, "add-runtime", "Register an additional OCI compatible runtime, such as runc=/usr/sbin/runc")
	f.StringArrayVar(&o.ExecOptions, "exec-opt", nil, "Runtime execution options: native.cgroupdriver=cgroupfs or systemd")
	f.StringArrayVar(&o.StorageOptions, "storage-opt", nil, "Storage driver options, such as overlay2.override_kernel_check=true")
	f.StringVar(&o.Proxies.HTTP, "http-proxy", "", "HTTP proxy URL to use for outgoing traffic")
	f.StringVar(&o.Proxies.HTTPS, "https-proxy", "", "HTTPS proxy URL to use for outgoing traffic")
	f.StringVar(&o.Proxies.No, "no-proxy", "", "Comma-separated list of hosts or IP addresses for which the proxy is skipped")
	f.StringVar(&o.CgroupParent, "cgroup-parent", o.CgroupParent, "Set parent cgroup for all containers (default "+spec.DefaultCgroupParent(false)+", with systemd's driver "+spec.DefaultCgroupParent(true)+")")
	f.StringVar(&o.LogDriver, "log-driver", o.LogDriver, "Default driver for container logs")
	f.Var(pairs(o.LogOptions), "log-opt", "Default log driver options for containers")
	f.Var(ulimits(o.Ulimits), "default-ulimit", "Default ulimits for containers")
	f.Var((*size)(&o.ShmSize), "default-shm-size", "Default shm size for containers")
	f.BoolVar(&o.LiveRestore, "live-restore", false, "Leave containers running when the daemon ends")
	f.IntVar(&o.ShutdownTimeout, "shutdown-timeout", o.ShutdownTimeout, "Set the default shutdown timeout in seconds")
	f.BoolVar(&o.LazyPull, "lazy-pull", false, "Start containers before their image is there, where it is eStargz, zstd:chunked, or gzip that was pulled before, and the kernel has FUSE")
	f.StringArrayVar(&o.Insecure, "insecure-registry", nil, "Enable insecure registry communication")
	f.StringArrayVar(&o.Mirrors, "registry-mirror", nil, "Preferred registry mirror")
	f.IntVar(&o.Downloads, "max-concurrent-downloads", o.Downloads, "Set the max concurrent downloads")
	f.IntVar(&o.Uploads, "max-concurrent-uploads", o.Uploads, "Set the max concurrent uploads")
	f.IntVar(&o.Attempts, "max-download-attempts", o.Attempts, "Set the max download attempts for each pull")
	f.BoolVar(&o.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	f.BoolVar(&o.TLSVerify, "tlsverify", false, "Use TLS and verify the remote")
	f.StringVar(&o.TLSCACert, "tlscacert", "", "Trust certs signed only by this CA")
	f.StringVar(&o.TLSCert, "tlscert", "", "Path to TLS certificate file")
	f.StringVar(&o.TLSKey, "tlskey", "", "Path to TLS key file")
	f.BoolVar(&o.AllowPlainTCP, "allow-plain-tcp", false, "Permit TCP without TLS, on loopback addresses only")
	f.StringVarP(&o.StorageDriver, "storage-driver", "s", o.StorageDriver, "Storage driver to use (only overlay2)")
	f.StringVar(&o.UsernsRemap, "userns-remap", "", `User/Group setting for user namespaces: "default", user, user:group, uid or uid:gid`)
	f.StringVar(&o.SubIDs, "subid-dir", o.SubIDs, "Directory of the files subuid and subgid")
	f.Var(number{&o.OOMScore}, "oom-score-adjust", "Set the oom_score_adj for the daemon (default "+strconv.Itoa(defaultOOMScore)+", where that is permitted)")
	o.addForeignFlags(f)
	f.BoolVar(&o.validate, "validate", false, "Validate daemon configuration and exit")
	f.BoolVarP(&o.version, "version", "v", false, "Print version information and quit")
}

// grace is how long the end of the daemon may wait for containers; 0 is without a limit.
func (o *options) grace() time.Duration {
	if o.ShutdownTimeout < 0 {
		return 0
	}
	return time.Duration(o.ShutdownTimeout) * time.Second
}

// plugins are the directories in which drivers are looked for.
func (o *options) plugins() []string {
	if len(o.PluginDirs) > 0 {
		return o.PluginDirs
	}
	dirs := []string{defaultPlugins, distroPlugins}
	if self, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Join(filepath.Dir(self), "plugins")}, dirs...)
	}
	return dirs
}
