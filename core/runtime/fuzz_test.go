package runtime

import (
	"encoding/json"
	"os"
	"path"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// FuzzValidate reads any config.json. What passes can be relied on by what comes after, and what does
// not is refused in one line, as the caller's mistake.
func FuzzValidate(f *testing.F) {
	for _, change := range []func(*specs.Spec){
		func(*specs.Spec) {},
		func(s *specs.Spec) { s.Process.Args = nil },
		func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "../x" },
		func(s *specs.Spec) { s.Linux.Sysctl["kernel.domainname/../panic"] = "1" },
		func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 1}}
		},
		func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "x"}}} },
	} {
		spec := shellSpec("true")
		change(spec)
		text, err := json.Marshal(spec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"ociVersion":"1.2.0","linux":null,"process":{}}`))
	f.Add([]byte(`{"ociVersion":"1","linux":{"namespaces":[{"type":"mount"}],"devices":[{}]},"process":{"args":["a"],"cwd":"/"},"root":{"path":"/"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		spec := new(specs.Spec)
		if json.Unmarshal(text, spec) != nil {
			return
		}
		if err := validate(spec, false); err != nil {
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("more than a line: %q", err)
			}
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.NotImplemented) && (os.Geteuid() == 0 || !fault.Is(err, fault.Forbidden)) {
				t.Errorf("class %v: %v", fault.ClassOf(err), err)
			}
			return
		}
		if spec.Linux == nil || spec.Process == nil || spec.Root == nil || spec.Root.Path == "" || spec.Process.Args[0] == "" {
			t.Error("what is needed is not there")
		}
		if !path.IsAbs(spec.Process.Cwd) || namespaceSet(spec)&unix.CLONE_NEWNS == 0 {
			t.Errorf("directory %q, namespaces %#x", spec.Process.Cwd, namespaceSet(spec))
		}
		for key := range spec.Linux.Sysctl {
			if namespaceSet(spec)&(unix.CLONE_NEWIPC|unix.CLONE_NEWNET|unix.CLONE_NEWUTS) == 0 || strings.Contains(strings.ReplaceAll(key, "/", "."), "..") {
				t.Errorf("the parameter %q is the host's", key)
			}
		}
	})
}
