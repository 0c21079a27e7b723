package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// told parses flags and the text of daemon.json, "" for none.
func told(t *testing.T, json string, args ...string) (*options, error) {
	t.Helper()
	o, flags := newOptions(), pflag.NewFlagSet("sampand", pflag.ContinueOnError)
	o.addFlags(flags)
	o.ConfigFile = filepath.Join(t.TempDir(), "daemon.json")
	if json != "" {
		if err := os.WriteFile(o.ConfigFile, []byte(json), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := flags.Parse(args)
	if err == nil {
		err = o.read(flags)
	}
	if err == nil {
		err = o.check()
	}
	return o, err
}

func TestFlagsAndFileSayTheSame(t *testing.T) {
	byFlags, err := told(t, "", "-H", "unix:///a", "-H", "tcp://127.0.0.1:1", "--data-root=/d", "--exec-root=/e", "-p", "/p", "-G", "g", "-D", "-l", "warn",
		"--label=a=b", "--plugin-dir=/x", "--runtime-path=/r", "-b", "br", "--bip=10.0.0.1/24", "--mtu=1400", "--dns=1.1.1.1", "--dns-opt=ndots:1",
		"--dns-search=s", "--host-gateway-ip=10.0.0.9", "--cgroup-parent=/cg", "--log-driver=local", "--log-opt", "max-size=1m", "--log-opt=max-file=2",
		"--default-ulimit=nofile=10:20", "--default-shm-size=1m", "--live-restore", "--shutdown-timeout=-1", "--insecure-registry=i", "--registry-mirror=http://m",
		"--tls", "--tlsverify", "--tlscacert=ca", "--tlscert=c", "--tlskey=k", "--allow-plain-tcp", "--storage-driver=overlay",
		"--userns-remap=u:g", "--subid-dir=/ids", "--oom-score-adjust=-7",
		"--log-format=json", "--metrics-addr=127.0.0.1:1", "--init", "--init-path=/i", "--fixed-cidr=10.0.0.128/25", "--ip=127.0.0.1", "--icc=false", "--ip-masq=false",
		"--default-address-pool=base=10.8.0.0/16,size=24", "--default-network-opt=bridge=mtu=9000", "--default-ipc-mode=shareable", "--default-cgroupns-mode=host",
		"--default-runtime=kata", "--add-runtime=kata=/k", "--add-runtime=runc=/r/runc", "--no-new-privileges", "--seccomp-profile=unconfined", "--exec-opt=native.cgroupdriver=cgroupfs", "--storage-opt=overlay2.override_kernel_check=true",
		"--http-proxy=a", "--https-proxy=b", "--no-proxy=c", "--max-concurrent-downloads=1", "--max-concurrent-uploads=2", "--max-download-attempts=3")
	if err != nil {
		t.Fatal(err)
	}
	byFile, err := told(t, `{"hosts":["unix:///a","tcp://127.0.0.1:1"],"data-root":"/d","exec-root":"/e","pidfile":"/p","group":"g","debug":true,"log-level":"warn",
		"labels":["a=b"],"plugin-dirs":["/x"],"runtime-path":"/r","bridge":"br","bip":"10.0.0.1/24","mtu":1400,"dns":["1.1.1.1"],"dns-opts":["ndots:1"],
		"dns-search":["s"],"host-gateway-ip":"10.0.0.9","cgroup-parent":"/cg","log-driver":"local","log-opts":{"max-size":"1m","max-file":"2"},
		"default-ulimits":{"nofile":{"Name":"nofile","Soft":10,"Hard":20}},"default-shm-size":"1M","live-restore":true,"shutdown-timeout":-1,
		"insecure-registries":["i"],"registry-mirrors":["http://m"],"tls":true,"tlsverify":true,"tlscacert":"ca","tlscert":"c","tlskey":"k",
		"allow-plain-tcp":true,"storage-driver":"overlay","userns-remap":"u:g","subid-dir":"/ids","oom-score-adjust":-7,
		"log-format":"json","metrics-addr":"127.0.0.1:1","init":true,"init-path":"/i","fixed-cidr":"10.0.0.128/25","ip":"127.0.0.1","icc":false,"ip-masq":false,
		"default-address-pools":[{"base":"10.8.0.0/16","size":24}],"default-network-opts":{"bridge":{"mtu":"9000"}},"default-ipc-mode":"shareable",
		"default-cgroupns-mode":"host","default-runtime":"kata","runtimes":{"kata":{"path":"/k"},"runc":{"path":"/r/runc"}},"no-new-privileges":true,"seccomp-profile":"unconfined","exec-opts":["native.cgroupdriver=cgroupfs"],
		"storage-opts":["overlay2.override_kernel_check=true"],"proxies":{"http-proxy":"a","https-proxy":"b","no-proxy":"c"},
		"max-concurrent-downloads":1,"max-concurrent-uploads":2,"max-download-attempts":3}`)
	if err != nil {
		t.Fatal(err)
	}
	byFlags.ConfigFile, byFile.ConfigFile = "", ""
	if diff := cmp.Diff(byFlags, byFile, cmp.AllowUnexported(options{}), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("flags against file: %s", diff)
	}
	if o := byFlags; o.ShmSize != 1<<20 || o.Ulimits["nofile"] != (wire.Ulimit{Name: "nofile", Soft: 10, Hard: 20}) || o.grace() != 0 || o.level() != slog.LevelDebug {
		t.Errorf("got %+v", o)
	}
}

// Every flag that is a setting can be said in the file, and the reverse.
func TestEveryFlagHasAKey(t *testing.T) {
	o, flags := newOptions(), pflag.NewFlagSet("", pflag.ContinueOnError)
	o.addFlags(flags)
	keyed := map[string]bool{"config-file": true, "validate": true, "version": true}
	for name, k := range o.keys() {
		keyed[k.flag] = true
		if k.flag == "" { // http-proxy and the two others
			continue
		}
		if flags.Lookup(k.flag) == nil {
			t.Errorf("%s: no flag --%s", name, k.flag)
		}
	}
	for _, x := range foreigns {
		keyed[x.flag] = true
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !keyed[f.Name] {
			t.Errorf("--%s has no key", f.Name)
		}
	})
}

func TestDefaults(t *testing.T) {
	for _, json := range []string{"", "{}", " \n"} {
		o, err := told(t, json)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{defaultHost}, o.Hosts); diff != "" || o.grace() != 15*time.Second || o.level() != slog.LevelInfo {
			t.Errorf("%q: %+v", json, o)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		json string
		args string
		want string
	}{
		{`{"debgu":true}`, "", `did you mean "debug"`},
		{`{"Debug":true}`, "", "key of "},
		{`{"debug":true}`, "--debug=false", "the following directives are specified both as a flag and in the configuration file: debug: (from flag: false, from file: true)"},
		{`{"labels":["a=b"]}`, "--label=c=d", "labels: (from flag: [c=d], from file: [\"a=b\"])"},
		{`{"debug":"yes"}`, "", "daemon.json: debug: "},
		{`{"hosts":"unix:///a"}`, "", "daemon.json: hosts: "},
		{`{"default-shm-size":-1}`, "", "a size such as 64m"},
		{`{"default-ulimits":{"nofiel":{"Soft":1,"Hard":1}}}`, "", `did you mean "nofile"`},
		{`{"default-ulimits":{"nofile":{"Soft":2,"Hard":1}}}`, "", "above the hard limit"},
		{`["debug"]`, "", "expected a JSON object"},
		{`{"debug":true`, "", "expected a JSON object"},
		{"", "--data-root=", "--data-root"},
		{"", "--log-level=wran", `did you mean "warn"`},
		{"", "--storage-driver=btrfs", "overlay2"},
		{"", "--bip=10.0.0.1", "a prefix length"},
		{"", "--dns=one", "an IP address"},
		{"", "--host-gateway-ip=10.0.0", "an IP address"},
		{"", "--label=x", "key=value"},
		{"", "--mtu=67", "68 to 65535"},
		{"", "--shutdown-timeout=-2", "-1 for no limit"},
		{"", "--log-driver=syslogd", "logging driver"},
		{"", "--oom-score-adjust=1001", "-1000 to 1000"},
		{"", "--oom-score-adjust=low", "a whole number"},
		{`{"oom-score-adjust":"low"}`, "", "daemon.json: oom-score-adjust: "},
		{"", "--log-opt=max-sise=1m", "unknown log opt 'max-sise'"},
		{"", "--log-opt=x", "key=value"},
		{"", "--default-ulimit=nofile", "name=soft[:hard]"},
		{"", "--default-shm-size=0", "a size such as 64m"},
		{`{"iptables":false}`, "", "iptables: false is not supported"},
		{`{"iptables":"no"}`, "", "iptables: json: cannot unmarshal string"},
		{`{"selinux-enabled":true}`, "", "SELinux"},
		{"", "--selinux-enabled", `for "--selinux-enabled" flag: true is not supported`},
		{`{"authorization-plugins":["p"]}`, "", `["p"] is not supported`},
		{`{"selinux-enabled":true}`, "--selinux-enabled=false", "specified both as a flag and"},
		{`{"proxies":{"http-proxi":"x"}}`, "", "http-proxi"},
		{`{"proxies":{"http-proxy":"x"}}`, "--https-proxy=y", "proxies: (from flag: y"},
		{`{"graph":"/a","data-root":"/b"}`, "", "graph is the old name of data-root"},
		{`{"default-address-pools":[{"base":"10.0.0.0/16","size":8}]}`, "", "from 16 to 30"},
		{"", "--default-address-pool=base=10.0.0.0", "prefix length"},
		{"", "--default-network-opt=bridge", "DRIVER=OPTION=VALUE"},
		{`{"default-runtime":"kata"}`, "", "specified default runtime 'kata' does not exist"},
		{"", "--exec-opt=native.cgroupdriver=sytemd", "did you mean \"systemd\""},
		{`{"exec-opts":["native.cgroupdriver=systemd"],"cgroup-parent":"/batch"}`, "", "valid slice"},
		{`{"cgroup-parent":"batch.slice"}`, "", "needs systemd's driver"},
		{"", "--exec-opt=native.cgroupdrivr=cgroupfs", "did you mean \"native.cgroupdriver\""},
		{"", "--storage-opt=overlay2.override_kernel_chek=true", "did you mean"},
		{"", "--storage-opt=overlay2.override_kernel_check=maybe", "true or false"},
		{"", "--fixed-cidr=10.1.0.0/16 --bip=10.2.0.1/16", "a part of --bip's 10.2.0.0/16"},
		{"", "--default-ipc-mode=host", "private, shareable"},
		{"", "--default-cgroupns-mode=x", `"x": expected one of host, private`},
		{"", "--log-format=xml", "text, json"},
		{"", "--metrics-addr=9323", "an address with a port"},
		{"", "--seccomp-profile=/no/file", "--seccomp-profile: open /no/file"},
		{"", "--max-concurrent-downloads=-1", "a number, or 0"},
		{"", "--registry-mirror=ftp://x", "an http or https URL"},
		{"", "--log-opt=mode=fast", "blocking or non-blocking"},
		{"", "--log-opt=max-buffer-size=1m", "only supported with mode=non-blocking"},
		{"", "--log-driver=syslog --log-opt=syslog-facility=locl0", "did you mean \"local0\""},
		{"", "--log-opt=tag={{.Nam}}", "log opt tag"},
		{"", "--log-opt=compress=true", "compress cannot be true when max-file is less than 2"},
		{"", "--bridg=x", "unknown flag: --bridg"},
		{"", "--label=a=b --label=a=c", "conflict labels for a=c and a=b"},
	} {
		if _, err := told(t, c.json, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s: got %v, want %q", c.json, c.args, err, c.want)
		}
	}
	if err := run([]string{"--validate", "up"}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `unexpected argument "up"`) {
		t.Errorf("an argument: %v", err)
	}
}

// What the start would refuse is found before it.
func TestValidate(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for args, want := range map[string]string{
		"-H nosuch://":            `--host "nosuch://": expected unix:///path`,
		"-H tcp://0.0.0.0:2375":   "whoever connects would be root on this host",
		"-H tcp://127.0.0.1:2375": "every local user who connects would be root",
		"--tlsverify":             "--tlscacert is missing",
		"--group nosuch":          `--group "nosuch": expected the name or number of a group`,
		"--userns-remap nosuch":   "nosuch",
		"--runtime-path " + none:  "--runtime-path: ",
	} {
		o, err := told(t, "", strings.Fields(args)...)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		if err := o.checkHost(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
		if err := run(append(strings.Fields(args), "--validate", "--config-file", o.ConfigFile)); err == nil {
			t.Errorf("%s: OK", args)
		}
	}
	for _, args := range []string{"", "-H tcp://127.0.0.1:0 --allow-plain-tcp", "--group 0", "-H fd://", "--label a=b --label a=b"} {
		o, err := told(t, "", strings.Fields(args)...)
		if err == nil {
			err = o.checkHost()
		}
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// SIGHUP reads the file that the daemon was given, does not take back what a flag says, and names what
// needs a restart.
func TestReload(t *testing.T) {
	for _, c := range []struct {
		args, json string
		want       slog.Level
		fixed      []string
		fails      bool
	}{
		{"", `{"log-level":"error"}`, slog.LevelError, nil, false},
		{"", `{"log-level":"error","debug":true,"mtu":1400,"bip":"10.9.0.1/24"}`, slog.LevelDebug, []string{"bip", "mtu"}, false},
		{"", `{}`, slog.LevelInfo, nil, false},
		{"--debug", `{"log-level":"error","labels":["a=b"]}`, slog.LevelDebug, nil, false},
		{"--log-level=warn", `{}`, slog.LevelWarn, nil, false},
		{"--log-level=warn", `{"log-level":"error"}`, 0, nil, true},
		{"", `{"log-level":"loud"}`, 0, nil, true},
		{"", `{"labels":["x"]}`, 0, nil, true},
		{"", `{`, 0, nil, true},
	} {
		path := filepath.Join(t.TempDir(), "daemon.json")
		args := append(strings.Fields(c.args), "--config-file", path)
		if err := os.WriteFile(path, []byte(`{"live-restore":true}`), 0o600); err != nil {
			t.Fatal(err)
		}
		old, err := configured(args)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(c.json), 0o600); err != nil {
			t.Fatal(err)
		}
		fresh, err := configured(args)
		if (err != nil) != c.fails {
			t.Errorf("%s %s: %v", c.args, c.json, err)
		}
		if err != nil {
			continue
		}
		now := old.with(fresh)
		if diff := cmp.Diff(c.fixed, changedFixed(old, fresh)); diff != "" || now.level() != c.want || now.LiveRestore || now.MTU != 0 {
			t.Errorf("%s %s: level %v, live-restore %v, mtu %d, fixed %s", c.args, c.json, now.level(), now.LiveRestore, now.MTU, diff)
		}
		if a := now.attributes(); a["live-restore"] != "false" || a["insecure-registries"] != "[]" || a["shutdown-timeout"] != "15" || a["debug"] != strconv.FormatBool(now.Debug) {
			t.Errorf("attributes %v", a)
		}
	}
}

// linuxKeys are the keys of the example of Docker's reference of dockerd, and a few that it had or has beside it.
var linuxKeys = strings.Fields(`allow-direct-routing authorization-plugins bip bip6 bridge builder cgroup-parent containerd containerd-namespace
	containerd-plugins-namespace data-root debug default-address-pools default-cgroupns-mode default-gateway default-gateway-v6
	default-network-opts default-runtime default-shm-size default-ulimits dns dns-opts dns-search exec-opts exec-root experimental
	features firewall-backend fixed-cidr fixed-cidr-v6 group host-gateway-ip hosts proxies icc init init-path insecure-registries ip
	ip-forward ip-masq iptables ip6tables ipv6 labels live-restore log-driver log-format log-level log-opts max-concurrent-downloads
	max-concurrent-uploads max-download-attempts mtu no-new-privileges node-generic-resources pidfile raw-logs registry-mirrors
	runtimes seccomp-profile selinux-enabled shutdown-timeout storage-driver storage-opts swarm-default-advertise-addr tls tlscacert
	tlscert tlskey tlsverify userland-proxy userland-proxy-path userns-remap
	metrics-addr default-ipc-mode oom-score-adjust allow-nondistributable-artifacts cluster-store cluster-advertise cluster-store-opts`)

// Every key of Docker's either means something here or says why not.
func TestDockersKeys(t *testing.T) {
	keys := newOptions().keys()
	for _, name := range linuxKeys {
		_, own := keys[name]
		x, alien := foreigns[name]
		if own == alien {
			t.Errorf("%s: a setting: %v, foreign: %v", name, own, alien)
		}
		if alien && (x.why == "" || strings.Contains(x.why, "\n")) {
			t.Errorf("%s: why %q", name, x.why)
		}
	}
	// What a value that means nothing does.
	for json, want := range map[string]string{
		`{"containerd":""}`: "", `{"features":{}}`: "", `{"iptables":true}`: "", `{"userland-proxy":false}`: "", `{"node-generic-resources":[]}`: "",
		`{"containerd":"/run/c.sock"}`: "containerd has no effect: there is no containerd", `{"features":{"buildkit":true}}`: "features has no effect",
	} {
		o, err := told(t, json)
		if err != nil {
			t.Errorf("%s: %v", json, err)
			continue
		}
		if got := strings.Join(o.warnings, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: warned %q, want %q", json, got, want)
		}
	}
}

func TestPidFile(t *testing.T) {
	dir := t.TempDir()
	// A living process that is called as the daemon is, and one that is not.
	daemon, other := filepath.Join(dir, "sampand"), filepath.Join(dir, "other")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep")
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{"nobody": 1 << 22}
	for _, path := range []string{daemon, other} {
		if err := os.WriteFile(path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, "60")
		cmd.Args[0] = "sleep" // of a program that has many names
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pids[filepath.Base(path)] = cmd.Process.Pid
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	own := strconv.Itoa(os.Getpid())
	for text, refused := range map[string]bool{
		"": false, "no number": false, own: false, fmt.Sprint(pids["nobody"]): false, fmt.Sprint(pids["other"]): false,
		fmt.Sprintln(pids["sampand"]): true,
	} {
		path := filepath.Join(t.TempDir(), "made/for/it.pid")
		if text != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		release, err := writePidFile(path)
		if refused {
			if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is still running") {
				t.Errorf("%q: %v", text, err)
			}
			if left, _ := os.ReadFile(path); string(left) != text {
				t.Errorf("%q was overwritten: %q", text, left)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, err := os.ReadFile(path); string(got) != own || err != nil {
			t.Errorf("%q: wrote %q, %v", text, got, err)
		}
		release()
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%q: not removed: %v", text, err)
		}
	}
	// One that was killed and that nobody has waited for is no daemon.
	if err := unix.Kill(pids["sampand"], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); isDaemon(pids["sampand"]); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("a zombie is taken for a daemon")
		}
	}
}

func TestEngineID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engine-id")
	first, err := engineID(path)
	if len(first) != 36 || err != nil {
		t.Fatalf("got %q, %v", first, err)
	}
	if again, err := engineID(path); again != first || err != nil {
		t.Errorf("got %q, then %q, %v", first, again, err)
	}
	if other, err := engineID(path + "2"); other == first || err != nil {
		t.Errorf("two of the same: %q, %v", other, err)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{"67108864": 67108864, `"64M"`: 64 << 20, `"1g"`: 1 << 30, "0": 0, "null": 0, `"much"`: 0, "1.5": 1} {
		var s size
		if err := s.UnmarshalJSON([]byte(text)); int64(s) != want || (err != nil) != (want == 0) {
			t.Errorf("%s: got %d, %v, want %d", text, s, err, want)
		}
	}
}
