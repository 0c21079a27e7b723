package swarm

import (
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// options are what users decide of a swarm. Only those that are given change it.
type options struct {
	caOptions
	taskHistory      int64
	heartbeat        time.Duration
	maxSnapshots     uint64
	snapshotInterval uint64
	autolock         bool
}

func (o *options) addFlags(f *pflag.FlagSet, autolock string) {
	f.BoolVar(&o.autolock, "autolock", false, autolock)
	f.DurationVar(&o.heartbeat, "dispatcher-heartbeat", 5*time.Second, "Dispatcher heartbeat period (ns|us|ms|s|m|h)")
	f.Uint64Var(&o.maxSnapshots, "max-snapshots", 0, "Number of additional Raft snapshots to retain")
	f.Uint64Var(&o.snapshotInterval, "snapshot-interval", 10000, "Number of log entries between Raft snapshots")
	f.Int64Var(&o.taskHistory, "task-history-limit", 5, "Task history retention limit")
	o.caOptions.addFlags(f)
}

// apply changes a specification; root is the certificate for external authorities that are given none.
func (o *options) apply(s *wire.SwarmSpec, f *pflag.FlagSet, root string) {
	if f.Changed("task-history-limit") {
		s.Orchestration.TaskHistoryRetentionLimit = &o.taskHistory
	}
	if f.Changed("dispatcher-heartbeat") {
		s.Dispatcher.HeartbeatPeriod = o.heartbeat
	}
	if f.Changed("max-snapshots") {
		s.Raft.KeepOldSnapshots = &o.maxSnapshots
	}
	if f.Changed("snapshot-interval") {
		s.Raft.SnapshotInterval = o.snapshotInterval
	}
	if f.Changed("autolock") {
		s.EncryptionConfig.AutoLockManagers = o.autolock
	}
	o.caOptions.apply(s, f, root)
}

// caOptions are what users decide of the certificates.
type caOptions struct {
	expiry   time.Duration
	external externalCAs
}

func (o *caOptions) addFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.expiry, "cert-expiry", 90*24*time.Hour, "Validity period for node certificates (ns|us|ms|s|m|h)")
	f.Var(&o.external, "external-ca", "Specifications of one or more certificate signing endpoints")
}

func (o *caOptions) apply(s *wire.SwarmSpec, f *pflag.FlagSet, root string) {
	if f.Changed("cert-expiry") {
		s.CAConfig.NodeCertExpiry = o.expiry
	}
	if !f.Changed("external-ca") {
		return
	}
	s.CAConfig.ExternalCAs = nil
	for _, ca := range o.external.values {
		if ca.CACert == "" {
			ca.CACert = root
		}
		s.CAConfig.ExternalCAs = append(s.CAConfig.ExternalCAs, ca)
	}
}

// externalCA is an authority beside the swarm that signs certificates, as the API has it.
type externalCA struct {
	Protocol string            `json:"Protocol"`
	URL      string            `json:"URL"`
	Options  map[string]string `json:"Options,omitempty"`
	CACert   string            `json:"CACert"`
}

// externalCAs is the flag --external-ca.
type externalCAs struct{ values []externalCA }

func (e *externalCAs) String() string { return "" }

// Type is the word for the value in help texts.
func (e *externalCAs) Type() string { return "external-ca" }

// Set parses one protocol=cfssl,url=URL[,cacert=FILE][,OPTION=VALUE...].
func (e *externalCAs) Set(s string) error {
	fields, err := cli.Fields(s)
	if err != nil {
		return err
	}
	ca := externalCA{Options: map[string]string{}}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return &fault.Field{Given: field, Expected: "KEY=VALUE"}
		}
		switch strings.ToLower(key) {
		case "protocol":
			if ca.Protocol = strings.ToLower(value); ca.Protocol != "cfssl" {
				return &fault.Field{Given: field, Expected: "protocol=cfssl"}
			}
		case "url":
			ca.URL = value
		case "cacert":
			if ca.CACert, err = readPEM(value); err != nil {
				return err
			}
		default:
			ca.Options[key] = value
		}
	}
	switch {
	case ca.Protocol == "":
		return &fault.Field{Given: s, Expected: "a protocol= parameter"}
	case ca.URL == "":
		return &fault.Field{Given: s, Expected: "a url= parameter"}
	}
	e.values = append(e.values, ca)
	return nil
}

// pemFile is a flag that names a file in PEM format, of which the content counts.
type pemFile struct{ content string }

func (p *pemFile) String() string { return "" }

// Type is the word for the value in help texts.
func (p *pemFile) Type() string { return "pem-file" }

// Set reads the file.
func (p *pemFile) Set(path string) (err error) {
	p.content, err = readPEM(path)
	return err
}

// maxPEM bounds a file of certificates or keys.
const maxPEM = 1 << 20

func readPEM(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fault.As(fault.Invalid, err)
	}
	if block, _ := pem.Decode(data); block == nil || len(data) > maxPEM {
		return "", &fault.Field{Given: path, Expected: "a file in PEM format"}
	}
	return string(data), nil
}

// listenPort is where the nodes of a swarm listen.
const listenPort = "2377"

// nodeAddress is the flag --listen-addr: an address or an interface, with the port that is usual if it has none.
type nodeAddress struct{ value string }

func (a *nodeAddress) String() string { return a.value }

// Type is the word for the value in help texts.
func (a *nodeAddress) Type() string { return "node-addr" }

// Set completes ADDRESS[:PORT] or :PORT.
func (a *nodeAddress) Set(s string) error {
	bad := &fault.Field{Given: s, Expected: "ADDRESS[:PORT] or INTERFACE[:PORT]"}
	given := strings.TrimPrefix(s, "tcp://")
	if _, err := netip.ParseAddr(given); err == nil { // one of IPv6 has colons, too
		given = net.JoinHostPort(given, listenPort)
	}
	host, port, err := net.SplitHostPort(given)
	if err != nil { // it has no port, or is no address
		if host, port, err = net.SplitHostPort(given + ":" + listenPort); err != nil {
			return bad
		}
	}
	if port == "" {
		port = listenPort
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && port != "0" || strings.ContainsAny(host, "/ ") {
		return bad
	}
	a.value = net.JoinHostPort(host, port)
	return nil
}

// availability checks --availability, which is sent only when it is given.
func availability(f *pflag.FlagSet, given string) (string, error) {
	if !f.Changed("availability") {
		return "", nil
	}
	a := strings.ToLower(given)
	if !slices.Contains([]string{wire.AvailabilityActive, wire.AvailabilityPause, wire.AvailabilityDrain}, a) {
		return "", fault.New(fault.Invalid, "invalid availability %q, only active, pause and drain are supported", given)
	}
	return a, nil
}
