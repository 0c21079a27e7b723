package orchestrator

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func container(change func(*wire.ContainerSpec)) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) { change(s.TaskTemplate.ContainerSpec) }
}

func task(change func(*wire.TaskSpec)) func(*wire.ServiceSpec) {
	return func(s *wire.ServiceSpec) { change(&s.TaskTemplate) }
}

func mount(kind string) wire.MountSpec {
	return wire.MountSpec{Type: kind, Source: "/src", Target: "/a"}
}

func resources(limits *wire.TaskLimit, reserved *wire.NodeResources) func(*wire.ServiceSpec) {
	return task(func(t *wire.TaskSpec) { t.Resources = &wire.TaskResources{Limits: limits, Reservations: reserved} })
}

func network(n ...wire.NetworkAttachment) func(*wire.ServiceSpec) {
	return task(func(t *wire.TaskSpec) { t.Networks = n })
}

func TestValidate(t *testing.T) {
	minus := -time.Second
	huge := uint64(math.MaxUint64)
	for name, tt := range map[string]struct {
		change func(*wire.ServiceSpec)
		err    string
		class  fault.Class
	}{
		"right":           {func(*wire.ServiceSpec) {}, "", 0},
		"too long":        {container(func(c *wire.ContainerSpec) { c.Env = []string{strings.Repeat("a", maxSpec)} }), `specification of the service "419619 bytes": expected at most 419430 bytes`, fault.Invalid},
		"no name":         {func(s *wire.ServiceSpec) { s.Name = "" }, "meta: name must be provided", fault.Invalid},
		"odd name":        {func(s *wire.ServiceSpec) { s.Name = "a.b" }, "name must be valid as a DNS name component", fault.Invalid},
		"long name":       {func(s *wire.ServiceSpec) { s.Name = "a123456789a123456789a123456789a123456789a123456789a123456789a123" }, "name must be 63 characters or fewer", fault.Invalid},
		"no image":        {container(func(c *wire.ContainerSpec) { c.Image = "" }), "ContainerSpec: image reference must be provided", fault.Invalid},
		"odd image":       {container(func(c *wire.ContainerSpec) { c.Image = "A b" }), `ContainerSpec: "A b" is not a valid repository/tag`, fault.Invalid},
		"two mounts":      {container(func(c *wire.ContainerSpec) { c.Mounts = []wire.MountSpec{mount("bind"), mount("tmpfs")} }), "ContainerSpec: duplicate mount point: /a", fault.Invalid},
		"mount type":      {container(func(c *wire.ContainerSpec) { c.Mounts = []wire.MountSpec{mount("disk")} }), `invalid MountType: "disk"`, fault.Invalid},
		"cluster volume":  {container(func(c *wire.ContainerSpec) { c.Mounts = []wire.MountSpec{mount("cluster")} }), "ContainerSpec.Mounts[0].Type: services cannot have cluster volumes here", fault.NotImplemented},
		"grace":           {container(func(c *wire.ContainerSpec) { c.StopGracePeriod = &minus }), `ContainerSpec.StopGracePeriod "-1s": expected a time that is not negative`, fault.Invalid},
		"interval":        {container(func(c *wire.ContainerSpec) { c.Healthcheck = &wire.Healthcheck{Interval: 1} }), "ContainerSpec: Interval in HealthConfig cannot be less than 1ms", fault.Invalid},
		"timeout":         {container(func(c *wire.ContainerSpec) { c.Healthcheck = &wire.Healthcheck{Timeout: -1} }), "ContainerSpec: Timeout in HealthConfig cannot be less than 1ms", fault.Invalid},
		"retries":         {container(func(c *wire.ContainerSpec) { c.Healthcheck = &wire.Healthcheck{Retries: -1} }), "ContainerSpec: Retries in HealthConfig cannot be negative", fault.Invalid},
		"isolation":       {container(func(c *wire.ContainerSpec) { c.Isolation = "hyperv" }), `ContainerSpec.Isolation "hyperv": expected default, the one isolation of containers on Linux`, fault.Invalid},
		"no container":    {task(func(t *wire.TaskSpec) { t.ContainerSpec = nil }), "mismatched Runtime and *Spec fields", fault.Invalid},
		"plugin":          {task(func(t *wire.TaskSpec) { t.Runtime = "plugin" }), "TaskTemplate.PluginSpec: services cannot have plugins as services here", fault.NotImplemented},
		"runtime":         {task(func(t *wire.TaskSpec) { t.Runtime = "vm" }), `unsupported runtime: expected TaskTemplate.Runtime "container" with a ContainerSpec`, fault.Invalid},
		"processors":      {resources(&wire.TaskLimit{NanoCPUs: 1000}, nil), "invalid cpu value 1e-06: Must be at least 0.001", fault.Invalid},
		"memory":          {resources(nil, &wire.NodeResources{MemoryBytes: 4096}), "invalid memory value 4096: Must be at least 4MiB", fault.Invalid},
		"negative memory": {resources(&wire.TaskLimit{MemoryBytes: -1}, nil), "invalid memory value -1: Must be at least 4MiB", fault.Invalid},
		"processes":       {resources(&wire.TaskLimit{Pids: -5}, nil), `TaskTemplate.Resources.Limits.Pids "-5": expected a number of processes, 0 or -1 for no limit`, fault.Invalid},
		"condition":       {restarts("often", 0, 0, 0), `invalid RestartCondition: "often"`, fault.Invalid},
		"delay":           {restarts("any", minus, 0, 0), "TaskSpec: restart-delay cannot be negative", fault.Invalid},
		"window":          {restarts("any", 0, 0, minus), "TaskSpec: restart-window cannot be negative", fault.Invalid},
		"constraint":      {constrained("node.role=manager"), "constraint expected one operator from ==, !=", fault.Invalid},
		"preference":      {placement(wire.Placement{Preferences: []wire.PlacementPreference{{Spread: &wire.SpreadOver{SpreadDescriptor: "zone"}}}}), `TaskTemplate.Placement.Preferences[0].Spread.SpreadDescriptor "zone": expected node.labels.NAME, engine.labels.NAME or another attribute of nodes`, fault.Invalid},
		"no preference":   {placement(wire.Placement{Preferences: []wire.PlacementPreference{{}}}), `TaskTemplate.Placement.Preferences[0] "": expected Spread, the one kind of preference`, fault.Invalid},
		"failure action":  {updates(wire.UpdateConfig{FailureAction: "cry"}), "unrecognized update failure action cry", fault.Invalid},
		"order":           {updates(wire.UpdateConfig{Order: "random"}), "unrecognized update order random", fault.Invalid},
		"update delay":    {updates(wire.UpdateConfig{Delay: minus}), "TaskSpec: update-delay cannot be negative", fault.Invalid},
		"monitor":         {updates(wire.UpdateConfig{Monitor: minus}), "TaskSpec: update-monitor cannot be negative", fault.Invalid},
		"ratio":           {updates(wire.UpdateConfig{MaxFailureRatio: 1.5}), "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1", fault.Invalid},
		"no ratio":        {updates(wire.UpdateConfig{MaxFailureRatio: float32(math.NaN())}), "json: unsupported value: NaN", fault.Invalid},
		"rollback":        {func(s *wire.ServiceSpec) { s.RollbackConfig = &wire.UpdateConfig{Order: "random"} }, "unrecognized update order random", fault.Invalid},
		"two modes":       {func(s *wire.ServiceSpec) { s.Mode.Global = &wire.Global{} }, "must specify only one service mode", fault.Invalid},
		"job with update": {func(s *wire.ServiceSpec) {
			job(1, 1)(s)
			s.UpdateConfig = &wire.UpdateConfig{}
		}, "Jobs may not have an update config", fault.Invalid},
		"too many":        {scale(huge), `number of tasks "18446744073709551615": expected at most 1048576`, fault.Invalid},
		"too many in job": {job(1, huge), `number of tasks "18446744073709551615": expected at most 1048576`, fault.Invalid},
		"resolution mode": {func(s *wire.ServiceSpec) { s.EndpointSpec = &wire.EndpointSpec{Mode: "dns"} }, `invalid resolution mode: "dns"`, fault.Invalid},
		"dnsrr":           {func(s *wire.ServiceSpec) { s.EndpointSpec = &wire.EndpointSpec{Mode: "dnsrr"} }, "EndpointSpec.Mode dnsrr: services cannot have names that resolve to their tasks, as they have no networks of their own here", fault.NotImplemented},
		"dnsrr and port":  {func(s *wire.ServiceSpec) { publishes(anyPort(80))(s); s.EndpointSpec.Mode = "dnsrr" }, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode", fault.Invalid},
		"one port twice":  {publishes(fixed(80, 80), fixed(81, 80)), "EndpointSpec: duplicate published ports provided", fault.Invalid},
		"target port":     {publishes(fixed(0, 80)), `EndpointSpec.Ports[0].TargetPort "0": expected a port, 1 to 65535`, fault.Invalid},
		"published port":  {publishes(fixed(80, 65536)), `EndpointSpec.Ports[0].PublishedPort "65536": expected a port, 1 to 65535, or 0 for any`, fault.Invalid},
		"protocol":        {publishes(wire.ServicePort{TargetPort: 80, Protocol: "icmp"}), `EndpointSpec.Ports[0].Protocol "icmp": expected tcp, udp or sctp`, fault.Invalid},
		"publish mode":    {publishes(wire.ServicePort{TargetPort: 80, PublishMode: "all"}), `EndpointSpec.Ports[0].PublishMode "all": expected ingress or host`, fault.Invalid},
		"udp ingress":     {publishes(wire.ServicePort{TargetPort: 80, Protocol: "udp"}), "EndpointSpec.Ports[0].Protocol udp: services cannot have ports of mode ingress but for tcp (mode host has all) here", fault.NotImplemented},
		"udp of hosts":    {publishes(wire.ServicePort{TargetPort: 80, Protocol: "udp", PublishMode: "host"}), "", 0},
		"host network":    {network(wire.NetworkAttachment{Target: "host"}), "", 0},
		"ports of a host": {func(s *wire.ServiceSpec) {
			network(wire.NetworkAttachment{Target: "host"})(s)
			publishes(anyPort(80))(s)
		}, "EndpointSpec.Ports: expected none with network host: only what is in bridge can publish ports", fault.Invalid},
		"service networks": {func(s *wire.ServiceSpec) { s.Networks = []wire.NetworkAttachment{{Target: "a"}} }, "Networks: expected the networks of a service in TaskTemplate.Networks", fault.NotImplemented},
	} {
		t.Run(name, func(t *testing.T) {
			s := Complete(spec("web", 1, tt.change))
			err := Validate(&s)
			if got := message(err); got != tt.err {
				t.Fatalf("%q\nwant %q", got, tt.err)
			}
			if err != nil && !fault.Is(err, tt.class) {
				t.Errorf("class %v", fault.ClassOf(err))
			}
		})
	}
}

// What is kept of a specification shows the choices that it left open; what it points to stays as it was.
func TestComplete(t *testing.T) {
	given := wire.ServiceSpec{Annotations: wire.Annotations{Name: "web"}}
	given.TaskTemplate.ContainerSpec = &wire.ContainerSpec{Image: "busybox", Mounts: []wire.MountSpec{{Target: "/a"}}}
	given.TaskTemplate.RestartPolicy = &wire.TaskRestart{}
	given.UpdateConfig = &wire.UpdateConfig{Parallelism: 2}
	given.EndpointSpec = &wire.EndpointSpec{Ports: []wire.ServicePort{{TargetPort: 80}}}
	before, _ := json.Marshal(given)
	got, err := json.Marshal(Complete(given))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Name":"web","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"busybox","Mounts":[{"Type":"bind","Target":"/a"}],"Isolation":"default"},` +
		`"RestartPolicy":{"Condition":"any","MaxAttempts":0},"ForceUpdate":0,"Runtime":"container"},"Mode":{"Replicated":{"Replicas":1}},` +
		`"UpdateConfig":{"Parallelism":2,"FailureAction":"pause","MaxFailureRatio":0,"Order":"stop-first"},` +
		`"EndpointSpec":{"Mode":"vip","Ports":[{"Protocol":"tcp","TargetPort":80,"PublishMode":"ingress"}]}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	after, _ := json.Marshal(given)
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Error("Complete changed what it was given:", diff)
	}
	once := Complete(given)
	if diff := cmp.Diff(once, Complete(once)); diff != "" {
		t.Error(diff)
	}
	three := uint64(3)
	j := Complete(wire.ServiceSpec{Mode: wire.ServiceMode{ReplicatedJob: &wire.ReplicatedJob{MaxConcurrent: &three}}})
	if *j.Mode.ReplicatedJob.TotalCompletions != 3 || j.Mode.Replicated != nil {
		t.Errorf("mode %+v", j.Mode)
	}
}

func TestDefaults(t *testing.T) {
	given := Complete(spec("web", 1))
	before, _ := json.Marshal(given)
	d := Defaults(given)
	update := &wire.UpdateConfig{Parallelism: 1, FailureAction: "pause", Monitor: 5 * time.Second, Order: "stop-first"}
	if diff := cmp.Diff([]*wire.UpdateConfig{update, update}, []*wire.UpdateConfig{d.UpdateConfig, d.RollbackConfig}); diff != "" {
		t.Error(diff)
	}
	delay, none := 5*time.Second, uint64(0)
	if diff := cmp.Diff(&wire.TaskRestart{Condition: "any", Delay: &delay, MaxAttempts: &none}, d.TaskTemplate.RestartPolicy); diff != "" {
		t.Error(diff)
	}
	c := d.TaskTemplate.ContainerSpec
	if *c.StopGracePeriod != 10*time.Second || c.DNSConfig == nil || d.TaskTemplate.Placement == nil || d.TaskTemplate.Resources == nil {
		t.Errorf("%+v", d.TaskTemplate)
	}
	after, _ := json.Marshal(given)
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Error("Defaults changed what it was given:", diff)
	}
}
