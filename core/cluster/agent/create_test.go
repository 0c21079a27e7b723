package agent

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Every field of a task has its place in the container.
func TestRequest(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	yes, grace, pids := true, 90*time.Second, int64(7)
	ninety := 90
	full := wanted("task1", func(w *session.Task) {
		w.Labels = map[string]string{"from": "task"}
		w.Spec = wire.TaskSpec{
			Runtime: "container",
			ContainerSpec: &wire.ContainerSpec{
				Image: "docker.io/library/busybox", Labels: map[string]string{"a": "b", "from": "service", labelTaskID: "forged"}, Command: []string{"sh"},
				Args: []string{"-c", "x"}, Hostname: "h-{{.Task.Slot}}", Env: []string{"NODE={{.Node.Hostname}}", "PLAIN", "{{.Node.ID}}=name"}, Dir: "/d", User: "u",
				Groups: []string{"g"}, Init: &yes, StopSignal: "SIGINT", TTY: true, OpenStdin: true, ReadOnly: true,
				Mounts:          []wire.MountSpec{{Type: "volume", Source: "{{.Service.Name}}-{{.Task.Slot}}", Target: "/v", VolumeOptions: &wire.MountVolumeOptions{Labels: map[string]string{"id": "{{.Task.ID}}"}, DriverConfig: &wire.VolumeDriver{Options: map[string]string{"o": "{{.Service.ID}}"}}}}},
				StopGracePeriod: &grace, Healthcheck: &wire.Healthcheck{Test: []string{"CMD", "true"}, Retries: 2}, Hosts: []string{"1.2.3.4 one two", "::1 six"},
				DNSConfig: &wire.TaskDNS{Nameservers: []string{"9.9.9.9"}, Search: []string{"s"}, Options: []string{"ndots:1"}}, Isolation: "default",
				Sysctls: map[string]string{"k": "v"}, CapabilityAdd: []string{"CAP_NET_ADMIN"}, CapabilityDrop: []string{"ALL"}, Ulimits: []wire.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}, OomScoreAdj: -5,
				Privileges: &wire.Privileges{SELinuxContext: &wire.SELinuxContext{Disable: true}, Seccomp: &wire.SeccompChoice{Mode: "custom", Profile: []byte("{}")}, AppArmor: &wire.AppArmorChoice{Mode: "disabled"}, NoNewPrivileges: true},
			},
			Resources: &wire.TaskResources{Limits: &wire.TaskLimit{NanoCPUs: 5e8, MemoryBytes: 1 << 20, Pids: pids}, Reservations: &wire.NodeResources{NanoCPUs: 1}},
			Networks:  []wire.NetworkAttachment{{Target: "none"}},
			LogDriver: &wire.NamedDriver{Name: "none", Options: map[string]string{"l": "o"}},
		}
		w.Ports = []wire.ServicePort{{TargetPort: 80, PublishedPort: 8080, PublishMode: wire.PublishHost}, {Protocol: "udp", TargetPort: 53, PublishMode: wire.PublishHost},
			{TargetPort: 81, PublishedPort: 8081, PublishMode: wire.PublishIngress}}
		w.LogDriver = &wire.NamedDriver{Name: "syslog"}
	})
	got, err := newTask(a, full, false).request(t.Context(), &full)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "request", got, wire.ContainerCreateRequest{
		ContainerConfig: wire.ContainerConfig{
			Image: "busybox:latest", Entrypoint: []string{"sh"}, Cmd: []string{"-c", "x"}, Hostname: "h-3", Env: []string{"NODE=host1", "PLAIN", "{{.Node.ID}}=name"},
			Labels:     map[string]string{"a": "b", "from": "task", labelTask: "", labelTaskID: "task1", labelTaskName: "web.3.task1", labelNodeID: node, labelServiceID: "service1", labelServiceName: "web"},
			WorkingDir: "/d", User: "u", Tty: true, OpenStdin: true, StopSignal: "SIGINT", StopTimeout: &ninety,
			Healthcheck:  &wire.Healthcheck{Test: []string{"CMD", "true"}, Retries: 2},
			ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}},
		},
		HostConfig: &wire.HostConfig{
			RestartPolicy: wire.RestartPolicy{Name: "no"}, GroupAdd: []string{"g"}, Init: &yes, ReadonlyRootfs: true, Isolation: "default",
			Mounts:  []wire.MountSpec{{Type: "volume", Source: "web-3", Target: "/v", VolumeOptions: &wire.MountVolumeOptions{Labels: map[string]string{"id": "task1"}, DriverConfig: &wire.VolumeDriver{Options: map[string]string{"o": "service1"}}}}},
			Sysctls: map[string]string{"k": "v"}, CapAdd: []string{"CAP_NET_ADMIN"}, CapDrop: []string{"ALL"}, OomScoreAdj: -5, NetworkMode: "none",
			SecurityOpt: []string{"label=disable", "seccomp={}", "apparmor=unconfined", "no-new-privileges=true"}, ExtraHosts: []string{"one:1.2.3.4", "two:1.2.3.4", "six:::1"},
			DNS: []string{"9.9.9.9"}, DNSSearch: []string{"s"}, DNSOptions: []string{"ndots:1"}, LogConfig: wire.LogConfig{Type: "none", Config: map[string]string{"l": "o"}},
			Resources:    wire.Resources{Memory: 1 << 20, NanoCPUs: 5e8, PidsLimit: &pids, Ulimits: []wire.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}},
			PortBindings: map[string][]wire.PortBinding{"80/tcp": {{HostPort: "8080"}}, "53/udp": {{}}},
		},
	})
	// What the engine fills in does not change what is wanted.
	got.Healthcheck.Retries, got.HostConfig.Sysctls["k"], got.HostConfig.LogConfig.Config["l"], got.HostConfig.Mounts[0].VolumeOptions.Labels["id"] = 9, "x", "x", "x"
	c := full.Spec.ContainerSpec
	same(t, "wanted", []any{c.Healthcheck.Retries, c.Sysctls["k"], full.Spec.LogDriver.Options["l"], c.Mounts[0].VolumeOptions.Labels["id"]}, []any{2, "v", "o", "{{.Task.ID}}"})
}

func TestNames(t *testing.T) {
	for want, change := range map[string]func(*session.Task){
		"web.3.task1":     nil,
		"web.node1.task1": func(w *session.Task) { w.Service.Global, w.Slot = true, 0 },
		"own":             func(w *session.Task) { w.Name = "own" },
	} {
		task := wanted("task1", change)
		same(t, want, nameOf(&task), want)
	}
}

func TestRefused(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	minus := -time.Second
	for want, change := range map[string]func(*session.Task){
		`TaskTemplate.Runtime: tasks of runtime plugin are not supported`: func(w *session.Task) { w.Spec.Runtime = "plugin" },
		`TaskTemplate.PluginSpec: plugins as services are not supported`:  func(w *session.Task) { w.Spec.PluginSpec = map[string]any{} },
		`TaskTemplate.ContainerSpec: expected the container of the task`:  func(w *session.Task) { w.Spec.ContainerSpec = nil },
		`dockerexec: image required`:                                      func(w *session.Task) { w.Spec.ContainerSpec.Image = "" },
		`task task1: expected its node and the name of its service`:       func(w *session.Task) { w.Service.Name = "" },
		`TaskTemplate.Resources.Reservations.GenericResources: generic resources are not supported`: func(w *session.Task) {
			w.Spec.Resources = &wire.TaskResources{Reservations: &wire.NodeResources{GenericResources: []any{1}}}
		},
		`TaskTemplate.Networks "net1": networks over several nodes are not supported: expected bridge, host or none`: func(w *session.Task) {
			w.Spec.Networks = []wire.NetworkAttachment{{Target: "net1"}}
		},
		`TaskTemplate.Networks "host": expected no other network beside bridge, host or none`: func(w *session.Task) {
			w.Spec.Networks = []wire.NetworkAttachment{{Target: "host"}, {Target: "none"}}
		},
		`TaskTemplate.Networks.Aliases: names on network bridge are not supported`: func(w *session.Task) {
			w.Spec.Networks = []wire.NetworkAttachment{{Target: "bridge", Aliases: []string{"x"}}}
		},
		`ContainerSpec.Secrets: secrets are not supported`:                 func(w *session.Task) { w.Spec.ContainerSpec.Secrets = []*wire.TaskSecret{{}} },
		`ContainerSpec.Configs: configs are not supported`:                 func(w *session.Task) { w.Spec.ContainerSpec.Configs = []*wire.TaskConfig{{}} },
		`ContainerSpec.StopGracePeriod -1s: expected no negative duration`: func(w *session.Task) { w.Spec.ContainerSpec.StopGracePeriod = &minus },
		`ContainerSpec.OomScoreAdj 1001: expected -1000 to 1000`:           func(w *session.Task) { w.Spec.ContainerSpec.OomScoreAdj = 1001 },
		`ContainerSpec.Healthcheck.OnFailure "restart": expected none: the task is replaced`: func(w *session.Task) {
			w.Spec.ContainerSpec.Healthcheck = &wire.Healthcheck{OnFailure: "restart"}
		},
		`ContainerSpec.Hosts "nowhere name": expected an address and its names, as in hosts(5)`: func(w *session.Task) { w.Spec.ContainerSpec.Hosts = []string{"nowhere name"} },
		`ContainerSpec.Hosts "": expected an address and its names, as in hosts(5)`:             func(w *session.Task) { w.Spec.ContainerSpec.Hosts = []string{""} },
		`ContainerSpec.Mounts.Type: mounts of type cluster are not supported`:                   func(w *session.Task) { w.Spec.ContainerSpec.Mounts = []wire.MountSpec{{Type: "cluster"}} },
		`ContainerSpec.Privileges.CredentialSpec: credential specifications are not supported`: func(w *session.Task) {
			w.Spec.ContainerSpec.Privileges = &wire.Privileges{CredentialSpec: "x"}
		},
		`ContainerSpec.Privileges.SELinuxContext: SELinux labels are not supported`: func(w *session.Task) {
			w.Spec.ContainerSpec.Privileges = &wire.Privileges{SELinuxContext: &wire.SELinuxContext{Level: "s0"}}
		},
		`ContainerSpec.Privileges.Seccomp.Mode "x": expected default, unconfined or custom`: func(w *session.Task) {
			w.Spec.ContainerSpec.Privileges = &wire.Privileges{Seccomp: &wire.SeccompChoice{Mode: "x"}}
		},
		`ContainerSpec.Privileges.Seccomp.Profile: expected one with mode custom, and none without`: func(w *session.Task) {
			w.Spec.ContainerSpec.Privileges = &wire.Privileges{Seccomp: &wire.SeccompChoice{Mode: "custom"}}
		},
		`ContainerSpec.Privileges.AppArmor.Mode "x": expected default or disabled`: func(w *session.Task) {
			w.Spec.ContainerSpec.Privileges = &wire.Privileges{AppArmor: &wire.AppArmorChoice{Mode: "x"}}
		},
		`EndpointSpec.Ports 0:0: expected ports from 1 to 65535`: func(w *session.Task) { w.Ports = []wire.ServicePort{{}} },
		`EndpointSpec.Ports.Protocol "x": expected tcp, udp or sctp`: func(w *session.Task) {
			w.Ports = []wire.ServicePort{{TargetPort: 1, Protocol: "x"}}
		},
		`expanding env failed: expanding env "A={{.Nothing}}": template: expansion:1:2: executing "expansion" at <.Nothing>: can't evaluate field Nothing in type *agent.placeholders`: func(w *session.Task) {
			w.Spec.ContainerSpec.Env = []string{"A={{.Nothing}}"}
		},
	} {
		task := wanted("task1", change)
		if _, err := newTask(a, task, false).request(t.Context(), &task); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestGrace(t *testing.T) {
	for given, want := range map[time.Duration]int{0: 0, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, math.MaxInt64: math.MaxInt32} {
		task := wanted("task1", func(w *session.Task) { w.Spec.ContainerSpec.StopGracePeriod = &given })
		same(t, given.String(), *grace(&task), want)
	}
}

func TestTemplates(t *testing.T) {
	task := wanted("task1", func(w *session.Task) { w.Service.Labels["big"] = strings.Repeat("x", maxExpanded) })
	i, err := info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := placeholdersOf(&task, &i)
	for given, want := range map[string]string{
		"plain {":                                   "plain {",
		"{{.Service.ID}} {{.Service.Name}}":         "service1 web",
		"{{.Service.Labels.tier}}":                  "front",
		`{{index .Service.Labels "tier"}}`:          "front",
		"{{.Node.ID}} {{.Node.Hostname}}":           "node1 host1",
		"{{.Node.Platform.OS}}":                     "linux",
		"{{.Node.Platform.Architecture}}":           "x86_64",
		"{{.Task.ID}} {{.Task.Name}}":               "task1 web.3.task1",
		"{{.Task.Slot}}":                            "3",
		`{{join "-" .Task.Slot .Service.ID}}`:       "3-service1",
		`{{if eq .Task.Slot "1"}}a{{else}}b{{end}}`: "b",
		`{{with .Service}}{{.Name}}{{end}}`:         "web",
		`{{printf "%q" .Task.Slot | html}}`:         "&#34;3&#34;",
		`{{/* nothing */}}{{print 1}}{{js "'"}}`:    `1\'`,
	} {
		if got, err := p.expand(given); err != nil || got != want {
			t.Errorf("%s: %q, %v: want %q", given, got, err, want)
		}
	}
	double := `""`
	for range 400 {
		double = "(js " + double + ")"
	}
	for name, given := range map[string]string{
		"unknown":                "{{.Secret}}",
		"no such label":          "{{.Service.Labels.none}}",
		"unended":                "{{.Task.ID",
		"a function":             `{{env "PATH"}}`,
		"too long":               "{{.Task.ID}}" + strings.Repeat("x", maxTemplate),
		"a loop":                 "{{range 1000000000000}}{{end}}",
		"a hidden loop":          `{{if true}}{{else}}{{with .Service}}{{range 1000000000000}}{{end}}{{end}}{{end}}`,
		"recursion":              `{{define "a"}}{{template "a" .}}{{end}}{{template "a" .}}`,
		"a loop in a definition": `{{define "a"}}{{range 9}}{{end}}{{end}}x`,
		"a variable":             `{{$x := "aa"}}{{$x}}`,
		"an assignment":          `{{with $x := "aa"}}{{$x}}{{end}}`,
		"big outcome":            `{{.Service.Labels.big}}{{.Service.Labels.big}}`,
		"big text":               `{{len (join "" .Service.Labels.big .Service.Labels.big)}}`,
		"wide":                   `{{printf "%1000000d" 1 | len}}`,
		"doubling":               "{{" + strings.Replace(double, `""`, `"'"`, 1) + "}}",
	} {
		if got, err := p.expand(given); err == nil {
			t.Errorf("%s: got %.100q", name, got)
		} else if !fault.Is(err, fault.Invalid) && !strings.Contains(err.Error(), "more than") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPulls(t *testing.T) {
	const pinned = "busybox@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	secret := base64.URLEncoding.EncodeToString([]byte(`{"username":"u","password":"p??>>"}`))
	for name, c := range map[string]struct {
		image, auth string
		local, far  []string
		prefer      bool
		pulls       int
		state       string
		login       *wire.AuthConfig
		failed      slog.Level // of what is logged of it
	}{
		"missing":                        {image: "new:1", far: []string{"new:1"}, pulls: 1, state: wire.TaskRunning},
		"missing, with a login":          {image: "new:1", auth: secret, far: []string{"new:1"}, pulls: 1, state: wire.TaskRunning, login: &wire.AuthConfig{Username: "u", Password: "p??>>"}},
		"missing, with a broken login":   {image: "new:1", auth: "}", far: []string{"new:1"}, pulls: 1, state: wire.TaskRunning},
		"missing everywhere":             {image: "new:1", pulls: 1, state: wire.TaskRejected, failed: slog.LevelWarn},
		"here, and the registry has one": {image: "busybox", far: []string{"busybox:latest"}, pulls: 1, state: wire.TaskRunning},
		"here, and no registry":          {image: "busybox", pulls: 1, state: wire.TaskRunning},
		"here, and preferred":            {image: "busybox", prefer: true, state: wire.TaskRunning},
		"by digest, here":                {image: pinned, local: []string{pinned}, state: wire.TaskRunning},
		"by digest, missing":             {image: pinned, far: []string{pinned}, pulls: 1, state: wire.TaskRunning},
		"by ID":                          {image: "sha256:0000000000000000000000000000000000000000000000000000000000000000", state: wire.TaskRejected},
		"no name":                        {image: "UPPER", state: wire.TaskRejected},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine()
			for _, i := range c.local {
				e.images[i] = true
			}
			for _, i := range c.far {
				e.remote[i] = true
			}
			a := e.open(t)
			a.o.PreferLocal = c.prefer
			var log strings.Builder
			a.log = slog.New(slog.NewTextHandler(&log, nil))
			l := listen(t, a)
			assign(a, wanted("task1", func(w *session.Task) { w.Spec.ContainerSpec.Image, w.Auth = c.image, c.auth }))
			l.state("task1", c.state)
			same(t, "pulls", e.did("pull"), c.pulls)
			if c.pulls > 0 {
				same(t, "login", e.logins[0], c.login)
			}
			closed(t, a) // and logs nothing more
			level, fails := "level="+c.failed.String()+` msg="pulling image failed"`, c.pulls > 0 && len(c.far) == 0
			if strings.Contains(log.String(), level) != fails || strings.Contains(log.String(), "level=ERROR") {
				t.Errorf("it says:\n%s", log.String())
			}
		})
	}
}

// A registry that does not answer keeps nobody waiting for long who has the image, and is left alone for a while.
func TestRegistryDown(t *testing.T) {
	e := newEngine()
	e.pulling = make(chan struct{})
	a := e.open(t)
	a.pulls.patience = time.Millisecond
	l := listen(t, a)
	missing := wanted("missing", func(w *session.Task) { w.Spec.ContainerSpec.Image = "new:1" })
	assign(a, wanted("task1", nil), missing)
	l.state("task1", wire.TaskRunning)
	tries(t, e, "pull", 2)
	assign(a, wanted("task1", nil), wanted("task2", nil), missing)
	l.state("task2", wire.TaskRunning)
	same(t, "pulls", e.did("pull"), 2)
	same(t, "what is not here is waited for", l.tasks["missing"].State, wire.TaskPreparing)

	// One that says at once that it cannot.
	e = newEngine()
	e.refuse["pull"] = fault.New(fault.Unavailable, "no route to host")
	a = e.open(t)
	l = listen(t, a)
	for i, id := range []string{"task3", "task4"} {
		assign(a, wanted("task3", nil), wanted(id, nil))
		l.state(id, wire.TaskRunning)
		same(t, fmt.Sprint("pulls ", i), e.did("pull"), 1)
	}
}

func TestDescribe(t *testing.T) {
	got, err := newEngine().open(t).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "description", got, wire.NodeDescription{Hostname: "host1", Platform: wire.NodePlatform{Architecture: "x86_64", OS: "linux"},
		Resources: wire.NodeResources{NanoCPUs: 2e9, MemoryBytes: 1 << 30},
		Engine: wire.NodeEngine{EngineVersion: "1.2.3", Labels: map[string]string{"zone": "a"},
			Plugins: []wire.NodePlugin{{Type: "Log", Name: "json-file"}, {Type: "Network", Name: "bridge"}, {Type: "Network", Name: "host"}, {Type: "Volume", Name: "local"}}}})
}

func TestPorts(t *testing.T) {
	e := newEngine()
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", func(w *session.Task) {
		w.Ports = []wire.ServicePort{{TargetPort: 80, PublishedPort: 8080, PublishMode: wire.PublishHost}, {TargetPort: 81, PublishedPort: 8081, PublishMode: wire.PublishIngress}}
	}))
	got := l.state("task1", wire.TaskRunning)
	same(t, "ports", got.PortStatus.Ports, []wire.ServicePort{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: wire.PublishHost}})

	address, err := a.Endpoint(t.Context(), "task1", 81)
	same(t, "address", address.String(), netip.MustParseAddrPort("127.0.0.1:81").String())
	if err != nil {
		t.Error(err)
	}
	for port, class := range map[uint32]fault.Class{80: fault.Forbidden, 22: fault.Forbidden, 81 + 1<<16: fault.Forbidden} {
		if _, err := a.Endpoint(t.Context(), "task1", port); !fault.Is(err, class) {
			t.Errorf("port %d: %v", port, err)
		}
	}
	if _, err := a.Endpoint(t.Context(), "task2", 81); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	e.exit(t, "task1", 0)
	got = l.state("task1", wire.TaskComplete)
	same(t, "ports", len(got.PortStatus.Ports), 0)
	if _, err := a.Endpoint(t.Context(), "task1", 81); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

func TestLogs(t *testing.T) {
	e := newEngine()
	e.pulling = make(chan struct{})
	a := e.open(t)
	l := listen(t, a)
	assign(a, wanted("task1", func(w *session.Task) { w.Spec.ContainerSpec.TTY = true }))
	l.state("task1", wire.TaskPreparing)
	var out bytes.Buffer
	if err := a.Logs(t.Context(), "task1", wire.LogOptions{Stdout: true}, &out); !fault.Is(err, fault.NotFound) {
		t.Errorf("logs of no container: %v", err)
	}
	if err := a.Logs(t.Context(), "task2", wire.LogOptions{Stdout: true, Follow: true}, &out); !fault.Is(err, fault.NotFound) {
		t.Errorf("logs of no task: %v", err)
	}
	done := make(chan error)
	go func() { done <- a.Logs(t.Context(), "task1", wire.LogOptions{Stdout: true, Follow: true}, &out) }()
	close(e.pulling)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	same(t, "a terminal's line in a frame", out.String(), "\x01\x00\x00\x00\x00\x00\x00\x0dline of 0001\n")
}
