package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

// keys are the entries of daemon.json.
func (o *options) keys() map[string]key {
	return map[string]key{
		"hosts": {"host", &o.Hosts}, "data-root": {"data-root", &o.DataRoot}, "exec-root": {"exec-root", &o.ExecRoot},
		"pidfile": {"pidfile", &o.PidFile}, "group": {"group", &o.Group}, "debug": {"debug", &o.Debug},
		"log-level": {"log-level", &o.LogLevel}, "labels": {"label", &o.Labels}, "plugin-dirs": {"plugin-dir", &o.PluginDirs},
		"runtime-path": {"runtime-path", &o.Runtime}, "init-path": {"init-path", &o.Init}, "bridge": {"bridge", &o.Bridge}, "bip": {"bip", &o.BIP},
		"mtu": {"mtu", &o.MTU}, "dns": {"dns", &o.DNS}, "dns-opts": {"dns-opt", &o.DNSOptions}, "dns-search": {"dns-search", &o.DNSSearch},
		"host-gateway-ip": {"host-gateway-ip", &o.HostGateway}, "cgroup-parent": {"cgroup-parent", &o.CgroupParent},
		"log-driver": {"log-driver", &o.LogDriver}, "log-opts": {"log-opt", &o.LogOptions}, "default-ulimits": {"default-ulimit", &o.Ulimits},
		"default-shm-size": {"default-shm-size", (*size)(&o.ShmSize)}, "live-restore": {"live-restore", &o.LiveRestore},
		"shutdown-timeout": {"shutdown-timeout", &o.ShutdownTimeout}, "insecure-registries": {"insecure-registry", &o.Insecure},
		"registry-mirrors": {"registry-mirror", &o.Mirrors}, "tls": {"tls", &o.TLS}, "tlsverify": {"tlsverify", &o.TLSVerify},
		"tlscacert": {"tlscacert", &o.TLSCACert}, "tlscert": {"tlscert", &o.TLSCert}, "tlskey": {"tlskey", &o.TLSKey},
		"userns-remap": {"userns-remap", &o.UsernsRemap}, "subid-dir": {"subid-dir", &o.SubIDs}, "oom-score-adjust": {"oom-score-adjust", &o.OOMScore},
		"allow-plain-tcp": {"allow-plain-tcp", &o.AllowPlainTCP}, "storage-driver": {"storage-driver", &o.StorageDriver},
	}
}

// read reads daemon.json, which may be missing, as with dockerd. What a flag says already cannot be
// said there too, as with dockerd: it would be unclear which of them holds.
func (o *options) read(flags *pflag.FlagSet) error {
	data, err := os.ReadFile(o.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--config-file: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(data, &entries); err != nil {
		return fault.New(fault.Invalid, "--config-file %s: expected a JSON object: %w", o.ConfigFile, err)
	}
	keys := o.keys()
	known := slices.Sorted(maps.Keys(keys))
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		k, ok := keys[name]
		switch {
		case !ok:
			return &fault.Field{Field: "key of " + o.ConfigFile, Given: name, Expected: "one of " + strings.Join(known, ", "), Nearest: fault.Nearest(name, known)}
		case flags.Changed(k.flag):
			return fault.New(fault.Invalid, "%s: %s is also given as the flag --%s: expected one of them", o.ConfigFile, name, k.flag)
		}
		if err := json.Unmarshal(entries[name], k.to); err != nil {
			return fault.New(fault.Invalid, "%s: %s: %w", o.ConfigFile, name, err)
		}
	}
	return nil
}
