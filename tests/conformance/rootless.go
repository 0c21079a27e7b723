package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// adaptArg makes this program a runtime's wrapper: adaptArg RUNTIME ARGUMENT...
const adaptArg = "-adapt"

// adapt gives the container that is to be created what an ordinary user's needs, and becomes the
// runtime.
func adapt(runtimePath string, args []string) error {
	if at := slices.Index(args, "create"); at >= 0 {
		bundle := "."
		if i := slices.Index(args, "--bundle"); i >= 0 && i+1 < len(args) {
			bundle = args[i+1]
		}
		if err := adaptBundle(filepath.Join(bundle, "config.json"), args[len(args)-1]); err != nil {
			return err
		}
	}
	return unix.Exec(runtimePath, append([]string{runtimePath}, args...), os.Environ())
}

// adaptBundle leaves what the program asked for, and adds a user namespace where it asked for none.
func adaptBundle(name, id string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil //nolint:nilerr // the program may have left it out: the runtime is to say so
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil //nolint:nilerr // as above
	}
	linux, ok := config["linux"].(map[string]any)
	if !ok {
		return nil
	}
	namespaces, _ := linux["namespaces"].([]any)
	mapped := slices.ContainsFunc(namespaces, func(n any) bool {
		of, _ := n.(map[string]any)
		return of["type"] == "user"
	})
	if !mapped {
		linux["namespaces"] = append(namespaces, map[string]any{"type": "user"})
		for field, k := range map[string]struct {
			file string
			own  int
		}{"uidMappings": {"/etc/subuid", os.Geteuid()}, "gidMappings": {"/etc/subgid", os.Getegid()}} {
			if linux[field], err = mappings(k.file, k.own); err != nil {
				return err
			}
		}
	}
	if top := delegated(); top != "" {
		linux["cgroupsPath"] = path.Join(top, "conformance-"+id)
	}
	if text, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o600)
}

// mappings are the own id as root's and the subordinate ones (subuid(5)) after it.
func mappings(file string, own int) ([]any, error) {
	list := []any{map[string]any{"containerID": 0, "hostID": own, "size": 1}}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != os.Getenv("USER") && f[0] != strconv.Itoa(os.Geteuid()) {
			continue
		}
		first, err1 := strconv.Atoi(f[1])
		size, err2 := strconv.Atoi(f[2])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%s: %q: expected NAME:FIRST:SIZE", file, line)
		}
		return append(list, map[string]any{"containerID": 1, "hostID": first, "size": size}), nil
	}
	return nil, fmt.Errorf("%s: expected subordinate ids of user %d", file, os.Geteuid())
}

// delegated is the topmost cgroup above ours in which we may make others, or "". Our own is none: it
// has processes, so it can give no controller to others (cgroups(7)).
func delegated() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	own, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "0::")
	if !ok {
		return ""
	}
	top := ""
	for at := path.Dir(own); at != "/" && at != "."; at = path.Dir(at) {
		if unix.Access("/sys/fs/cgroup"+at+"/cgroup.procs", unix.W_OK) != nil {
			break
		}
		top = at
	}
	return top
}

// wrapped is the words of a shell that run a runtime for the user that we are.
func wrapped(runtimePath string) (string, error) {
	if os.Geteuid() == 0 {
		return fmt.Sprintf("'%s'", runtimePath), nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if runtimePath, err = exec.LookPath(runtimePath); err != nil {
		return "", err
	}
	return fmt.Sprintf("'%s' %s '%s'", self, adaptArg, runtimePath), nil
}
