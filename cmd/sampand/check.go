package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/api"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/container/userns"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/registry"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/wire"
)

// check reports the first value that is wrong, and completes what is derived from others.
func (o *options) check() error {
	if len(o.Hosts) == 0 {
		o.Hosts = []string{defaultHost}
	}
	for _, check := range []func() error{
		o.checkPaths, o.checkLevel, o.checkNetwork, o.checkContainers, o.checkDrivers, o.checkReloadable,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) checkPaths() error {
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
	return nil
}

func (o *options) checkLevel() error {
	if err := oneOf("--log-format", o.LogFormat, "text", "json"); err != nil {
		return err
	}
	return oneOf("--log-level", o.LogLevel, levelNames...)
}

func oneOf(field, given string, known ...string) error {
	if slices.Contains(known, given) {
		return nil
	}
	words := slices.DeleteFunc(slices.Clone(known), func(word string) bool { return word == "" }) // not given
	return &fault.Field{Field: field, Given: given, Expected: "one of " + strings.Join(words, ", "), Nearest: fault.Nearest(given, words)}
}

func (o *options) checkNetwork() error {
	if o.BIP != "" {
		if _, err := netip.ParsePrefix(o.BIP); err != nil {
			return &fault.Field{Field: "--bip", Given: o.BIP, Expected: "an address with a prefix length, such as 172.30.0.1/16"}
		}
	}
	if o.FixedCIDR != "" {
		p, err := netip.ParsePrefix(o.FixedCIDR)
		if err != nil || !p.Addr().Is4() {
			return &fault.Field{Field: "--fixed-cidr", Given: o.FixedCIDR, Expected: "an IPv4 subnet, such as 172.30.1.0/24"}
		}
		if bridge, err := netip.ParsePrefix(o.BIP); err == nil && (p.Bits() < bridge.Bits() || !bridge.Contains(p.Addr())) {
			return &fault.Field{Field: "--fixed-cidr", Given: o.FixedCIDR, Expected: "a part of --bip's " + bridge.Masked().String()}
		}
		if o.BIP == "" { // as dockerd: the bridge gets the first address of it
			o.BIP = netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits()).String()
		}
	}
	for _, ip := range append(slices.Clone(o.DNS), o.HostGateway, o.Publish) {
		if ip != "" && net.ParseIP(ip) == nil {
			return &fault.Field{Field: "--dns, --host-gateway-ip or --ip", Given: ip, Expected: "an IP address"}
		}
	}
	if o.MTU != 0 && (o.MTU < 68 || o.MTU > 65535) {
		return &fault.Field{Field: "--mtu", Given: fmt.Sprint(o.MTU), Expected: "a number from 68 to 65535"}
	}
	if o.Metrics != "" {
		if _, _, err := net.SplitHostPort(o.Metrics); err != nil {
			return &fault.Field{Field: "--metrics-addr", Given: o.Metrics, Expected: "an address with a port, such as 127.0.0.1:9323"}
		}
	}
	return nil
}

// defaultNetwork are the driver options of the default bridge that say other than the driver's defaults.
func (o *options) defaultNetwork() map[string]string {
	said := map[string]string{}
	if o.MTU != 0 {
		said["mtu"] = strconv.Itoa(o.MTU)
	}
	if o.Publish != "" && o.Publish != "0.0.0.0" {
		said["host_binding"] = o.Publish
	}
	if !o.ICC {
		said["icc"] = "false"
	}
	if !o.Masquerade {
		said["masquerade"] = "false"
	}
	return said
}

func (o *options) checkContainers() error {
	if err := oneOf("--default-ipc-mode", o.IpcMode, "private", "shareable"); err != nil {
		return err
	}
	if err := oneOf("--default-cgroupns-mode", o.CgroupnsMode, "", "host", "private"); err != nil {
		return err
	}
	if err := o.checkRuntimes(); err != nil {
		return err
	}
	if o.OOMScore != nil && (*o.OOMScore < -1000 || *o.OOMScore > 1000) {
		return &fault.Field{Field: "--oom-score-adjust", Given: strconv.Itoa(*o.OOMScore), Expected: "a number from -1000 to 1000"}
	}
	if err := spec.CheckLimits(o.Ulimits); err != nil {
		return fmt.Errorf("default-ulimits: %w", err)
	}
	if _, err := o.securityOptions(); err != nil {
		return err
	}
	return container.ValidateLog(wire.LogConfig{Type: o.LogDriver, Config: o.LogOptions})
}

// maxProfile bounds a seccomp profile, as the API does.
const maxProfile = 1 << 20

// securityOptions are what containers get before their own --security-opt.
func (o *options) securityOptions() ([]string, error) {
	var list []string
	if o.NoNewPrivileges {
		list = append(list, "no-new-privileges=true")
	}
	switch o.Seccomp {
	case "", "builtin", "default":
		return list, nil
	case "unconfined":
		return append(list, "seccomp=unconfined"), nil
	}
	f, err := os.Open(o.Seccomp)
	if err != nil {
		return nil, fmt.Errorf("--seccomp-profile: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxProfile))
	if err != nil {
		return nil, fmt.Errorf("--seccomp-profile: %w", err)
	}
	option := "seccomp=" + string(text)
	if err := spec.Validate(&wire.ContainerConfig{}, &wire.HostConfig{SecurityOpt: []string{option}}); err != nil {
		return nil, fmt.Errorf("--seccomp-profile %s: %w", o.Seccomp, err)
	}
	return append(list, option), nil
}

func (o *options) checkDrivers() error {
	if err := o.checkStorageDriver(); err != nil {
		return err
	}
	for _, given := range o.StorageOptions {
		if err := checkStorageOption(given); err != nil {
			return err
		}
	}
	for _, given := range o.ExecOptions {
		key, value, _ := strings.Cut(given, "=")
		if key != "native.cgroupdriver" {
			return &fault.Field{Field: "--exec-opt", Given: given, Expected: "native.cgroupdriver=cgroupfs or native.cgroupdriver=systemd", Nearest: fault.Nearest(key, []string{"native.cgroupdriver"})}
		}
		if err := oneOf("--exec-opt native.cgroupdriver", value, cgroupDrivers...); err != nil {
			return err
		}
	}
	if o.CgroupParent == "" {
		o.CgroupParent = spec.DefaultCgroupParent(o.systemdCgroup())
	}
	return spec.ValidateCgroupParent(o.CgroupParent, o.systemdCgroup())
}

// cgroupDrivers are who may make the cgroups of containers: the engine itself, or systemd.
var cgroupDrivers = []string{"cgroupfs", "systemd"}

// cgroupDriver is the one that --exec-opt names; the last one holds.
func (o *options) cgroupDriver() string {
	for _, given := range slices.Backward(o.ExecOptions) {
		if _, driver, ok := strings.Cut(given, "="); ok {
			return driver
		}
	}
	return cgroupDrivers[0]
}

func (o *options) systemdCgroup() bool { return o.cgroupDriver() == "systemd" }

// checkStorageOption knows the options of dockerd's overlay2.
func checkStorageOption(given string) error {
	const override, size = "overlay2.override_kernel_check", "overlay2.size"
	key, value, _ := strings.Cut(given, "=")
	switch strings.ToLower(key) {
	case override, "overlay.override_kernel_check": // every kernel that runs this program has what it asked for
		if _, err := strconv.ParseBool(value); err != nil {
			return &fault.Field{Field: "--storage-opt " + key, Given: value, Expected: "true or false"}
		}
		return nil
	case size:
		_, err := storageSize(value)
		return err
	}
	return &fault.Field{Field: "--storage-opt", Given: given, Expected: override + "=true|false or " + size + "=SIZE", Nearest: fault.Nearest(key, []string{override, size})}
}

func storageSize(given string) (uint64, error) {
	n, err := units.RAMInBytes(given)
	if err != nil || n < 0 {
		return 0, &fault.Field{Field: "--storage-opt overlay2.size", Given: given, Expected: "a size such as 10G"}
	}
	return uint64(n), nil
}

// storageSize is overlay2.size, of which the last one holds; 0 is no limit.
func (o *options) storageSize() uint64 {
	for _, given := range slices.Backward(o.StorageOptions) {
		if key, value, _ := strings.Cut(given, "="); strings.ToLower(key) == "overlay2.size" {
			size, _ := storageSize(value) // checkStorageOption has seen it
			return size
		}
	}
	return 0
}

// checkReloadable checks what SIGHUP may change.
func (o *options) checkReloadable() error {
	said := map[string]string{}
	for _, l := range o.Labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return &fault.Field{Field: "--label", Given: l, Expected: "key=value"}
		}
		if before, twice := said[key]; twice && before != value { // as dockerd
			return fault.New(fault.Invalid, "--label: conflict labels for %s and %s=%s", l, key, before)
		}
		said[key] = value
	}
	if o.ShutdownTimeout < -1 {
		return &fault.Field{Field: "--shutdown-timeout", Given: fmt.Sprint(o.ShutdownTimeout), Expected: "seconds, or -1 for no limit"}
	}
	for _, n := range []struct {
		flag  string
		given int
	}{{"--max-concurrent-downloads", o.Downloads}, {"--max-concurrent-uploads", o.Uploads}, {"--max-download-attempts", o.Attempts}} {
		if n.given < 0 {
			return &fault.Field{Field: n.flag, Given: strconv.Itoa(n.given), Expected: "a number, or 0 for the default"}
		}
	}
	if err := o.registries().Validate(); err != nil {
		return err
	}
	_, err := o.trusted()
	return err
}

// checkHost is for --validate: what the start would refuse because of what this host has, or has not. The start does
// not ask it, but finds out where it needs the thing.
func (o *options) checkHost() error {
	certificates, err := o.certificates()
	if err != nil {
		return err
	}
	how := o.listenOptions(certificates)
	for _, host := range o.Hosts {
		if err := api.Check(host, how); err != nil {
			return err
		}
	}
	if o.Runtime != "" {
		if _, err := runtimeProgram(o.Runtime); err != nil {
			return err
		}
	}
	if o.UsernsRemap != "" {
		_, err = userns.Parse(o.UsernsRemap, o.SubIDs)
	}
	return err
}

// trusted is the policy of signatures, with the keys, which are read.
func (o *options) trusted() (*trust.Policy, error) {
	policy, err := o.Trust.Load()
	if err != nil {
		return nil, fault.New(fault.Invalid, "trust: %w", err)
	}
	return policy, nil
}

// registries are what the registry's client is told.
func (o *options) registries() registry.Options {
	mirrors := map[string][]string{}
	if len(o.Mirrors) > 0 {
		mirrors["docker.io"] = o.Mirrors
	}
	return registry.Options{Insecure: o.Insecure, Mirrors: mirrors, Uploads: o.Uploads, Attempts: o.Attempts}
}
