package service

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// count is a flag of a number that may not be given at all.
type count struct{ value *uint64 }

func (c *count) String() string { return "" }

// Type is the word for the value in help texts.
func (c *count) Type() string { return "uint" }

// Set parses the number.
func (c *count) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return &fault.Field{Given: s, Expected: "a whole number from 0 up"}
	}
	c.value = &n
	return nil
}

// positive is a flag of a duration that is not negative.
type positive struct{ value time.Duration }

func (p *positive) String() string { return "" }

// Type is the word for the value in help texts.
func (p *positive) Type() string { return "duration" }

// Set parses the duration.
func (p *positive) Set(s string) (err error) {
	if p.value, err = time.ParseDuration(s); err != nil || p.value < 0 {
		return &fault.Field{Given: s, Expected: "a duration such as 500ms, 30s or 1m30s, not negative"}
	}
	return nil
}

// ratio is a flag of a part of a whole.
type ratio struct{ value float32 }

func (r *ratio) String() string { return "" }

// Type is the word for the value in help texts.
func (r *ratio) Type() string { return "float" }

// Set parses a number from 0 to 1. Whether it is one of these, says the daemon.
func (r *ratio) Set(s string) error {
	n, err := strconv.ParseFloat(s, 32)
	if err != nil {
		return &fault.Field{Given: s, Expected: "a number such as 0.2"}
	}
	r.value = float32(n)
	return nil
}

// preferences is the flag --placement-pref.
type preferences struct{ values []wire.PlacementPreference }

func (p *preferences) String() string { return "" }

// Type is the word for the value in help texts.
func (p *preferences) Type() string { return "pref" }

// Set parses spread=DESCRIPTOR.
func (p *preferences) Set(s string) error {
	strategy, over, ok := strings.Cut(s, "=")
	switch {
	case !ok || strategy == "":
		return &fault.Field{Given: s, Expected: "STRATEGY=ARGUMENT such as spread=node.labels.datacenter"}
	case strategy != "spread":
		return &fault.Field{Given: s, Expected: "spread=ARGUMENT: it is the only strategy that there is"}
	}
	p.values = append(p.values, wire.PlacementPreference{Spread: &wire.SpreadOver{SpreadDescriptor: over}})
	return nil
}

// credential is the specification of a Windows service account, as the API has it.
type credential struct {
	Config   string `json:"Config"`
	File     string `json:"File"`
	Registry string `json:"Registry"`
}

// credentialSpec is the flag --credential-spec; "" takes a specification away.
type credentialSpec struct{ value *credential }

func (c *credentialSpec) String() string { return "" }

// Type is the word for the value in help texts.
func (c *credentialSpec) Type() string { return "credential-spec" }

// Set parses KIND://NAME.
func (c *credentialSpec) Set(s string) error {
	kind, name, ok := strings.Cut(s, "://")
	switch {
	case s == "":
		c.value = nil
	case ok && kind == "config":
		c.value = &credential{Config: name}
	case ok && kind == "file":
		c.value = &credential{File: name}
	case ok && kind == "registry":
		c.value = &credential{Registry: name}
	default:
		return &fault.Field{Given: s, Expected: "a value that begins with config://, file:// or registry://"}
	}
	return nil
}

// file is a secret or a config that is to lie in the containers.
type file struct {
	source string
	at     wire.FileTarget
}

// files is the flag --secret or --config; kind says which.
type files struct {
	kind   string
	values []file
}

func (f *files) String() string { return "" }

// Type is the word for the value in help texts.
func (f *files) Type() string { return f.kind }

// Set parses NAME, or source=NAME[,target=FILE][,uid=UID][,gid=GID][,mode=MODE].
func (f *files) Set(s string) error {
	fields, err := cli.Fields(s)
	if err != nil {
		return err
	}
	v := file{at: wire.FileTarget{UID: "0", GID: "0", Mode: 0o444}}
	if len(fields) == 1 && !strings.Contains(s, "=") {
		v.source = s
	} else {
		for _, field := range fields {
			if err := v.set(field); err != nil {
				return err
			}
		}
	}
	if v.source == "" {
		return &fault.Field{Given: s, Expected: "source=NAME"}
	}
	if v.at.Name == "" {
		v.at.Name = v.source
	}
	f.values = append(f.values, v)
	return nil
}

// names are the names of the secrets or configs, none of which may take another's place.
func (f *files) names() ([]string, error) {
	names := make([]string, len(f.values))
	for i, v := range f.values {
		if slices.ContainsFunc(f.values[:i], func(other file) bool { return other.at.Name == v.at.Name }) {
			return nil, fault.New(fault.Invalid, "duplicate %s target for %s not allowed", f.kind, v.source)
		}
		names[i] = v.source
	}
	return names, nil
}

var fileKeys = []string{"source", "target", "uid", "gid", "mode"}

func (v *file) set(field string) error {
	key, value, ok := strings.Cut(field, "=")
	bad := &fault.Field{Given: field, Expected: "KEY=VALUE with a key of " + strings.Join(fileKeys, ", "), Nearest: fault.Nearest(key, fileKeys)}
	if !ok {
		return bad
	}
	switch strings.ToLower(key) {
	case "source", "src":
		v.source = value
	case "target":
		v.at.Name = value
	case "uid":
		v.at.UID = value
	case "gid":
		v.at.GID = value
	case "mode":
		mode, err := strconv.ParseUint(value, 0, 32)
		if err != nil {
			return &fault.Field{Given: field, Expected: "a mode such as 0444"}
		}
		v.at.Mode = uint32(mode)
	default:
		return bad
	}
	return nil
}

// networks is the flag --network: a name, or name=NAME with options of the attachment.
type networks struct{ values []wire.NetworkAttachment }

func (n *networks) String() string { return "" }

// Type is the word for the value in help texts.
func (n *networks) Type() string { return "network" }

// Set parses one value.
func (n *networks) Set(s string) error {
	if !strings.Contains(s, "=") {
		n.values = append(n.values, wire.NetworkAttachment{Target: s})
		return nil
	}
	fields, err := cli.Fields(s)
	if err != nil {
		return err
	}
	var a wire.NetworkAttachment
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "name":
			a.Target = strings.TrimSpace(value)
		case "alias":
			a.Aliases = append(a.Aliases, strings.TrimSpace(value))
		case "driver-opt":
			name, text, ok := strings.Cut(value, "=")
			if !ok || name == "" {
				return &fault.Field{Given: field, Expected: "driver-opt=NAME=VALUE"}
			}
			if a.DriverOpts == nil {
				a.DriverOpts = map[string]string{}
			}
			a.DriverOpts[strings.TrimSpace(name)] = strings.TrimSpace(text)
		default: // an address is not a service's, but each task's
			return &fault.Field{Given: field, Expected: "KEY=VALUE with a key of name, alias, driver-opt"}
		}
	}
	if a.Target == "" {
		return &fault.Field{Given: s, Expected: "name=NETWORK among the options"}
	}
	n.values = append(n.values, a)
	return nil
}

// discrete is a number of resources of a kind that the user has named, as the API has it.
type discrete struct {
	Kind  string `json:"Kind"`
	Value int64  `json:"Value"`
}

// generic is one such resource.
type generic struct {
	Discrete *discrete `json:"DiscreteResourceSpec,omitempty"`
}

// parseGenerics reads all that are given, each kind once: more than one of a kind would be names of them.
func parseGenerics(given []string) ([]generic, error) {
	var list []generic
	for _, s := range given {
		g, err := parseGeneric(s)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(other generic) bool { return other.Discrete.Kind == g.Discrete.Kind }) {
			return nil, fault.New(fault.Invalid, "generic-resource %s is given more than once: expected one number of each kind", g.Discrete.Kind)
		}
		list = append(list, g)
	}
	return list, nil
}

// parseGeneric reads KIND=NUMBER.
func parseGeneric(s string) (generic, error) {
	kind, value, ok := strings.Cut(s, "=")
	if !ok || kind == "" {
		return generic{}, &fault.Field{Field: "--generic-resource", Given: s, Expected: "KIND=NUMBER"}
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return generic{}, fault.New(fault.Invalid, "invalid generic-resource request `%s`, Named Generic Resources is not supported for service create or update", s)
	}
	if n < 0 {
		return generic{}, &fault.Field{Field: "--generic-resource", Given: s, Expected: "KIND=NUMBER, not negative"}
	}
	return generic{&discrete{kind, n}}, nil
}

// checkGeneric is the check of flags that take such resources.
func checkGeneric(s string) (string, error) {
	if kind, _, ok := strings.Cut(s, "="); !ok || kind == "" {
		return "", &fault.Field{Given: s, Expected: "KIND=NUMBER"}
	}
	return s, nil
}
