package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/api/docker"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// fakeSwarm notes what it is asked.
type fakeSwarm struct {
	docker.Swarm
	worker  bool // it is no manager
	follows bool // another manager leads
	asked   string
	spec    wire.ServiceSpec
}

func (f *fakeSwarm) note(format string, args ...any) error {
	f.asked = fmt.Sprintf(format, args...)
	return nil
}

func (f *fakeSwarm) Status() string { return "active/manager" }

func (f *fakeSwarm) Forward(w http.ResponseWriter, r *http.Request) (bool, error) {
	if f.worker {
		return false, fault.New(fault.Unavailable, "Worker nodes can't be used")
	}
	if f.follows {
		_, err := io.WriteString(w, "the leader's answer to "+r.URL.Path)
		return true, err
	}
	return false, nil
}

func (f *fakeSwarm) InitSwarm(_ context.Context, r wire.SwarmInitRequest) (string, error) {
	return "n1", f.note("init %s %v %d %d", r.ListenAddr, r.DefaultAddrPool, r.SubnetSize, r.DataPathPort)
}

func (f *fakeSwarm) LeaveSwarm(_ context.Context, force bool) error { return f.note("leave %t", force) }

func (f *fakeSwarm) UpdateSwarm(_ context.Context, version uint64, _ wire.SwarmSpec, r wire.SwarmRotation) error {
	return f.note("update %d %+v", version, r)
}

func (f *fakeSwarm) Nodes(_ context.Context, filters map[string][]string) ([]wire.Node, error) {
	return nil, f.note("nodes %v", filters)
}

func (f *fakeSwarm) UpdateNode(_ context.Context, ref string, version uint64, spec wire.NodeSpec) error {
	return f.note("node %s %d %s", ref, version, spec.Role)
}

func (f *fakeSwarm) RemoveNode(_ context.Context, ref string, force bool) error {
	return f.note("rm %s %t", ref, force)
}

func (f *fakeSwarm) Services(_ context.Context, filters map[string][]string, status bool) ([]wire.Service, error) {
	return nil, f.note("services %v %t", filters, status)
}

func (f *fakeSwarm) Service(_ context.Context, ref string, defaults bool) (wire.Service, error) {
	if ref == "nobody" {
		return wire.Service{}, fault.New(fault.NotFound, "service nobody not found")
	}
	return wire.Service{ID: ref}, f.note("service %s %t", ref, defaults)
}

func (f *fakeSwarm) CreateService(_ context.Context, spec wire.ServiceSpec, auth string, pin bool) (wire.ServiceCreateResponse, error) {
	f.spec = spec
	return wire.ServiceCreateResponse{ID: "s1"}, f.note("create %s %s %t", spec.Name, auth, pin)
}

func (f *fakeSwarm) UpdateService(_ context.Context, ref string, spec wire.ServiceSpec, how wire.ServiceUpdate, auth string, pin bool) (wire.ServiceUpdateResponse, error) {
	return wire.ServiceUpdateResponse{}, f.note("update %s %+v %s %t", ref, how, auth, pin)
}

func (f *fakeSwarm) RemoveService(_ context.Context, ref string) error { return f.note("rm %s", ref) }

func (f *fakeSwarm) ServiceLogs(_ context.Context, ref string, o wire.LogOptions, w io.Writer) error {
	if _, err := io.WriteString(w, "a line"); err != nil {
		return err
	}
	return f.note("logs %s %t %t %d", ref, o.Stdout, o.Stderr, o.Tail)
}

func (f *fakeSwarm) Tasks(_ context.Context, filters map[string][]string) ([]wire.Task, error) {
	return nil, f.note("tasks %v", filters)
}

func TestSwarmRoutes(t *testing.T) {
	f := &fakeSwarm{}
	s := newServerWith(t, f)
	for _, tt := range []struct {
		method, path, body string
		status             int
		answer, asked      string
	}{
		{"GET", "/_ping", "", 200, "OK", ""},
		{"POST", "/v1.50/swarm/init", `{"ListenAddr":"x","DefaultAddrPool":["a"],"SubnetSize":9,"DataPathPort":7}`, 200, `"n1"`, "init x [a] 9 7"},
		{"POST", "/v1.38/swarm/init", `{"ListenAddr":"x","DefaultAddrPool":["a"],"SubnetSize":9,"DataPathPort":7}`, 200, `"n1"`, "init x [] 0 0"},
		{"POST", "/swarm/leave?force=1", "", 200, "", "leave true"},
		{"POST", "/swarm/update?version=7&rotateWorkerToken=true", "{}", 200, "", "update 7 {WorkerToken:true ManagerToken:false ManagerUnlockKey:false}"},
		{"POST", "/swarm/update", "{}", 400, "invalid swarm version ''", ""},
		{"GET", "/swarm/unlockkey", "", 200, `{"UnlockKey":""}`, ""},
		{"POST", "/swarm/unlock", `{"UnlockKey":"x"}`, 409, "swarm is not locked", ""},
		{"GET", `/nodes?filters={"role":["manager"]}`, "", 200, "[]", "nodes map[role:[manager]]"},
		{"GET", `/nodes?filters={"role":["boss"]}`, "", 400, "invalid filter 'role=boss'", ""},
		{"GET", `/nodes?filters={"colour":["red"]}`, "", 400, "invalid filter 'colour'", ""},
		{"POST", "/nodes/a/update?version=3", `{"Role":"worker"}`, 200, "", "node a 3 worker"},
		{"POST", "/nodes/a/update?version=-3", `{"Role":"worker"}`, 400, "invalid node version '-3'", ""},
		{"DELETE", "/nodes/a?force=true", "", 200, "", "rm a true"},
		{"GET", `/services?status=true&filters={"mode":["global"]}`, "", 200, "[]", "services map[mode:[global]] true"},
		{"GET", "/v1.40/services?status=true", "", 200, "[]", "services map[] false"},
		{"GET", "/services/web?insertDefaults=true", "", 200, `"ID":"web"`, "service web true"},
		{"GET", "/services/nobody", "", 404, "service nobody not found", ""},
		{"POST", "/services/create", `{"Name":"web"}`, 201, `{"ID":"s1"}`, "create web  false"},
		{"POST", "/v1.29/services/create", `{"Name":"web"}`, 201, `{"ID":"s1"}`, "create web  true"},
		{"POST", "/services/web/update?version=4&rollback=previous&registryAuthFrom=previous-spec", "{}", 200, `{"Warnings":null}`,
			"update web {Version:4 RegistryAuthFrom:previous-spec Rollback:previous}  false"},
		{"POST", "/services/web/update?version=4&rollback=next", "{}", 400, "unrecognized rollback option next", ""},
		{"POST", "/services/web/update?version=4&registryAuthFrom=x", "{}", 400, "invalid registryAuthFrom 'x'", ""},
		{"DELETE", "/services/web", "", 200, "", "rm web"},
		{"GET", "/services/web/logs?stdout=1&tail=5", "", 200, "a line", "logs web true false 5"},
		{"GET", "/services/web/logs", "", 400, "Bad parameters: you must choose at least one stream", ""},
		{"GET", "/services/web/logs?stdout=1&tail=-1", "", 400, "tail", ""},
		{"GET", "/services/nobody/logs?stdout=1", "", 404, "service nobody not found", ""},
		{"GET", `/tasks?filters={"desired-state":["running"]}`, "", 200, "[]", "tasks map[desired-state:[running]]"},
		{"GET", `/tasks?filters={"desired-state":["asleep"]}`, "", 400, "desired-state=asleep", ""},
		{"GET", "/secrets", "", 200, "[]", ""},
		{"POST", "/secrets/create", "{}", 501, "secrets of a swarm are not supported", ""},
		{"GET", "/configs/x", "", 404, "config x not found", ""},
		{"GET", "/services/a/b/c", "", 200, "", "service a/b/c false"},
		{"GET", "/networks/host?scope=swarm", "", 200, `"Labels":{"com.docker.swarm.predefined":"true"}`, ""},
		{"POST", "/networks/create", `{"Name":"ov","Driver":"overlay"}`, 501, "network ov: networks over the nodes of a swarm are not supported", ""},
		{"PUT", "/volumes/x?version=1", "{}", 501, "cluster volumes are not supported", ""},
	} {
		f.asked = ""
		var body any
		if tt.body != "" {
			body = tt.body
		}
		path := strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(tt.path)
		status, answer, _ := s.do(tt.method, path, body)
		if status != tt.status || !strings.Contains(answer, tt.answer) || tt.asked != "" && f.asked != tt.asked || tt.status >= 400 && f.asked != "" && !strings.HasPrefix(f.asked, "service ") {
			t.Errorf("%s %s: %d %s, asked %q; want %d %s, %q", tt.method, tt.path, status, answer, f.asked, tt.status, tt.answer, tt.asked)
		}
	}
	if _, _, h := s.do("GET", "/_ping", nil); h.Get("Swarm") != "active/manager" {
		t.Errorf("the ping says %q", h.Get("Swarm"))
	}
	f.follows = true
	if status, answer, _ := s.do("GET", "/v1.50/nodes/x", nil); status != 200 || answer != "the leader's answer to /v1.50/nodes/x" {
		t.Errorf("on a manager that does not lead: %d %s", status, answer)
	}
	f.worker = true
	if status, answer, _ := s.do("GET", "/v1.50/nodes/x", nil); status != 503 || !strings.Contains(answer, "Worker nodes") {
		t.Errorf("on a worker: %d %s", status, answer)
	}
	if status, _, _ := s.do("POST", "/v1.50/swarm/leave", nil); status != 200 || f.asked != "leave false" {
		t.Errorf("a worker's leave: %d, asked %q", status, f.asked)
	}
}

// What a client's version does not know is taken out of its services, by the API's change log.
func TestServiceOfOlderClients(t *testing.T) {
	f := &fakeSwarm{}
	s := newServerWith(t, f)
	const spec = `{"Name":"a","Networks":[{"Target":"old"}],"TaskTemplate":{"ContainerSpec":{"Image":"x","OomScoreAdj":5,"Privileges":{"NoNewPrivileges":true},
		"CapabilityAdd":["SYS_TIME"],"Sysctls":{"a":"b"},"Healthcheck":{"StartInterval":5}},"Resources":{"Limits":{"Pids":3}},"Placement":{"MaxReplicas":2}},"Mode":{"GlobalJob":{}}}`
	for version, want := range map[string]string{
		"1.50": "5 true [SYS_TIME] map[a:b] 5 3 2 true []",
		"1.45": "0 true [SYS_TIME] map[a:b] 5 3 2 true []",
		"1.43": "0 false [SYS_TIME] map[a:b] 0 3 2 true [old]",
		"1.40": "0 false [] map[a:b] 0 0 2 false [old]",
		"1.39": "0 false [] map[] 0 0 0 false [old]",
	} {
		if status, answer, _ := s.do("POST", "/v"+version+"/services/create", spec); status != 201 {
			t.Fatalf("v%s: %d %s", version, status, answer)
		}
		task := f.spec.TaskTemplate
		c := task.ContainerSpec
		networks := []string{}
		for _, n := range append(task.Networks, f.spec.Networks...) {
			networks = append(networks, n.Target)
		}
		got := fmt.Sprint(c.OomScoreAdj, " ", c.Privileges.NoNewPrivileges, " ", c.CapabilityAdd, " ", c.Sysctls, " ", c.Healthcheck.StartInterval, " ",
			task.Resources.Limits.Pids, " ", task.Placement.MaxReplicas, " ", f.spec.Mode.GlobalJob != nil, " ", networks)
		if got != want {
			t.Errorf("v%s: %s, want %s", version, got, want)
		}
	}
	if status, _, _ := s.do("POST", "/v1.24/services/create", `{}`); status != 201 { // without a container
		t.Errorf("an empty spec: %d", status)
	}
}
