package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

// key is one entry of daemon.json.
type key struct {
	flag string // the flag that says the same; "" when there is none
	to   any
}

// keys are the entries of daemon.json that mean something here; foreigns are the others.
func (o *options) keys() map[string]key {
	return map[string]key{
		"hosts": {"host", &o.Hosts}, "data-root": {"data-root", &o.DataRoot}, "exec-root": {"exec-root", &o.ExecRoot},
		"pidfile": {"pidfile", &o.PidFile}, "group": {"group", &o.Group}, "debug": {"debug", &o.Debug},
		"log-level": {"log-level", &o.LogLevel}, "log-format": {"log-format", &o.LogFormat}, "metrics-addr": {"metrics-addr", &o.Metrics},
		"labels": {"label", &o.Labels}, "plugin-dirs": {"plugin-dir", &o.PluginDirs},
		"runtime-path": {"runtime-path", &o.Runtime}, "init": {"init", &o.DefaultInit}, "init-path": {"init-path", &o.Init},
		"bridge": {"bridge", &o.Bridge}, "bip": {"bip", &o.BIP}, "fixed-cidr": {"fixed-cidr", &o.FixedCIDR}, "swarm-default-advertise-addr": {"swarm-default-advertise-addr", &o.SwarmAddr}, "ip": {"ip", &o.Publish},
		"icc": {"icc", &o.ICC}, "ip-masq": {"ip-masq", &o.Masquerade}, "default-address-pools": {"default-address-pool", &o.Pools},
		"default-network-opts": {"default-network-opt", &o.NetworkOpts},
		"mtu":                  {"mtu", &o.MTU}, "dns": {"dns", &o.DNS}, "dns-opts": {"dns-opt", &o.DNSOptions}, "dns-search": {"dns-search", &o.DNSSearch},
		"host-gateway-ip": {"host-gateway-ip", &o.HostGateway}, "cgroup-parent": {"cgroup-parent", &o.CgroupParent},
		"log-driver": {"log-driver", &o.LogDriver}, "log-opts": {"log-opt", &o.LogOptions}, "default-ulimits": {"default-ulimit", &o.Ulimits},
		"default-shm-size": {"default-shm-size", (*size)(&o.ShmSize)}, "default-ipc-mode": {"default-ipc-mode", &o.IpcMode},
		"default-cgroupns-mode": {"default-cgroupns-mode", &o.CgroupnsMode}, "default-runtime": {"default-runtime", &o.DefaultRuntime}, "runtimes": {"add-runtime", &o.Runtimes},
		"no-new-privileges": {"no-new-privileges", &o.NoNewPrivileges}, "seccomp-profile": {"seccomp-profile", &o.Seccomp},
		"exec-opts": {"exec-opt", &o.ExecOptions}, "live-restore": {"live-restore", &o.LiveRestore}, "lazy-pull": {"lazy-pull", &o.LazyPull},
		"shutdown-timeout": {"shutdown-timeout", &o.ShutdownTimeout}, "insecure-registries": {"insecure-registry", &o.Insecure},
		"registry-mirrors": {"registry-mirror", &o.Mirrors}, "max-concurrent-downloads": {"max-concurrent-downloads", &o.Downloads},
		"max-concurrent-uploads": {"max-concurrent-uploads", &o.Uploads}, "max-download-attempts": {"max-download-attempts", &o.Attempts},
		"trust": {"", &o.Trust}, "proxies": {"", &o.Proxies}, "tls": {"tls", &o.TLS}, "tlsverify": {"tlsverify", &o.TLSVerify},
		"tlscacert": {"tlscacert", &o.TLSCACert}, "tlscert": {"tlscert", &o.TLSCert}, "tlskey": {"tlskey", &o.TLSKey},
		"userns-remap": {"userns-remap", &o.UsernsRemap}, "subid-dir": {"subid-dir", &o.SubIDs}, "oom-score-adjust": {"oom-score-adjust", &o.OOMScore},
		"allow-plain-tcp": {"allow-plain-tcp", &o.AllowPlainTCP}, "storage-driver": {"storage-driver", &o.StorageDriver},
		"storage-opts": {"storage-opt", &o.StorageOptions},
		// dockerd's flags of these are those of its client's configuration; in the file it knows them in "proxies" alone.
		"http-proxy": {"http-proxy", &o.Proxies.HTTP}, "https-proxy": {"https-proxy", &o.Proxies.HTTPS}, "no-proxy": {"no-proxy", &o.Proxies.No},
	}
}

// maxFile bounds daemon.json.
const maxFile = 4 << 20

// read reads daemon.json, which may be missing, as with dockerd. What a flag says already cannot be
// said there too, as with dockerd: it would be unclear which of them holds.
func (o *options) read(flags *pflag.FlagSet) error {
	f, err := os.Open(o.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) && !flags.Changed("config-file") {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		o.warnings = append(o.warnings, "--config-file "+o.ConfigFile+" does not exist")
		return nil
	}
	if err != nil {
		return fmt.Errorf("--config-file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return fmt.Errorf("--config-file: %w", err)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // of an editor on Windows
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(data, &entries); err != nil {
		return fault.New(fault.Invalid, "--config-file %s: expected a JSON object: %w", o.ConfigFile, err)
	}
	if entries, err = o.renamed(entries); err != nil {
		return err
	}
	if err := o.conflicts(entries, flags); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if err := o.take(name, entries[name]); err != nil {
			return fault.New(fault.ClassOf(err), "%s: %s: %w", o.ConfigFile, name, err)
		}
	}
	return nil
}

// renamed gives entries the names that they have today.
func (o *options) renamed(entries map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	const old, now = "graph", "data-root"
	value, ok := entries[old]
	if !ok {
		return entries, nil
	}
	if _, both := entries[now]; both {
		return nil, fault.New(fault.Invalid, "%s: %s is the old name of %s: expected one of them", o.ConfigFile, old, now)
	}
	entries = maps.Clone(entries)
	delete(entries, old)
	entries[now] = value
	o.warnings = append(o.warnings, o.ConfigFile+": "+old+" is the old name of "+now+": please rename it")
	return entries, nil
}

// conflicts names unknown entries, and those that are given as a flag too.
func (o *options) conflicts(entries map[string]json.RawMessage, flags *pflag.FlagSet) error {
	keys := o.keys()
	known := slices.Sorted(maps.Keys(keys))
	all := slices.Concat(known, slices.Sorted(maps.Keys(foreigns)))
	var both []string
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		k, ok := keys[name]
		x, alien := foreigns[name]
		if !ok && !alien {
			return &fault.Field{Field: "key of " + o.ConfigFile, Given: name, Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(name, all)}
		}
		for _, flag := range flagsOf(name, k.flag+x.flag) {
			if flags.Changed(flag) {
				both = append(both, fmt.Sprintf("%s: (from flag: %s, from file: %s)", name, flagText(flags.Lookup(flag)), oneLine(entries[name])))
			}
		}
	}
	if len(both) > 0 {
		return fault.New(fault.Invalid, "unable to configure the daemon with file %s: the following directives are specified both as a flag and in the configuration file: %s",
			o.ConfigFile, strings.Join(both, ", "))
	}
	return nil
}

// flagsOf are the flags that say what the key says.
func flagsOf(key, flag string) []string {
	if key == "proxies" {
		return []string{"http-proxy", "https-proxy", "no-proxy"}
	}
	return []string{flag}
}

func flagText(f *pflag.Flag) string {
	if text := f.Value.String(); text != "" {
		return text
	}
	return "--" + f.Name
}

func oneLine(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return strings.Trim(b.String(), `"`)
}

// take takes the value of one entry.
func (o *options) take(name string, raw json.RawMessage) error {
	if x, ok := foreigns[name]; ok {
		value, err := x.plain(raw)
		if err != nil {
			return fault.As(fault.Invalid, err)
		}
		return o.foreign(name, value, x)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return fault.As(fault.Invalid, d.Decode(o.keys()[name].to))
}
