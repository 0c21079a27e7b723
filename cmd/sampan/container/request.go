package container

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// streams are the words of --attach.
var streams = []string{"stdin", "stdout", "stderr"}

func checkStream(s string) (string, error) {
	word := strings.ToLower(s)
	if !slices.Contains(streams, word) {
		return "", &fault.Field{Given: s, Expected: "STDIN, STDOUT or STDERR", Nearest: fault.Nearest(word, streams)}
	}
	return word, nil
}

// request checks the options and returns the body of the API's create.
func (o *options) request() (wire.ContainerCreateRequest, error) {
	var r wire.ContainerCreateRequest
	if err := o.check(); err != nil {
		return r, err
	}
	config, err := o.config()
	if err != nil {
		return r, err
	}
	host, err := o.hostConfig()
	if err != nil {
		return r, err
	}
	if host.PortBindings, err = PortBindings(o.publish.Values); err != nil {
		return r, err
	}
	if config.ExposedPorts, err = exposedPorts(o.expose.Values, host.PortBindings); err != nil {
		return r, err
	}
	if host.Binds, config.Volumes, err = volumeSpecs(o.volumes.Values); err != nil {
		return r, err
	}
	var networking *wire.NetworkingConfig
	if host.NetworkMode, networking, err = o.networking(); err != nil {
		return r, err
	}
	return wire.ContainerCreateRequest{ContainerConfig: *config, HostConfig: host, NetworkingConfig: networking}, nil
}

// check refuses what is wrong for itself, and what contradicts.
func (o *options) check() error {
	if err := cli.OneOf("--pull", o.pull, "always", "missing", "never"); err != nil {
		return err
	}
	namespace := func(flag, given string, choices ...string) error {
		if given == "" || strings.HasPrefix(given, "container:") && len(given) > len("container:") && slices.Contains(choices, "container:NAME") {
			return nil
		}
		return cli.OneOf(flag, given, choices...)
	}
	for _, err := range []error{
		namespace("--pid", o.pid, "host", "container:NAME"),
		namespace("--ipc", o.ipc, "none", "private", "shareable", "host", "container:NAME"),
		namespace("--uts", o.uts, "host"),
		namespace("--userns", o.userns, "host"),
		namespace("--cgroupns", o.cgroupns, "host", "private"),
		namespace("--isolation", o.isolation, "default"),
	} {
		if err != nil {
			return err
		}
	}
	switch {
	case o.swappiness < -1 || o.swappiness > 100:
		return &fault.Field{Field: "--memory-swappiness", Given: strconv.FormatInt(o.swappiness, 10), Expected: "0 to 100, or -1 for the host's"}
	case o.oomScore < -1000 || o.oomScore > 1000:
		return &fault.Field{Field: "--oom-score-adj", Given: strconv.Itoa(o.oomScore), Expected: "-1000 to 1000"}
	case o.gpus != "":
		return fault.New(fault.NotImplemented, "--gpus %q: this engine has no driver for GPUs; a device file can be given with --device", o.gpus)
	case o.useAPISocket:
		return fault.New(fault.NotImplemented, "--use-api-socket: not available; the socket can be mounted with -v")
	case o.logDriver == "none" && len(o.logOpts.Values) > 0:
		return fault.New(fault.Invalid, "--log-opt: expected no options with --log-driver none")
	case o.cpuCount != 0 || o.cpuPercent != 0 || o.ioMaxIOps != 0 || o.ioMaxBandwidth.Value != 0:
		return fault.New(fault.Invalid, "--cpu-count, --cpu-percent, --io-maxiops and --io-maxbandwidth are for Windows containers only")
	}
	return nil
}

func (o *options) config() (*wire.ContainerConfig, error) {
	c := &wire.ContainerConfig{
		Hostname: o.hostname, Domainname: o.domainname, User: o.user, Tty: o.tty, OpenStdin: o.interactive,
		Cmd: o.args, Image: o.image, WorkingDir: o.workdir, StopSignal: o.stopSignal,
	}
	var err error
	if c.Env, err = Environment(o.envFiles.Values, o.env.Values); err != nil {
		return nil, err
	}
	if c.Labels, err = labels(o.labelFiles.Values, o.labels.Values); err != nil {
		return nil, err
	}
	if c.Healthcheck, err = o.healthcheck(); err != nil {
		return nil, err
	}
	switch {
	case o.entrypoint != "":
		c.Entrypoint = []string{o.entrypoint}
	case o.entrypointSet:
		c.Entrypoint = []string{""} // the API's word for "none, whatever the image says"
	}
	if o.stopTimeoutSet {
		c.StopTimeout = &o.stopTimeout
	}
	attach := func(stream string) bool { return slices.Contains(o.attach.Values, stream) }
	c.AttachStdin = attach("stdin") || o.interactive
	c.AttachStdout = attach("stdout") || len(o.attach.Values) == 0
	c.AttachStderr = attach("stderr") || len(o.attach.Values) == 0
	c.StdinOnce = c.OpenStdin && c.AttachStdin
	return c, nil
}

func (o *options) hostConfig() (*wire.HostConfig, error) {
	limits, err := o.limits()
	if err != nil {
		return nil, err
	}
	h := &wire.HostConfig{
		ContainerIDFile: o.cidFile, LogConfig: wire.LogConfig{Type: o.logDriver, Config: cli.ToMap(o.logOpts.Values)},
		AutoRemove: o.rm, VolumeDriver: o.volumeDriver, VolumesFrom: o.volumesFrom.Values, Mounts: o.mounts.Values,
		Annotations: o.annotations.Values, CapAdd: Capabilities(o.capAdd.Values), CapDrop: Capabilities(o.capDrop.Values), CgroupnsMode: o.cgroupns,
		// Docker's client sends these three as empty lists, never as null.
		DNS: orEmpty(o.dns.Values), DNSOptions: orEmpty(o.dnsOptions.Values), DNSSearch: orEmpty(o.dnsSearch.Values),
		ExtraHosts: o.hosts.Values, GroupAdd: o.groups.Values, IpcMode: o.ipc, Links: o.links.Values, OomScoreAdj: o.oomScore,
		PidMode: o.pid, Privileged: o.privileged, PublishAllPorts: o.publishAll, ReadonlyRootfs: o.readOnly,
		UTSMode: o.uts, UsernsMode: o.userns, ShmSize: o.shmSize.Value, Sysctls: o.sysctls.Values, Runtime: o.runtime,
		Isolation: o.isolation, Resources: limits,
	}
	if o.initSet {
		h.Init = &o.init
	}
	for _, t := range o.tmpfs.Values {
		target, settings, _ := strings.Cut(t, ":")
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		if !strings.HasPrefix(target, "/") {
			return nil, &fault.Field{Field: "--tmpfs", Given: t, Expected: "an absolute path with options after a colon, such as /run:size=64m,mode=1777"}
		}
		h.Tmpfs[target] = settings
	}
	for _, s := range o.storage.Values {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, &fault.Field{Field: "--storage-opt", Given: s, Expected: "NAME=VALUE such as size=10G"}
		}
		if h.StorageOpt == nil {
			h.StorageOpt = map[string]string{}
		}
		h.StorageOpt[name] = value
	}
	if h.RestartPolicy, err = restartPolicy(o.restart); err != nil {
		return nil, err
	}
	if o.rm && h.RestartPolicy.Name != "no" {
		return nil, fault.New(fault.Invalid, "conflicting options: cannot specify both --restart and --rm")
	}
	return h, o.securityOptions(h)
}

// Capabilities gives the names the one spelling that inspect shows, each once and in order, as docker's client
// sends them. Whether there are such is the engine's to say.
func Capabilities(given []string) []string {
	var names []string
	for _, name := range given {
		name = strings.ToUpper(strings.TrimSpace(name))
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (o *options) limits() (wire.Resources, error) {
	r, err := o.resources.wire()
	if err != nil {
		return r, err
	}
	if r.Devices, err = deviceMappings(o.devices.Values); err != nil {
		return r, err
	}
	r.CgroupParent, r.DeviceCgroupRules, r.Ulimits = o.cgroupParent, o.deviceRules.Values, o.ulimits.Values
	r.BlkioWeightDevice = o.blkioWeightDevice.values
	r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps = o.readBps.values, o.writeBps.values
	r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = o.readIOps.values, o.writeIOps.values
	if o.swappiness >= 0 {
		r.MemorySwappiness = &o.swappiness
	}
	if o.oomKillDisable {
		r.OomKillDisable = &o.oomKillDisable
	}
	return r, nil
}

// restartPolicies are the names of --restart.
var restartPolicies = []string{"no", "always", "unless-stopped", "on-failure"}

// restartPolicy parses no, always, unless-stopped and on-failure[:COUNT]; "" is no.
func restartPolicy(s string) (wire.RestartPolicy, error) {
	name, count, counted := strings.Cut(s, ":")
	if s == "" {
		name = "no"
	}
	bad := &fault.Field{Field: "--restart", Given: s, Expected: "no, always, unless-stopped or on-failure[:COUNT]", Nearest: fault.Nearest(name, restartPolicies)}
	if !slices.Contains(restartPolicies, name) || counted && name != "on-failure" {
		return wire.RestartPolicy{}, bad
	}
	p := wire.RestartPolicy{Name: name}
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 {
			bad.Nearest = ""
			return p, bad
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}

// securityNames are the options of --security-opt.
var securityNames = []string{"apparmor", "label", "no-new-privileges", "seccomp", "systempaths", "writable-cgroups"}

// securityOptions reads --security-opt: the file of a seccomp profile is sent as its content, and
// systempaths=unconfined becomes two empty lists, as the API wants both.
func (o *options) securityOptions(h *wire.HostConfig) error {
	for _, s := range o.security.Values {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			name, value, ok = strings.Cut(s, ":") // the older spelling
		}
		switch {
		case !slices.Contains(securityNames, name):
			return &fault.Field{Field: "--security-opt", Given: s, Expected: "NAME=VALUE with a name of " + strings.Join(securityNames, ", "), Nearest: fault.Nearest(name, securityNames)}
		case (!ok || value == "") && name != "no-new-privileges":
			return &fault.Field{Field: "--security-opt", Given: s, Expected: name + "=VALUE"}
		case name == "systempaths" && value == "unconfined":
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		case name == "seccomp" && value != "unconfined" && value != "builtin":
			profile, err := seccompProfile(value)
			if err != nil {
				return err
			}
			s = "seccomp=" + profile
		}
		h.SecurityOpt = append(h.SecurityOpt, s)
	}
	return nil
}

func seccompProfile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "--security-opt seccomp: %w", err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		return "", fault.New(fault.Invalid, "--security-opt seccomp: %s: %w", path, err)
	}
	return b.String(), nil
}

func (o *options) healthcheck() (*wire.Healthcheck, error) {
	given := o.healthCmd != "" || o.healthInterval != 0 || o.healthTimeout != 0 || o.healthStart != 0 || o.healthStartStep != 0 || o.healthRetries != 0 || o.healthOnFailure != ""
	switch {
	case o.noHealthcheck && given:
		return nil, fault.New(fault.Invalid, "--no-healthcheck conflicts with --health-* options")
	case o.noHealthcheck:
		return &wire.Healthcheck{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil
	}
	h := &wire.Healthcheck{
		Interval: int64(o.healthInterval), Timeout: int64(o.healthTimeout), StartPeriod: int64(o.healthStart),
		StartInterval: int64(o.healthStartStep), Retries: o.healthRetries, OnFailure: o.healthOnFailure,
	}
	for flag, n := range map[string]int64{"interval": h.Interval, "timeout": h.Timeout, "start-period": h.StartPeriod, "start-interval": h.StartInterval, "retries": int64(h.Retries)} {
		if n < 0 {
			return nil, fault.New(fault.Invalid, "--health-%s cannot be negative", flag)
		}
	}
	if o.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", o.healthCmd}
	}
	return h, nil
}
