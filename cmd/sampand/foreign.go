package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

// foreign is a setting of dockerd that means nothing here, by the name that daemon.json and the
// command line have for it. Values that ask for what happens anyway are taken in silence; of others the
// daemon says that they have no effect or, where a user would rely on one, does not start.
type foreign struct {
	flag     string // "" when there is none
	kind     string // bool, number, text, list or map
	harmless []string
	refused  bool
	why      string
}

const (
	noContainerd = "there is no containerd: the monitor is the parent of the containers"
	noOverlay    = "there are no networks over several daemons"
	rulesAreOurs = "every network has an nft table of its own, which publishing ports and leaving the host need"
)

var foreigns = map[string]foreign{
	"allow-direct-routing": {"allow-direct-routing", "bool", []string{"false"}, true, "published ports are filtered as Docker does by default; route to a network with its own option"},
	"allow-nondistributable-artifacts": {"allow-nondistributable-artifacts", "list", nil, false,
		"Docker itself takes and ignores it since 28: such layers are pushed as others are"},
	"authorization-plugins":        {"authorization-plugin", "list", nil, true, "there is no protocol for them: give the API to a group, or to holders of TLS certificates"},
	"bip6":                         {"bip6", "text", nil, true, "the default bridge has IPv4 only: make a network with --ipv6"},
	"bridge-accept-fwmark":         {"bridge-accept-fwmark", "text", nil, true, rulesAreOurs},
	"builder":                      {"", "map", nil, false, "the build cache has limits of its own: sampan builder prune"},
	"cdi-spec-dirs":                {"cdi-spec-dir", "list", nil, false, "CDI devices are not read"},
	"cluster-advertise":            {"cluster-advertise", "text", nil, true, noOverlay + ", and Docker has removed it"},
	"cluster-store":                {"cluster-store", "text", nil, true, noOverlay + ", and Docker has removed it"},
	"cluster-store-opts":           {"cluster-store-opt", "map", nil, true, noOverlay + ", and Docker has removed it"},
	"containerd":                   {"containerd", "text", nil, false, noContainerd},
	"containerd-namespace":         {"containerd-namespace", "text", nil, false, noContainerd},
	"containerd-plugins-namespace": {"containerd-plugins-namespace", "text", nil, false, noContainerd},
	"cpu-rt-period":                {"cpu-rt-period", "number", []string{"0"}, true, "real-time time is given to containers alone: run --cpu-rt-period"},
	"cpu-rt-runtime":               {"cpu-rt-runtime", "number", []string{"0"}, true, "real-time time is given to containers alone: run --cpu-rt-runtime"},
	"default-gateway":              {"default-gateway", "text", nil, true, "the default bridge is the gateway of its containers: name its address with bip"},
	"default-gateway-v6":           {"default-gateway-v6", "text", nil, true, "the default bridge has IPv4 only: make a network with --ipv6"},
	"deprecated-key-path":          {"deprecated-key-path", "text", nil, false, "the engine's identity is the file engine-id in data-root"},
	"experimental":                 {"experimental", "bool", []string{"false"}, false, "there are no experimental features"},
	"features":                     {"feature", "map", nil, false, "there are no features to be switched"},
	"firewall-backend":             {"firewall-backend", "text", []string{"nftables"}, true, "rules are nftables'"},
	"fixed-cidr-v6":                {"fixed-cidr-v6", "text", nil, true, "the default bridge has IPv4 only: make a network with --ipv6"},
	"ip-forward":                   {"ip-forward", "bool", []string{"true"}, true, "bridges need net.ipv4.ip_forward"},
	"ip-forward-no-drop":           {"ip-forward-no-drop", "bool", nil, false, "the engine never sets the policy of another's chain"},
	"ip6tables":                    {"ip6tables", "bool", []string{"true"}, true, rulesAreOurs},
	"iptables":                     {"iptables", "bool", []string{"true"}, true, rulesAreOurs},
	"ipv6":                         {"ipv6", "bool", []string{"false"}, true, "the default bridge has IPv4 only: make a network with --ipv6"},
	"network-control-plane-mtu":    {"network-control-plane-mtu", "number", []string{"0", "1500"}, false, noOverlay},
	"node-generic-resources":       {"node-generic-resource", "list", nil, false, "services cannot ask for generic resources"},
	"raw-logs":                     {"raw-logs", "bool", []string{"true", "false"}, false, "the daemon's log has no colours"},
	"rootless":                     {"rootless", "bool", []string{"false"}, true, "the daemon needs root; sampan-runtime alone runs without"},
	"selinux-enabled":              {"selinux-enabled", "bool", []string{"false"}, true, "SELinux labels are not handled"},
	"userland-proxy":               {"userland-proxy", "bool", []string{"true", "false"}, false, "published ports are the kernel's work"},
	"userland-proxy-path":          {"userland-proxy-path", "text", nil, false, "published ports are the kernel's work, there is no proxy"},
}

func (o *options) addForeignFlags(f *pflag.FlagSet) {
	for key, x := range foreigns {
		if x.flag == "" {
			continue
		}
		flag := f.VarPF(&foreignFlag{o: o, key: key, x: x}, x.flag, "", "Docker's: "+x.why)
		flag.Hidden = true
		if x.kind == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// foreignFlag is a flag of dockerd that means nothing here.
type foreignFlag struct {
	o   *options
	key string
	x   foreign
}

func (f *foreignFlag) Set(text string) error { return f.o.foreign("--"+f.x.flag, text, f.x) }
func (f *foreignFlag) String() string        { return "" }
func (f *foreignFlag) Type() string          { return f.x.kind }

// foreign takes a value of a setting that means nothing here.
func (o *options) foreign(name, value string, x foreign) error {
	switch {
	case value == "" || slices.Contains(x.harmless, value):
	case x.refused:
		return fault.New(fault.NotImplemented, "%s is not supported: %s", value, x.why)
	default:
		o.warnings = append(o.warnings, name+" has no effect: "+x.why)
	}
	return nil
}

// plain is the value of a key in one line, "" for an empty one, after a look at its type.
func (x foreign) plain(raw json.RawMessage) (string, error) {
	to := map[string]any{"bool": new(bool), "number": new(float64), "text": new(string), "list": new([]any), "map": new(map[string]any)}[x.kind]
	if err := json.Unmarshal(raw, to); err != nil {
		return "", err
	}
	if text, ok := to.(*string); ok {
		return *text, nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", err
	}
	return strings.TrimSpace(strings.NewReplacer("{}", "", "[]", "", "null", "").Replace(b.String())), nil
}
