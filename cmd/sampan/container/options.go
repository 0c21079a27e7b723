package container

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// options are what run and create can say about a container, as it stands on the command line.
type options struct {
	image string
	args  []string
	trust *cli.ContentTrust

	// identity
	name, hostname, domainname, user, workdir, entrypoint string
	labels, labelFiles, env, envFiles, groups             cli.List
	annotations                                           cli.Map
	cidFile, platform, pull, runtime, isolation           string
	quiet, rm, useAPISocket, init, initSet, entrypointSet bool

	// streams
	attach           cli.List
	interactive, tty bool

	// network
	networks                                        Networks
	aliases, links, linkLocal, hosts, dns           cli.List
	dnsOptions, dnsSearch, publish, expose          cli.List
	ip, ip6, macAddress                             string
	publishAll                                      bool
	pid, ipc, uts, userns, cgroupns, cgroupParent   string
	stopSignal, restart, logDriver, volumeDriver    string
	stopTimeout                                     int
	stopTimeoutSet                                  bool
	volumes, volumesFrom, tmpfs, logOpts, storage   cli.List
	mounts                                          Mounts
	capAdd, capDrop, security, devices, deviceRules cli.List
	sysctls                                         cli.Map
	privileged, readOnly                            bool
	gpus                                            string

	resources
	shmSize           cli.Bytes
	oomScore          int
	oomKillDisable    bool
	swappiness        int64
	ulimits           Ulimits
	blkioWeightDevice weightDevices
	readBps, writeBps throttleDevices
	readIOps          throttleDevices
	writeIOps         throttleDevices
	cpuCount          int64
	cpuPercent        int64
	ioMaxBandwidth    cli.Bytes
	ioMaxIOps         uint64

	// health
	healthCmd                                                   string
	healthInterval, healthTimeout, healthStart, healthStartStep time.Duration
	healthRetries                                               int
	healthOnFailure                                             string
	noHealthcheck                                               bool
}

// addFlags adds the flags that run and create share, in Docker's words.
func (o *options) addFlags(f *pflag.FlagSet) {
	f.SetInterspersed(false) // what follows the image is the container's command line
	o.addIdentityFlags(f)
	o.addNetworkFlags(f)
	o.addStorageFlags(f)
	o.addSecurityFlags(f)
	o.addResourceFlags(f)
	o.addHealthFlags(f)
}

// note remembers which flags were given, where their zero value means something.
func (o *options) note(f *pflag.FlagSet) {
	o.initSet, o.entrypointSet, o.stopTimeoutSet = f.Changed("init"), f.Changed("entrypoint"), f.Changed("stop-timeout")
	o.pidsSet = f.Changed("pids-limit")
}

func (o *options) addIdentityFlags(f *pflag.FlagSet) {
	o.attach.Check = checkStream
	f.VarP(&o.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVar(&o.name, "name", "", "Assign a name to the container")
	f.StringVarP(&o.hostname, "hostname", "h", "", "Container host name")
	f.StringVar(&o.domainname, "domainname", "", "Container NIS domain name")
	f.StringVarP(&o.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.Var(&o.groups, "group-add", "Add additional groups to join")
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	f.StringVar(&o.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	o.env.Check = CheckVariable
	f.VarP(&o.env, "env", "e", "Set environment variables")
	f.Var(&o.envFiles, "env-file", "Read in a file of environment variables")
	f.VarP(&o.labels, "label", "l", "Set meta data on a container")
	f.Var(&o.labelFiles, "label-file", "Read in a line delimited file of labels")
	f.Var(&o.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	f.StringVar(&o.cidFile, "cidfile", "", "Write the container ID to the file")
	f.StringVar(&o.platform, "platform", "", "Set platform if server is multi-platform capable")
	f.StringVar(&o.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress the pull output")
	f.StringVar(&o.runtime, "runtime", "", "Runtime to use for this container")
	f.StringVar(&o.isolation, "isolation", "", "Container isolation technology")
	f.BoolVar(&o.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	f.StringVar(&o.restart, "restart", "no", "Restart policy to apply when a container exits")
	f.BoolVar(&o.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	f.StringVar(&o.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.IntVar(&o.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.StringVar(&o.logDriver, "log-driver", "", "Logging driver for the container")
	f.Var(&o.logOpts, "log-opt", "Log driver options")
	f.BoolVar(&o.useAPISocket, "use-api-socket", false, "Bind mount the API socket and required auth")
	o.trust = cli.AddTrust(f)
}

func (o *options) addNetworkFlags(f *pflag.FlagSet) {
	o.linkLocal.Check, o.dns.Check, o.hosts.Check, o.links.Check = CheckIP, CheckIP, CheckHost, checkLink
	f.Var(&o.networks, "network", "Connect a container to a network")
	f.Var(&o.networks, "net", "Connect a container to a network")
	f.Var(&o.aliases, "network-alias", "Add network-scoped alias for the container")
	f.Var(&o.aliases, "net-alias", "Add network-scoped alias for the container")
	f.StringVar(&o.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	f.StringVar(&o.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	f.Var(&o.linkLocal, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	f.StringVar(&o.macAddress, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	f.Var(&o.links, "link", "Add link to another container")
	f.VarP(&o.publish, "publish", "p", "Publish a container's port(s) to the host")
	f.BoolVarP(&o.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	f.Var(&o.expose, "expose", "Expose a port or a range of ports")
	f.Var(&o.hosts, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	f.Var(&o.dns, "dns", "Set custom DNS servers")
	f.Var(&o.dnsOptions, "dns-option", "Set DNS options")
	f.Var(&o.dnsOptions, "dns-opt", "Set DNS options")
	f.Var(&o.dnsSearch, "dns-search", "Set custom DNS search domains")
	for _, old := range []string{"net", "net-alias", "dns-opt"} {
		f.MarkHidden(old) //nolint:errcheck // it is a flag of ours
	}
}

func (o *options) addStorageFlags(f *pflag.FlagSet) {
	f.VarP(&o.volumes, "volume", "v", "Bind mount a volume")
	f.Var(&o.mounts, "mount", "Attach a filesystem mount to the container")
	f.Var(&o.tmpfs, "tmpfs", "Mount a tmpfs directory")
	f.Var(&o.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	f.StringVar(&o.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	f.Var(&o.storage, "storage-opt", "Storage driver options for the container")
	f.BoolVar(&o.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	f.Var(&o.shmSize, "shm-size", "Size of /dev/shm")
}

func (o *options) addSecurityFlags(f *pflag.FlagSet) {
	o.deviceRules.Check, o.sysctls.Strict = checkDeviceRule, true
	f.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to this container")
	f.Var(&o.capAdd, "cap-add", "Add Linux capabilities")
	f.Var(&o.capDrop, "cap-drop", "Drop Linux capabilities")
	f.Var(&o.security, "security-opt", "Security Options")
	f.StringVar(&o.pid, "pid", "", "PID namespace to use")
	f.StringVar(&o.ipc, "ipc", "", "IPC mode to use")
	f.StringVar(&o.uts, "uts", "", "UTS namespace to use")
	f.StringVar(&o.userns, "userns", "", "User namespace to use")
	f.StringVar(&o.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	f.Var(&o.sysctls, "sysctl", "Sysctl options")
	f.Var(&o.devices, "device", "Add a host device to the container")
	f.Var(&o.deviceRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	f.Var(cli.Word{Value: &o.gpus, Kind: "gpu-request"}, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

func (o *options) addResourceFlags(f *pflag.FlagSet) {
	o.resources.addFlags(f)
	o.readBps.bytes, o.writeBps.bytes = true, true
	f.Int64Var(&o.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	f.BoolVar(&o.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	f.IntVar(&o.oomScore, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	f.Var(&o.ulimits, "ulimit", "Ulimit options")
	f.Var(&o.blkioWeightDevice, "blkio-weight-device", "Block IO weight (relative device weight)")
	f.Var(&o.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	f.Var(&o.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	f.Var(&o.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	f.Var(&o.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	f.Int64Var(&o.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	f.Int64Var(&o.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	f.Var(&o.ioMaxBandwidth, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	f.Uint64Var(&o.ioMaxIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	for _, windows := range []string{"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		f.MarkHidden(windows) //nolint:errcheck // it is a flag of ours
	}
}

func (o *options) addHealthFlags(f *pflag.FlagSet) {
	f.StringVar(&o.healthCmd, "health-cmd", "", "Command to run to check health")
	f.DurationVar(&o.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	f.DurationVar(&o.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	f.DurationVar(&o.healthStart, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	f.DurationVar(&o.healthStartStep, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	f.IntVar(&o.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.StringVar(&o.healthOnFailure, "health-on-failure", "", `What happens to a container that has become unhealthy ("none"|"restart"|"stop"|"kill")`)
	f.BoolVar(&o.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}
