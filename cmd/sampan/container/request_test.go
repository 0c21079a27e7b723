package container

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/wire"
)

// parse reads a command line of run, without "run".
func parse(t *testing.T, line ...string) (wire.ContainerCreateRequest, error) {
	t.Helper()
	var o options
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.Usage = func() {}
	o.addFlags(f)
	if err := f.Parse(line); err != nil {
		return wire.ContainerCreateRequest{}, err
	}
	o.note(f)
	if args := f.Args(); len(args) > 0 {
		o.image, o.args = args[0], args[1:]
	}
	return o.request()
}

func TestRequest(t *testing.T) {
	yes, size, limit, swappiness, timeout := true, int64(64<<20), int64(20), int64(0), 3
	tests := []struct {
		line  string
		check func(r wire.ContainerCreateRequest) (got, want any)
	}{
		{"busybox echo -n x", func(r wire.ContainerCreateRequest) (any, any) {
			return append([]string{r.Image}, r.Cmd...), []string{"busybox", "echo", "-n", "x"}
		}},
		{"x", func(r wire.ContainerCreateRequest) (any, any) {
			return []any{r.AttachStdin, r.AttachStdout, r.AttachStderr, r.OpenStdin, r.StdinOnce, r.Tty, r.HostConfig.NetworkMode, r.HostConfig.Init == nil},
				[]any{false, true, true, false, false, false, "default", true}
		}},
		{"-it x", func(r wire.ContainerCreateRequest) (any, any) {
			return []bool{r.AttachStdin, r.OpenStdin, r.StdinOnce, r.Tty}, []bool{true, true, true, true}
		}},
		{"-a stderr x", func(r wire.ContainerCreateRequest) (any, any) {
			return []bool{r.AttachStdin, r.AttachStdout, r.AttachStderr}, []bool{false, false, true}
		}},
		{"-p 8080:80 -p 127.0.0.1::53/udp -p [::1]:90:90 x", func(r wire.ContainerCreateRequest) (any, any) {
			return r.HostConfig.PortBindings, map[string][]wire.PortBinding{
				"80/tcp": {{HostPort: "8080"}}, "53/udp": {{HostIP: "127.0.0.1"}}, "90/tcp": {{HostIP: "::1", HostPort: "90"}},
			}
		}},
		{"-p 8000-8001:80-81 --expose 90 x", func(r wire.ContainerCreateRequest) (any, any) {
			return r.ExposedPorts, map[string]struct{}{"80/tcp": {}, "81/tcp": {}, "90/tcp": {}}
		}},
		{"-v /a:/b:ro -v vol:/c -v /d x", func(r wire.ContainerCreateRequest) (any, any) {
			return []any{r.HostConfig.Binds, r.Volumes}, []any{[]string{"/a:/b:ro", "vol:/c"}, map[string]struct{}{"/d": {}}}
		}},
		{"--mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700 --mount dst=/v,volume-opt=a=b x", func(r wire.ContainerCreateRequest) (any, any) {
			return r.HostConfig.Mounts, []wire.MountSpec{
				{Type: "bind", Source: "/a", Target: "/b", ReadOnly: true, BindOptions: &wire.MountBindOptions{Propagation: "rslave"}},
				{Type: "tmpfs", Target: "/t", TmpfsOptions: &wire.MountTmpfsOptions{SizeBytes: 1 << 20, Mode: 0o700}},
				{Type: "volume", Target: "/v", VolumeOptions: &wire.MountVolumeOptions{DriverConfig: &wire.VolumeDriver{Options: map[string]string{"a": "b"}}}},
			}
		}},
		{"--cap-add sys_time --cap-add CAP_NET_ADMIN --cap-add SYS_TIME --cap-drop all x", func(r wire.ContainerCreateRequest) (any, any) {
			return [][]string{r.HostConfig.CapAdd, r.HostConfig.CapDrop}, [][]string{{"CAP_NET_ADMIN", "CAP_SYS_TIME"}, {"ALL"}}
		}},
		{"--memory-swap 64m x", func(r wire.ContainerCreateRequest) (any, any) {
			return []int64{r.HostConfig.Memory, r.HostConfig.MemorySwap}, []int64{0, size}
		}},
		{"-m 64m --cpus 1.5 --pids-limit 20 --memory-swappiness 0 --init x", func(r wire.ContainerCreateRequest) (any, any) {
			h := r.HostConfig
			return []any{h.Memory, h.NanoCPUs, h.PidsLimit, h.MemorySwappiness, h.Init}, []any{size, int64(15e8), &limit, &swappiness, &yes}
		}},
		{"--network net1 --ip 10.0.0.5 --network-alias a x", func(r wire.ContainerCreateRequest) (any, any) {
			e := r.NetworkingConfig.EndpointsConfig["net1"]
			return []any{r.HostConfig.NetworkMode, e.IPAMConfig.IPv4Address, e.Aliases}, []any{"net1", "10.0.0.5", []string{"a"}}
		}},
		{"--network name=a,alias=x --network name=b,ip=10.1.0.2 x", func(r wire.ContainerCreateRequest) (any, any) {
			e := r.NetworkingConfig.EndpointsConfig
			return []any{len(e), e["a"].Aliases, e["b"].IPAMConfig.IPv4Address}, []any{2, []string{"x"}, "10.1.0.2"}
		}},
		{"--restart on-failure:3 x", func(r wire.ContainerCreateRequest) (any, any) {
			return r.HostConfig.RestartPolicy, wire.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}
		}},
		{"--entrypoint= --stop-timeout 3 x", func(r wire.ContainerCreateRequest) (any, any) {
			return []any{r.Entrypoint, r.StopTimeout}, []any{[]string{""}, &timeout}
		}},
		{"--health-cmd true --health-interval 5s --health-retries 2 x", func(r wire.ContainerCreateRequest) (any, any) {
			return r.Healthcheck, &wire.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: 5e9, Retries: 2}
		}},
		{"--no-healthcheck x", func(r wire.ContainerCreateRequest) (any, any) { return r.Healthcheck.Test, []string{"NONE"} }},
		{"--device /dev/null:/dev/x:r --device /dev/zero x", func(r wire.ContainerCreateRequest) (any, any) {
			return r.HostConfig.Devices, []wire.DeviceMapping{
				{PathOnHost: "/dev/null", PathInContainer: "/dev/x", CgroupPermissions: "r"},
				{PathOnHost: "/dev/zero", PathInContainer: "/dev/zero", CgroupPermissions: "rwm"},
			}
		}},
		{"--ulimit nofile=10:20 --ulimit nofile=30 x", func(r wire.ContainerCreateRequest) (any, any) {
			return r.HostConfig.Ulimits, []wire.Ulimit{{Name: "nofile", Soft: 30, Hard: 30}}
		}},
		{"--add-host a=10.0.0.1 --add-host b:[::1] --security-opt no-new-privileges --security-opt systempaths=unconfined x", func(r wire.ContainerCreateRequest) (any, any) {
			h := r.HostConfig
			return []any{h.ExtraHosts, h.SecurityOpt, h.MaskedPaths, h.ReadonlyPaths}, []any{[]string{"a:10.0.0.1", "b:::1"}, []string{"no-new-privileges"}, []string{}, []string{}}
		}},
	}
	for _, tt := range tests {
		r, err := parse(t, strings.Fields(tt.line)...)
		if err != nil {
			t.Errorf("%s: %v", tt.line, err)
			continue
		}
		got, want := tt.check(r)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.line, diff)
		}
	}
}

// Wrong values are errors that name the value.
func TestWrongRequests(t *testing.T) {
	tests := map[string]string{
		"-p notaport:80 x":                   "notaport",
		"-p 80:80:80:80 x":                   "80:80:80:80",
		"-p 8000-8002:80-81 x":               "8000-8002",
		"-p 70000:80 x":                      "70000",
		"-v relative/path:/x x":              "relative/path",
		"-v /a:/b:rx x":                      "rx",
		"-v /a:b x":                          "absolute path",
		"-v /a:/ x":                          "other than /",
		"--mount type=bind,src=/a x":         "target=PATH",
		"--mount typ=bind,dst=/a x":          `did you mean "type"`,
		"--mount type=tmpfs,src=/a,dst=/b x": "no source",
		"--mount type=image,dst=/b x":        "source=IMAGE",
		"--mount type=bind,src=/,dst=/b,image-subpath=a x": "image-* options only with type=image",
		"--mount type=volume,dst=/b,bind-create-src":       "type=bind",
		"-m 2x x":                            "2x",
		"-m 1m --memory-swap 512k x":         `--memory-swap "512k": expected at least the --memory of 1m`,
		"-m 1m --memory-reservation 2m x":    `--memory-reservation "2m": expected at most the --memory of 1m`,
		"--cpus 1 --cpu-quota 5 x":           "conflicting",
		"--cpuset-cpus a x":                  "--cpuset-cpus",
		"--restart sometimes x":              "sometimes",
		"--restart always:3 x":               "always:3",
		"--restart always --rm x":            "conflicting",
		"--pid nowhere x":                    "--pid",
		"--ipc container: x":                 "--ipc",
		"--network a --network host x":       "conflicting",
		"--network a --network a x":          "multiple times",
		"--network host --network-alias b x": "user-defined",
		"--ip 10.0.0 x":                      "10.0.0",
		"--mac-address zz x":                 "zz",
		"--add-host a:b x":                   "a:b",
		"--dns nowhere x":                    "nowhere",
		"--device null x":                    "null",
		"--device-cgroup-rule c x":           `"c"`,
		"--ulimit nofile x":                  "nofile",
		"--ulimit nofile=300:200 x":          "300 is above 200",
		"--ulimit nofile=3:x x":              `a number as the hard limit, or -1 for none, not "x"`,
		"--ulimit foo=3 x":                   `not "foo"`,
		"--ulimit nofiles=3 x":               `did you mean "nofile"?`,
		"--tmpfs run x":                      "run",
		"--security-opt secomp=x x":          `did you mean "seccomp"`,
		"--security-opt seccomp=/none x":     "/none",
		"--health-interval 5 x":              "5",
		"--no-healthcheck --health-cmd x x":  "conflicts",
		"--pull sometimes x":                 "sometimes",
		"-a stdlog x":                        "stdlog",
		"--env =x x":                         "=x",
		"--env-file /none x":                 "/none",
		"--label =x x":                       "=x",
		"--gpus all x":                       "GPU",
		"--memory-swappiness 101 x":          "101",
		"--oom-score-adj 2000 x":             "2000",
		"--blkio-weight 5 x":                 "5",
	}
	for line, want := range tests {
		if _, err := parse(t, strings.Fields(line)...); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s", line, err, want)
		}
	}
}

// What the user says of a proxy stays, each spelling for itself.
func TestWithProxies(t *testing.T) {
	proxies := map[string]string{"HTTP_PROXY": "http://p", "http_proxy": "http://p", "NO_PROXY": "a", "no_proxy": "a"}
	got := withProxies([]string{"A=b", "HTTP_PROXY=mine", "no_proxy"}, proxies)
	want := []string{"A=b", "HTTP_PROXY=mine", "no_proxy", "NO_PROXY=a", "http_proxy=http://p"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPortText(t *testing.T) {
	tests := []struct {
		ports []wire.Port
		want  string
	}{
		{nil, ""},
		{[]wire.Port{{PrivatePort: 80, Type: "tcp"}}, "80/tcp"},
		{[]wire.Port{{IP: "0.0.0.0", PrivatePort: 80, PublicPort: 8080, Type: "tcp"}, {IP: "::", PrivatePort: 80, PublicPort: 8080, Type: "tcp"}}, "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"},
		{[]wire.Port{{PrivatePort: 82, Type: "tcp"}, {PrivatePort: 80, Type: "tcp"}, {PrivatePort: 81, Type: "tcp"}, {PrivatePort: 80, Type: "udp"}}, "80-82/tcp, 80/udp"},
		{[]wire.Port{{IP: "1.1.1.1", PrivatePort: 80, PublicPort: 90, Type: "tcp"}, {IP: "1.1.1.1", PrivatePort: 81, PublicPort: 91, Type: "tcp"}, {IP: "1.1.1.1", PrivatePort: 82, PublicPort: 99, Type: "tcp"}}, "1.1.1.1:90->80/tcp, 1.1.1.1:91->81/tcp, 1.1.1.1:99->82/tcp"},
		{[]wire.Port{{IP: "1.1.1.1", PrivatePort: 80, PublicPort: 80, Type: "tcp"}, {IP: "1.1.1.1", PrivatePort: 81, PublicPort: 81, Type: "tcp"}, {IP: "1.1.1.1", PrivatePort: 7, PublicPort: 90, Type: "tcp"}, {PrivatePort: 85, Type: "tcp"}},
			"1.1.1.1:80-81->80-81/tcp, 85/tcp, 1.1.1.1:90->7/tcp"},
	}
	for _, tt := range tests {
		if got := portText(tt.ports); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestCPUPercent(t *testing.T) {
	s := wire.Stats{
		CPUStats:    wire.CPUStats{CPUUsage: wire.CPUUsage{TotalUsage: 300}, SystemUsage: 2000, OnlineCPUs: 2},
		PreCPUStats: wire.CPUStats{CPUUsage: wire.CPUUsage{TotalUsage: 100}, SystemUsage: 1000},
	}
	if got := cpuPercent(s); got != 40 {
		t.Errorf("got %v", got)
	}
	if got := cpuPercent(wire.Stats{CPUStats: s.CPUStats}); got != 0 {
		t.Errorf("without a first sample: %v", got)
	}
}
