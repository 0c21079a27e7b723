package env

import (
	"fmt"
	"path"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
	"github.com/sampan-project/sampan/starlark/graph"
	"github.com/sampan-project/sampan/starlark/probe"
	"github.com/sampan-project/sampan/starlark/reference"
)

// commandType is a command line: a string is split at spaces by nobody, so it is for the shell.
var commandType = arg.Type{Name: "list of string, or a string for the shell", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if s, ok := starlark.AsString(v); ok {
		return []graph.Text{graph.Plain("/bin/sh"), graph.Plain("-c"), graph.Plain(s)}, nil
	}
	list, reject := arg.List[graph.Text](graph.TextType).Convert(v)
	if reject == nil {
		return list, nil
	}
	if len(reject.Path) == 0 {
		reject.Expected = "list of string, or a string for the shell"
	}
	return nil, reject
}}

// imageType is an image of the environment, or the name of another one.
var imageType = arg.Type{Name: "image or name of an image", Convert: func(v starlark.Value) (any, *arg.Reject) {
	if r, ok := v.(*graph.Ref); ok && r.Kind() == graph.KindImage {
		return r, nil
	}
	if b, ok := v.(*buildValue); ok {
		return nil, &arg.Reject{Expected: "image or name of an image", Given: b, Cure: "give it a name: image(\"app\", build = build(...))"}
	}
	ref, reject := graph.PlainText(reference.Type).Convert(v)
	if reject != nil && reject.Message == "" {
		reject.Expected = "an image, or the name of one such as \"debian:13\""
	}
	if reject != nil {
		return nil, reject
	}
	return ref, nil
}}

var restartPattern = diag.Pattern(`^(no|always|unless-stopped|on-failure(:\d{1,5})?)$`)

// restartType is a restart policy.
var restartType = arg.Type{Name: "restart policy", Choices: []string{"no", "always", "unless-stopped", "on-failure"}, Convert: func(v starlark.Value) (any, *arg.Reject) {
	s, ok := starlark.AsString(v)
	if ok && restartPattern().MatchString(s) {
		return s, nil
	}
	return nil, &arg.Reject{Expected: `"no", "always", "unless-stopped" or "on-failure[:COUNT]"`, Given: v, Nearest: fault.Nearest(s, []string{"no", "always", "unless-stopped", "on-failure"})}
}}

var ulimitPattern = diag.Pattern(`^(-1|\d{1,18})(?::(-1|\d{1,18}))?$`)

// ulimitType is SOFT or SOFT:HARD.
var ulimitType = arg.Of(`a limit such as 1024 or "1024:2048"`, func(v starlark.Value) (wire.Ulimit, bool) {
	text := ""
	switch v := v.(type) {
	case starlark.Int:
		text = v.String()
	case starlark.String:
		text = string(v)
	}
	m := ulimitPattern().FindStringSubmatch(text)
	if m == nil {
		return wire.Ulimit{}, false
	}
	soft, _ := strconv.ParseInt(m[1], 10, 64) // the pattern admits only numbers
	hard := soft
	if m[2] != "" {
		hard, _ = strconv.ParseInt(m[2], 10, 64)
	}
	return wire.Ulimit{Soft: soft, Hard: hard}, hard < 0 || soft >= 0 && soft <= hard
})

var devicePattern = diag.Pattern(`^(/[^:]+)(?::(/[^:]+))?(?::([rwm]{1,3}))?$`)

// deviceType is a device of the host; its Go value is HOST:CONTAINER:PERMISSIONS.
var deviceType = arg.Of(`a device such as "/dev/fuse" or "/dev/sda:/dev/xvda:r"`, func(v starlark.Value) (string, bool) {
	s, _ := starlark.AsString(v)
	m := devicePattern().FindStringSubmatch(s)
	if m == nil {
		return "", false
	}
	if m[2] == "" {
		m[2] = m[1]
	}
	if m[3] == "" {
		m[3] = "rwm"
	}
	return path.Clean(m[1]) + ":" + path.Clean(m[2]) + ":" + m[3], true
})

var texts = arg.List[string](plain)

func (e *evaluation) containerFunc() arg.Func {
	return arg.Func{
		Name: "container", Positional: 1, Named: true, Returns: "container",
		Doc: "A container. Those that share a network reach it by its name. Its value has .started, .healthy and .completed, for needs; and .address and .id, which are known after apply.",
		Example: `db = container("db", image = "postgres:16", networks = [back],
    mounts = [data.at("/var/lib/postgresql/data")],
    health = probe.exec(["pg_isready"], interval = "5s"))`,
		Params: []arg.Param{
			{Name: "name", Type: name, Required: true, Doc: "Its name in the environment."},
			{Name: "image", Type: imageType, Required: true, Doc: "What image() returned, or the name of an image, which is pulled when it is missing."},
			{Name: "pull", Type: arg.OneOf("missing", "always", "never"), Default: "missing", Doc: "When to pull the image."},
			{Name: "platform", Type: plain, Default: "", Shows: "the engine's", Doc: "The platform, such as linux/arm64."},
			{Name: "command", Type: commandType, Shows: "the image's", Doc: "The command: a list, or a string for the shell."},
			{Name: "entrypoint", Type: commandType, Shows: "the image's", Doc: "The program that runs the command."},
			{Name: "env", Type: arg.Dict[graph.Text](graph.TextType), Doc: "Variables of the environment."},
			{Name: "user", Type: plain, Default: "", Shows: "the image's", Doc: "USER, or USER:GROUP; names or numbers."},
			{Name: "workdir", Type: graph.PlainText(arg.Absolute), Default: "", Shows: "the image's", Doc: "The working directory."},
			{Name: "hostname", Type: plain, Default: "", Shows: "the container's ID", Doc: "The host name."},
			{Name: "domainname", Type: plain, Default: "", Doc: "The domain name."},
			{Name: "networks", Type: arg.List[*graph.Ref](graph.RefType(graph.KindNetwork)), Shows: "the engine's default network", Doc: "The networks that it is in."},
			{Name: "network_mode", Type: plain, Default: "", Doc: "One of the engine's own networks: bridge, host or none."},
			{Name: "aliases", Type: texts, Doc: "Further names on its networks."},
			{Name: "ports", Type: arg.List[[]string](portsType), Doc: "Ports that the host publishes: \"HOST:CONTAINER\", with an address before and /udp behind if need be."},
			{Name: "mounts", Type: arg.List[*graph.MountValue](graph.MountType), Doc: "volume.at(...), bind(...).at(...) and tmpfs(...).at(...)."},
			{Name: "needs", Type: arg.List[*graph.ConditionValue](graph.NeedType), Doc: "What must be true before it starts, such as db.healthy."},
			{Name: "health", Type: probe.Type, Shows: "the image's", Doc: "How to find out whether it is healthy."},
			{Name: "restart", Type: restartType, Default: "no", Doc: "What to do when it ends: no, always, unless-stopped or on-failure[:COUNT]."},
			{Name: "once", Type: arg.Bool, Default: false, Doc: "It ends by itself; having ended with status 0 is as it should be."},
			{Name: "replicas", Type: arg.Int(1, 1000), Default: int64(1), Doc: "How many of it there are."},
			{Name: "memory", Type: arg.Size, Default: int64(0), Shows: "no limit", Doc: "Memory limit, such as 512m."},
			{Name: "cpus", Type: arg.CPUs, Default: int64(0), Shows: "no limit", Doc: "How many CPUs it may use, such as 0.5."},
			{Name: "pids_limit", Type: arg.Int(1, 1<<22), Default: int64(0), Shows: "no limit", Doc: "How many processes it may have."},
			{Name: "shm_size", Type: arg.Size, Default: int64(0), Shows: "64m", Doc: "The size of /dev/shm."},
			{Name: "ulimits", Type: arg.Dict[wire.Ulimit](ulimitType), Doc: "Resource limits, such as {\"nofile\": 1024}."},
			{Name: "read_only", Type: arg.Bool, Default: false, Doc: "It cannot write to its root filesystem."},
			{Name: "init", Type: arg.Bool, Default: false, Doc: "A small init forwards signals and reaps processes."},
			{Name: "tty", Type: arg.Bool, Default: false, Doc: "It has a terminal."},
			{Name: "stdin_open", Type: arg.Bool, Default: false, Doc: "Its standard input stays open."},
			{Name: "privileged", Type: arg.Bool, Default: false, Doc: "It may do all that root of the host may."},
			{Name: "cap_add", Type: texts, Doc: "Further capabilities, such as NET_ADMIN."},
			{Name: "cap_drop", Type: texts, Doc: "Capabilities that it does without; ALL is all."},
			{Name: "group_add", Type: texts, Doc: "Further groups."},
			{Name: "security_opt", Type: texts, Doc: "Security options, such as no-new-privileges."},
			{Name: "dns", Type: texts, Doc: "Name servers."},
			{Name: "dns_search", Type: texts, Doc: "Domains that names are looked for in."},
			{Name: "extra_hosts", Type: arg.Dict[string](plain), Doc: "Further names: {\"name\": \"address\"}."},
			{Name: "devices", Type: arg.List[string](deviceType), Doc: "Devices of the host."},
			{Name: "sysctls", Type: arg.Dict[string](option), Doc: "Kernel parameters of its namespaces."},
			{Name: "labels", Type: arg.Dict[graph.Text](graph.TextType), Doc: "Labels."},
			{Name: "stop_signal", Type: plain, Default: "", Shows: "the image's, or SIGTERM", Doc: "The signal that asks it to end."},
			{Name: "stop_timeout", Type: arg.Duration, Default: time.Duration(0), Shows: `"10s"`, Doc: "How long it may take to end before it is killed."},
		},
		Do: e.container,
	}
}

func (e *evaluation) container(c *arg.Call) (starlark.Value, error) {
	spec, err := e.containerSpec(c)
	if err != nil {
		return nil, err
	}
	name, replicas := arg.Get[string](c, "name"), int(arg.Get[int64](c, "replicas"))
	if replicas > 1 {
		for _, p := range spec.Ports {
			if !strings.Contains(p, "::") {
				return nil, &diag.Problem{Subject: c.Subject, Arg: "ports", Message: fmt.Sprintf("all %d replicas would publish the host's port of %q", replicas, p), Cure: "leave the host's port out, so that each gets a free one"}
			}
		}
	}
	var resources []*graph.Resource
	for i := range replicas {
		address := graph.Address{Kind: graph.KindContainer, Name: name}
		own := *spec
		if replicas > 1 {
			address.Name = fmt.Sprintf("%s-%d", name, i+1)
			own.Aliases = append([]string{name}, own.Aliases...)
		}
		r := &graph.Resource{Address: address, Spec: &own}
		e.require(c, r, &own)
		resources = append(resources, r)
	}
	return e.declare(c, graph.KindContainer, name, resources...)
}

// require adds what the container needs, said or implied.
func (e *evaluation) require(c *arg.Call, r *graph.Resource, spec *graph.Container) {
	if built := e.builtImage(spec.Image); built != nil {
		r.Require(built.Address, graph.Exists)
	}
	for _, n := range spec.Networks {
		r.Require(n, graph.Exists)
	}
	for _, m := range spec.Mounts {
		if !m.Volume.IsZero() {
			r.Require(m.Volume, graph.Exists)
		}
	}
	for _, u := range spec.Unknowns() {
		if of := u.Of(); of.Kind == graph.KindContainer {
			r.Require(of, graph.Started)
		} else if !of.IsZero() {
			r.Require(of, graph.Exists)
		}
	}
	for _, n := range arg.Get[[]*graph.ConditionValue](c, "needs") {
		for _, on := range n.Ref.Resources {
			r.Require(on.Address, n.Condition)
			if of, ok := on.Spec.(*graph.Container); ok && n.Condition == graph.Completed {
				of.Once = true // somebody waits for its end: that it has ended is as it should be
			}
		}
	}
}

func (e *evaluation) containerSpec(c *arg.Call) (*graph.Container, error) {
	s := &graph.Container{
		Pull: arg.Get[string](c, "pull"), Platform: arg.Get[string](c, "platform"), Command: arg.Get[[]graph.Text](c, "command"),
		Entrypoint: arg.Get[[]graph.Text](c, "entrypoint"), Env: arg.Get[map[string]graph.Text](c, "env"), User: arg.Get[string](c, "user"),
		Workdir: arg.Get[string](c, "workdir"), Hostname: arg.Get[string](c, "hostname"), Domainname: arg.Get[string](c, "domainname"),
		Once: arg.Get[bool](c, "once"), Memory: arg.Get[int64](c, "memory"), CPUs: arg.Get[int64](c, "cpus"), PidsLimit: arg.Get[int64](c, "pids_limit"),
		ShmSize: arg.Get[int64](c, "shm_size"), ReadOnly: arg.Get[bool](c, "read_only"), Init: arg.Get[bool](c, "init"), TTY: arg.Get[bool](c, "tty"),
		StdinOpen: arg.Get[bool](c, "stdin_open"), Privileged: arg.Get[bool](c, "privileged"), CapAdd: sorted(capabilities(arg.Get[[]string](c, "cap_add"))),
		CapDrop: sorted(capabilities(arg.Get[[]string](c, "cap_drop"))), GroupAdd: arg.Get[[]string](c, "group_add"), SecurityOpt: arg.Get[[]string](c, "security_opt"),
		DNS: arg.Get[[]string](c, "dns"), DNSSearch: arg.Get[[]string](c, "dns_search"), Devices: arg.Get[[]string](c, "devices"),
		Sysctls: arg.Get[map[string]string](c, "sysctls"), Labels: arg.Get[map[string]graph.Text](c, "labels"), StopSignal: arg.Get[string](c, "stop_signal"),
	}
	if restart := arg.Get[string](c, "restart"); restart != "no" {
		s.Restart = restart
	}
	switch v := arg.Get[any](c, "image").(type) {
	case *graph.Ref:
		s.Image = v.Resources[0].Spec.(*graph.Image).Tags[0]
	case string:
		s.Image = v
	}
	if c.Given("stop_timeout") {
		seconds := int64(arg.Get[time.Duration](c, "stop_timeout") / time.Second)
		s.StopTimeout = &seconds
	}
	for _, host := range arg.Keys(arg.Get[map[string]string](c, "extra_hosts")) {
		s.ExtraHosts = append(s.ExtraHosts, host+":"+arg.Get[map[string]string](c, "extra_hosts")[host])
	}
	for _, name := range arg.Keys(arg.Get[map[string]wire.Ulimit](c, "ulimits")) {
		u := arg.Get[map[string]wire.Ulimit](c, "ulimits")[name]
		u.Name = name
		s.Ulimits = append(s.Ulimits, u)
	}
	if p := arg.Get[*probe.Value](c, "health"); p != nil {
		h := p.Check
		s.Health = &graph.Health{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: int64(h.Retries)}
	}
	for _, check := range []func(*arg.Call, *graph.Container) error{checkNames, e.placeNetworks, placePorts, placeMounts} {
		if err := check(c, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// capabilities have no prefix and are in capitals.
func capabilities(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.TrimPrefix(strings.ToUpper(s), "CAP_"))
	}
	return out
}

func sorted(list []string) []string {
	sort.Strings(list)
	return list
}

func checkNames(c *arg.Call, s *graph.Container) error {
	for _, name := range arg.Keys(s.Env) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return c.Problem("env", "expected names of variables, got %q", name)
		}
	}
	return labels(c, arg.Keys(s.Labels))
}

var modes = []string{"bridge", "host", "none"}

func (e *evaluation) placeNetworks(c *arg.Call, s *graph.Container) error {
	seen := map[graph.Address]bool{}
	for i, r := range arg.Get[[]*graph.Ref](c, "networks") {
		if seen[r.Address()] {
			p := c.Problem("networks", "%s is given twice", r)
			p.Path = []diag.Step{diag.Index(i)}
			return p
		}
		seen[r.Address()] = true
		s.Networks = append(s.Networks, r.Address())
	}
	s.Aliases = sorted(append([]string(nil), arg.Get[[]string](c, "aliases")...))
	mode := arg.Get[string](c, "network_mode")
	switch {
	case mode == "":
	case len(s.Networks) > 0:
		return c.Problem("network_mode", "expected networks or network_mode, got both")
	case mode != "bridge" && mode != "host" && mode != "none":
		p := c.Problem("network_mode", "expected bridge, host or none, got %q", mode)
		p.Nearest = fault.Nearest(mode, modes)
		return p
	case mode != "bridge": // the default is absent
		s.NetworkMode = mode
	}
	if len(s.Aliases) > 0 && len(s.Networks) == 0 {
		return c.Problem("aliases", "names are for networks of the environment, and it is in none: give networks = [...]")
	}
	return nil
}

func placePorts(c *arg.Call, s *graph.Container) error {
	seen := map[string]bool{}
	for i, list := range arg.Get[[][]string](c, "ports") {
		for _, p := range list {
			if seen[p] {
				problem := c.Problem("ports", "the port is given twice")
				problem.Path = []diag.Step{diag.Index(i)}
				return problem
			}
			seen[p] = true
			s.Ports = append(s.Ports, p)
		}
	}
	if len(s.Ports) > 0 && s.NetworkMode != "" {
		return c.Problem("ports", "nothing can be published with network_mode = %q", s.NetworkMode)
	}
	sort.Strings(s.Ports)
	return nil
}

func placeMounts(c *arg.Call, s *graph.Container) error {
	seen := map[string]bool{}
	for i, m := range arg.Get[[]*graph.MountValue](c, "mounts") {
		if seen[m.Mount.Target] {
			p := c.Problem("mounts", "two mounts at %q", m.Mount.Target)
			p.Path = []diag.Step{diag.Index(i)}
			return p
		}
		seen[m.Mount.Target] = true
		s.Mounts = append(s.Mounts, m.Mount)
	}
	sort.Slice(s.Mounts, func(i, j int) bool { return s.Mounts[i].Target < s.Mounts[j].Target })
	return nil
}
