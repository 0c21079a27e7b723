package main

import (
	"fmt"
	"log/slog"
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
func told(t *testing.T, json string, args ...string) (*options, *pflag.FlagSet, error) {
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
	return o, flags, err
}

func TestFlagsAndFileSayTheSame(t *testing.T) {
	byFlags, _, err := told(t, "", "-H", "unix:///a", "-H", "tcp://127.0.0.1:1", "--data-root=/d", "--exec-root=/e", "-p", "/p", "-G", "g", "-D", "-l", "warn",
		"--label=a=b", "--plugin-dir=/x", "--runtime-path=/r", "-b", "br", "--bip=10.0.0.1/24", "--mtu=1400", "--dns=1.1.1.1", "--dns-opt=ndots:1",
		"--dns-search=s", "--host-gateway-ip=10.0.0.9", "--cgroup-parent=/cg", "--log-driver=local", "--log-opt", "max-size=1m", "--log-opt=max-file=2",
		"--default-ulimit=nofile=10:20", "--default-shm-size=1m", "--live-restore", "--shutdown-timeout=-1", "--insecure-registry=i", "--registry-mirror=m",
		"--tls", "--tlsverify", "--tlscacert=ca", "--tlscert=c", "--tlskey=k", "--allow-plain-tcp", "--storage-driver=overlay",
		"--userns-remap=u:g", "--subid-dir=/ids", "--oom-score-adjust=-7")
	if err != nil {
		t.Fatal(err)
	}
	byFile, _, err := told(t, `{"hosts":["unix:///a","tcp://127.0.0.1:1"],"data-root":"/d","exec-root":"/e","pidfile":"/p","group":"g","debug":true,"log-level":"warn",
		"labels":["a=b"],"plugin-dirs":["/x"],"runtime-path":"/r","bridge":"br","bip":"10.0.0.1/24","mtu":1400,"dns":["1.1.1.1"],"dns-opts":["ndots:1"],
		"dns-search":["s"],"host-gateway-ip":"10.0.0.9","cgroup-parent":"/cg","log-driver":"local","log-opts":{"max-size":"1m","max-file":"2"},
		"default-ulimits":{"nofile":{"Name":"nofile","Soft":10,"Hard":20}},"default-shm-size":"1M","live-restore":true,"shutdown-timeout":-1,
		"insecure-registries":["i"],"registry-mirrors":["m"],"tls":true,"tlsverify":true,"tlscacert":"ca","tlscert":"c","tlskey":"k",
		"allow-plain-tcp":true,"storage-driver":"overlay","userns-remap":"u:g","subid-dir":"/ids","oom-score-adjust":-7}`)
	if err != nil {
		t.Fatal(err)
	}
	byFlags.ConfigFile, byFile.ConfigFile = "", ""
	if diff := cmp.Diff(byFlags, byFile, cmp.AllowUnexported(options{})); diff != "" {
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
		if flags.Lookup(k.flag) == nil {
			t.Errorf("%s: no flag --%s", name, k.flag)
		}
	}
	flags.VisitAll(func(f *pflag.Flag) {
		if !keyed[f.Name] {
			t.Errorf("--%s has no key", f.Name)
		}
	})
}

func TestDefaults(t *testing.T) {
	for _, json := range []string{"", "{}", " \n"} {
		o, _, err := told(t, json)
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
		{`{"debug":true}`, "--debug=false", "debug is also given as the flag --debug"},
		{`{"labels":["a=b"]}`, "--label=c=d", "labels is also given as the flag --label"},
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
		{"", "--bridg=x", "unknown flag: --bridg"},
	} {
		if _, _, err := told(t, c.json, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s %s: got %v, want %q", c.json, c.args, err, c.want)
		}
	}
	if err := run([]string{"--validate", "up"}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `unexpected argument "up"`) {
		t.Errorf("an argument: %v", err)
	}
}

// SIGHUP reads the file that the daemon was given, and does not take back what a flag says.
func TestLevelAnew(t *testing.T) {
	for _, c := range []struct {
		args, json string
		want       slog.Level
		fails      bool
	}{
		{"", `{"log-level":"error"}`, slog.LevelError, false},
		{"", `{"log-level":"error","debug":true,"mtu":1400}`, slog.LevelDebug, false},
		{"", `{}`, slog.LevelInfo, false},
		{"--debug", `{"log-level":"error"}`, slog.LevelDebug, false},
		{"--log-level=warn", `{}`, slog.LevelWarn, false},
		{"--log-level=warn", `{"log-level":"error"}`, 0, true},
		{"", `{"log-level":"loud"}`, 0, true},
		{"", `{`, 0, true},
	} {
		o, flags, err := told(t, "", strings.Fields(c.args)...)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(o.ConfigFile, []byte(c.json), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := o.levelAnew(flags); (err != nil) != c.fails || err == nil && got != c.want {
			t.Errorf("%s %s: got %v, %v", c.args, c.json, got, err)
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
