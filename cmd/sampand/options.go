package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/fault"
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

	CgroupParent    string
	LogDriver       string
	LogOptions      map[string]string
	Ulimits         map[string]wire.Ulimit
	ShmSize         int64
	LiveRestore     bool
	ShutdownTimeout int

	Insecure []string
	Mirrors  []string

	TLS, TLSVerify             bool
	TLSCACert, TLSCert, TLSKey string
	AllowPlainTCP              bool
	StorageDriver              string
	UsernsRemap, SubIDs        string
	OOMScore                   *int

	validate, version bool
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
		LogLevel: "info", Bridge: "sampan0", CgroupParent: "/sampan", LogDriver: "json-file", ShutdownTimeout: 15,
		LogOptions: map[string]string{}, Ulimits: map[string]wire.Ulimit{}, StorageDriver: "overlay2", SubIDs: "/etc",
	}
}

func (o *options) addFlags(f *pflag.FlagSet) {
	f.SortFlags = true
	f.StringVar(&o.ConfigFile, "config-file", o.ConfigFile, "Daemon configuration file")
	f.StringArrayVarP(&o.Hosts, "host", "H", nil, "Daemon socket(s) to connect to (default "+defaultHost+")")
	f.StringVar(&o.DataRoot, "data-root", o.DataRoot, "Root directory of persistent state")
	f.StringVar(&o.ExecRoot, "exec-root", o.ExecRoot, "Root directory for execution state files")
	f.StringVarP(&o.PidFile, "pidfile", "p", o.PidFile, "Path to use for daemon PID file")
	f.StringVarP(&o.Group, "group", "G", o.Group, "Group for the unix socket (default: root only)")
	f.BoolVarP(&o.Debug, "debug", "D", false, "Enable debug mode")
	f.StringVarP(&o.LogLevel, "log-level", "l", o.LogLevel, `Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")`)
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
	f.StringVar(&o.CgroupParent, "cgroup-parent", o.CgroupParent, "Set parent cgroup for all containers")
	f.StringVar(&o.LogDriver, "log-driver", o.LogDriver, "Default driver for container logs")
	f.Var(pairs(o.LogOptions), "log-opt", "Default log driver options for containers")
	f.Var(ulimits(o.Ulimits), "default-ulimit", "Default ulimits for containers")
	f.Var((*size)(&o.ShmSize), "default-shm-size", "Default shm size for containers")
	f.BoolVar(&o.LiveRestore, "live-restore", false, "Leave containers running when the daemon ends")
	f.IntVar(&o.ShutdownTimeout, "shutdown-timeout", o.ShutdownTimeout, "Set the default shutdown timeout in seconds")
	f.StringArrayVar(&o.Insecure, "insecure-registry", nil, "Enable insecure registry communication")
	f.StringArrayVar(&o.Mirrors, "registry-mirror", nil, "Preferred registry mirror")
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
	f.BoolVar(&o.validate, "validate", false, "Validate daemon configuration and exit")
	f.BoolVarP(&o.version, "version", "v", false, "Print version information and quit")
}

// check reports the first value that is wrong, and completes what is derived from others.
func (o *options) check() error {
	if len(o.Hosts) == 0 {
		o.Hosts = []string{defaultHost}
	}
	for _, dir := range []struct {
		flag string
		path *string
	}{{"--data-root", &o.DataRoot}, {"--exec-root", &o.ExecRoot}, {"--pidfile", &o.PidFile}} {
		if *dir.path == "" {
			return &fault.Field{Field: dir.flag, Given: "", Expected: "a path"}
		}
		var err error
		if *dir.path, err = filepath.Abs(*dir.path); err != nil {
			return err
		}
	}
	if err := o.checkLevel(); err != nil {
		return err
	}
	if o.StorageDriver != "overlay2" && o.StorageDriver != "overlay" {
		return &fault.Field{Field: "--storage-driver", Given: o.StorageDriver, Expected: "overlay2", Nearest: fault.Nearest(o.StorageDriver, []string{"overlay2"})}
	}
	if o.BIP != "" {
		if _, err := netip.ParsePrefix(o.BIP); err != nil {
			return &fault.Field{Field: "--bip", Given: o.BIP, Expected: "an address with a prefix length, such as 172.30.0.1/16"}
		}
	}
	for _, ip := range append(slices.Clone(o.DNS), o.HostGateway) {
		if ip != "" && net.ParseIP(ip) == nil {
			return &fault.Field{Field: "--dns or --host-gateway-ip", Given: ip, Expected: "an IP address"}
		}
	}
	for _, l := range o.Labels {
		if key, _, ok := strings.Cut(l, "="); !ok || key == "" {
			return &fault.Field{Field: "--label", Given: l, Expected: "key=value"}
		}
	}
	if o.MTU != 0 && (o.MTU < 68 || o.MTU > 65535) {
		return &fault.Field{Field: "--mtu", Given: fmt.Sprint(o.MTU), Expected: "a number from 68 to 65535"}
	}
	if o.OOMScore != nil && (*o.OOMScore < -1000 || *o.OOMScore > 1000) {
		return &fault.Field{Field: "--oom-score-adjust", Given: strconv.Itoa(*o.OOMScore), Expected: "a number from -1000 to 1000"}
	}
	if o.ShutdownTimeout < -1 {
		return &fault.Field{Field: "--shutdown-timeout", Given: fmt.Sprint(o.ShutdownTimeout), Expected: "seconds, or -1 for no limit"}
	}
	if err := spec.CheckLimits(o.Ulimits); err != nil {
		return fmt.Errorf("default-ulimits: %w", err)
	}
	return container.ValidateLog(wire.LogConfig{Type: o.LogDriver, Config: o.LogOptions})
}

func (o *options) checkLevel() error {
	if !slices.Contains(levelNames, o.LogLevel) {
		return &fault.Field{Field: "--log-level", Given: o.LogLevel, Expected: "one of " + strings.Join(levelNames, ", "), Nearest: fault.Nearest(o.LogLevel, levelNames)}
	}
	return nil
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
