// Package house holds the arrows of the house: which room may import which. ARCHITECTURE.md shows
// the same table to people; this one is the truth.
package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sampan-project/sampan/"

// A room is a package pattern ("core/runtime/..." with everything below it, "core/wire" alone) and
// what it may import of ours. The first room that matches a package is the package's.
type room struct {
	name string
	may  []string
	// never are imports, of ours or not, that must not be reached even through other packages.
	never []string
	why   string
}

var kernel = []string{"core/fault", "core/linux/...", "core/mount/...", "core/cgroup/..."}
var processes = append([]string{"core/wire", "core/sparsejson", "core/crash", "core/runtime/...", "core/monitor/..."}, kernel...)
var stores = append([]string{"core/check", "core/state/...", "core/content/...", "core/layer/...", "core/registry/...", "core/lazy", "core/trust", "core/image/..."}, processes...)

// nouns from the lowest to the highest: each may import those before it.
var nouns = []string{"core/event/...", "core/network/...", "core/volume/...", "core/build/...", "core/container/..."}

var outside = []string{"core/api/...", "core/plugin/...", "core/client/...", "proto/...", "google.golang.org/grpc", "go.starlark.net/starlark"}

var rooms = []room{
	{name: "core/fault", why: "errors are below everything"},
	{name: "core/check", why: "what every floor may find is a vocabulary"},
	{name: "core/crash", why: "where a process may be killed is asked on every floor"},
	{name: "core/sparsejson", why: "how a value is written knows no value"},
	{name: "core/wire", why: "the API's shapes are a vocabulary; they know nothing"},

	{name: "core/metric", never: []string{"net/http"}, why: "numbers know no noun"},
	{name: "core/operation", never: []string{"net/http"}, why: "operations know no noun"},

	{name: "core/linux/...", may: []string{"core/fault", "core/linux/..."}, never: []string{"net/http"}, why: "system calls know no noun"},
	{name: "core/mount/...", may: []string{"core/fault", "core/linux/...", "core/mount/..."}, never: []string{"net/http"}, why: "a mount knows no noun"},
	{name: "core/cgroup/...", may: []string{"core/fault", "core/linux/...", "core/cgroup/..."}, never: []string{"net/http"}, why: "a cgroup knows no noun"},
	{name: "core/runtime/...", may: append([]string{"core/runtime/...", "core/sparsejson"}, kernel...), never: []string{"net/http", "google.golang.org/grpc", "core/state", "core/wire"}, why: "the privileged program stays small"},
	{name: "core/monitor/...", may: append([]string{"core/monitor/...", "core/runtime/...", "core/crash"}, kernel...), never: []string{"net/http", "google.golang.org/grpc", "core/state"}, why: "the monitor outlives everything and parses nothing from outside"},

	{name: "core/state/...", may: []string{"core/fault", "core/crash", "core/check"}, never: outside, why: "a store knows no noun"},
	{name: "core/content/...", may: []string{"core/fault", "core/linux/...", "core/crash", "core/check"}, never: outside, why: "blobs know no image"},
	{name: "core/layer/...", may: append([]string{"core/content/...", "core/state/...", "core/layer/...", "core/crash", "core/check"}, kernel...), never: outside, why: "a layer knows no image"},
	{name: "core/registry/...", may: []string{"core/fault", "core/wire", "core/content/..."}, never: []string{"core/api/...", "core/plugin/..."}, why: "the registry client serves the image store"},
	{name: "core/trust", may: []string{"core/fault", "core/wire"}, never: []string{"net/http", "github.com/distribution/reference"}, why: "what is signed is checked alike in client and daemon, and the client starts fast"},
	{name: "core/lazy/...", may: []string{"core/fault", "core/wire", "core/registry/...", "core/monitor/protocol", "core/lazy/..."}, never: []string{"core/image/...", "core/layer/...", "core/state/...", "google.golang.org/grpc"}, why: "the process that shows layers outlives the daemon and knows no image"},
	{name: "core/image/...", may: stores, never: outside, why: "stores are below nouns"},

	{name: "core/event/...", may: []string{"core/fault", "core/wire", "core/state/..."}, never: outside, why: "the log of events is below the nouns that write it"},
	{name: "core/network/...", may: append([]string{"core/wire", "core/state/...", "core/check", "core/network/..."}, kernel...), never: outside, why: "core decides, plugins do"},
	{name: "core/volume/...", may: append([]string{"core/wire", "core/state/...", "core/crash", "core/check"}, kernel...), never: outside, why: "core decides, plugins do"},
	{name: "core/build/...", may: append(append([]string{}, stores...), nouns[:3]...), never: outside, why: "the solver knows no format and no container"},
	{name: "core/container/...", may: append(append([]string{"core/container/...", "core/operation"}, stores...), nouns[:4]...), never: outside, why: "nouns know no protocol"},

	{name: "core/cluster/identity", may: []string{"core/fault", "core/wire", "core/crash"}, never: []string{"net/http", "github.com/hashicorp/raft"}, why: "who a node is knows no network"},
	{name: "core/cluster/transport", may: []string{"core/fault", "core/wire", "core/crash", "core/cluster/identity"}, never: outside, why: "connections know no swarm"},
	{name: "core/cluster/store", may: []string{"core/fault", "core/wire", "core/crash"}, never: outside, why: "what is agreed on knows no network and no decision"},
	{name: "core/cluster/orchestrator", may: []string{"core/fault", "core/wire", "core/cluster/store"}, never: outside, why: "a decision knows no network and no container"},
	{name: "core/cluster/session", may: []string{"core/wire"}, why: "the messages between nodes are a vocabulary"},
	{name: "core/cluster/agent", may: append([]string{"core/fault", "core/wire", "core/cluster/session"}, nouns[4]), never: []string{"core/api/...", "github.com/hashicorp/raft"}, why: "a node's tasks know no manager"},
	{name: "core/cluster/mesh", may: []string{"core/fault", "core/wire", "core/cluster/session"}, never: []string{"core/container/...", "net/http"}, why: "published ports know no container"},
	{name: "core/cluster", may: []string{"core/fault", "core/wire", "core/crash", "core/event/...", "core/container/name", "core/cluster/..."}, never: []string{"core/api/...", "core/plugin/...", "google.golang.org/grpc"}, why: "a swarm is above the nouns and below the API's routes"},

	{name: "core/plugin", may: []string{"core/fault", "core/state/...", "core/linux/...", "proto/..."}, why: "the plugin host knows no noun"},
	{name: "core/plugin/driver/...", may: append([]string{"core/plugin", "proto/...", "core/wire", "core/fault", "core/crash", "core/plugin/driver/..."}, nouns...), never: []string{"core/api/..."}, why: "the only meeting of noun and protocol"},
	{name: "core/plugin/...", may: []string{"core/fault", "core/plugin/...", "core/state/...", "proto/..."}, why: "the plugin host knows no noun"},

	{name: "core/api/...", may: append(append([]string{"core/api/..."}, stores...), nouns...), never: []string{"google.golang.org/grpc", "proto/...", "core/plugin/...", "go.starlark.net/starlark"}, why: "the API meets nouns through Backend interfaces"},
	{name: "core/client/...", may: []string{"core/wire", "core/fault", "core/sparsejson"}, never: []string{"core/cluster/...", "google.golang.org/grpc", "google.golang.org/protobuf/proto", "github.com/google/go-containerregistry/pkg/v1/remote", "go.etcd.io/bbolt"}, why: "the client starts fast"},

	{name: "proto/...", may: []string{"proto/..."}, why: "the protocol stands alone"},
	{name: "plugins/sdk/...", may: []string{"proto/...", "plugins/sdk/..."}, never: []string{"core/..."}, why: "drivers see the SDK only"},
	{name: "plugins/...", may: []string{"plugins/sdk/..."}, never: []string{"core/..."}, why: "drivers see the SDK only"},

	{name: "stdlib/...", why: "the standard library is scripts, embedded"},
	{name: "starlark/...", may: []string{"core/client/...", "core/wire", "core/fault", "stdlib/...", "starlark/..."}, never: []string{"core/container/...", "core/image/...", "google.golang.org/grpc"}, why: "scripts get no back door"},

	{name: "cmd/sampan-runtime", may: processes, never: []string{"core/cluster/...", "net/http", "crypto/tls", "google.golang.org/grpc", "google.golang.org/protobuf/proto", "core/state/...", "core/wire"}, why: "the privileged program stays small"},
	{name: "cmd/sampan-log-tls", may: []string{"core/fault"}, never: []string{"net/http"}, why: "it has TLS so that the monitor need not"},
	{name: "cmd/sampand/...", may: append(append([]string{"core/metric", "core/operation", "core/cluster", "core/plugin/...", "core/api/...", "cmd/sampand/..."}, stores...), nouns...), never: []string{"starlark/...", "go.starlark.net/starlark", "core/client/..."}, why: "the daemon runs no script"},
	{name: "cmd/sampan-registry/...", may: []string{"core/fault", "core/metric", "core/wire", "cmd/sampan/cli", "cmd/sampan/registry", "cmd/sampan-registry/..."}, never: []string{"google.golang.org/grpc", "core/image/...", "core/container/...", "core/state/..."}, why: "the registry serves content and knows no engine"},
	{name: "cmd/sampan/...", may: []string{"core/client/...", "core/trust", "core/wire", "core/fault", "starlark/...", "stdlib/...", "cmd/sampan/..."}, never: []string{"core/cluster/...", "google.golang.org/grpc", "google.golang.org/protobuf/proto", "github.com/google/go-containerregistry/pkg/v1/remote"}, why: "small programs start fast"},

	{name: "cmd/sampan-lazy", may: []string{"core/lazy/server"}, never: []string{"google.golang.org/grpc"}, why: "it is core/lazy/server and a flag"},

	{name: "examples/...", may: []string{"plugins/sdk/..."}, why: "an example shows what a user can import"},
	{name: "tests/...", may: []string{"core/client/...", "core/wire", "tests/..."}, why: "scenarios speak to the programs from outside"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// matches reports whether path, without the module's prefix, is in the pattern.
func matches(pattern, path string) bool {
	if top, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == top || strings.HasPrefix(path, top+"/")
	}
	return path == pattern
}

func TestArrows(t *testing.T) {
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		i := slices.IndexFunc(rooms, func(r room) bool { return matches(r.name, path) })
		if i < 0 {
			t.Errorf("%s is in no room: give it one in the table of this test, and in ARCHITECTURE.md", path)
			continue
		}
		r := rooms[i]
		for _, imported := range p.Imports {
			ours, ok := strings.CutPrefix(imported, module)
			if ok && !slices.ContainsFunc(r.may, func(pattern string) bool { return matches(pattern, ours) }) {
				t.Errorf("%s imports %s: %s", path, ours, r.why)
			}
		}
		for _, reached := range p.Deps {
			ours := strings.TrimPrefix(reached, module)
			if slices.ContainsFunc(r.never, func(pattern string) bool { return matches(pattern, ours) }) {
				t.Errorf("%s reaches %s: %s", path, ours, r.why)
			}
		}
	}
}

// A drawer with such a name is a noun not yet found.
func TestNoDrawers(t *testing.T) {
	drawers := []string{"util", "utils", "common", "helpers", "helper", "shared", "types", "base", "misc"}
	for _, p := range packages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		for part := range strings.SplitSeq(path, "/") {
			if slices.Contains(drawers, part) {
				t.Errorf("%s: a package named %q says nothing; find the noun", path, part)
			}
		}
	}
}
