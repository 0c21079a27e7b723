package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sampan-project/sampan/tests/scenario"
)

// The versions of the API that are asked for: 1.oldest to 1.newest.
const oldest, newest = 24, 50

// asker asks a daemon under any version.
type asker struct {
	t      *testing.T
	client *http.Client
	ids    *strings.Replacer // what stands in paths for the containers that are there
}

// ask sends a request and returns the answer's status and body.
func (a *asker) ask(version int, method, path, body string) (int, string, http.Header) {
	a.t.Helper()
	url := fmt.Sprintf("http://docker/v1.%d%s", version, a.ids.Replace(path))
	req, err := http.NewRequestWithContext(context.WithoutCancel(a.t.Context()), method, url, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// must asks and returns a value of the JSON that is answered.
func (a *asker) must(version int, method, path, body string) any {
	a.t.Helper()
	status, text, _ := a.ask(version, method, path, body)
	var value any
	if status >= 300 {
		a.t.Fatalf("v1.%d %s %s: %d %s", version, method, path, status, text)
	}
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		a.t.Fatalf("v1.%d %s %s: %v: %s", version, method, path, err, text)
	}
	return value
}

// at returns the value at a path of keys and numbers, such as "0.Labels.a", and whether it is there.
func at(value any, path string) (any, bool) {
	for key := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			next, ok := v[key]
			if !ok {
				return nil, false
			}
			value = next
		case []any:
			var n int
			if _, err := fmt.Sscan(key, &n); err != nil || n >= len(v) {
				return nil, false
			}
			value = v[n]
		default:
			return nil, false
		}
	}
	return value, true
}

func daemon(t *testing.T) *asker {
	t.Helper()
	d := scenario.Alone(t, "")
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Busybox(); err != nil {
		t.Fatal(err)
	}
	a := &asker{t: t, client: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(d.Root, "s.sock"))
	}}}}
	a.ids = strings.NewReplacer()
	t.Cleanup(a.client.CloseIdleConnections)
	a.must(newest, "POST", "/networks/create", `{"Name":"net"}`)
	a.must(newest, "POST", "/containers/create?name=off", `{"Image":"busybox","Cmd":["true"]}`)
	one := a.must(newest, "POST", "/containers/create?name=one",
		`{"Image":"busybox","Cmd":["sleep","1000"],"Hostname":"host","HostConfig":{"NetworkMode":"net","Annotations":{"a":"b"}}}`)
	a.must(newest, "POST", "/containers/one/start", "")
	t.Cleanup(func() {
		a.ask(newest, "DELETE", "/containers/one?force=1", "")
		a.ask(newest, "DELETE", "/containers/off?force=1", "")
		a.ask(newest, "DELETE", "/networks/net", "")
	})
	id, _ := at(one, "Id")
	a.ids = strings.NewReplacer("<one>", fmt.Sprint(id), "<short>", fmt.Sprint(id)[:12])
	return a
}

// none is a filter that spares everything.
const none = "?filters=%7B%22label%22%3A%5B%22nosuch%22%5D%7D"

// TestEveryEndpointInEveryVersion asks every endpoint of the groups, with what it answers with the same
// status under all versions.
func TestEveryEndpointInEveryVersion(t *testing.T) {
	a := daemon(t)
	for _, endpoint := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/containers/json?all=1&size=1", "", 200},
		{"POST", "/containers/create", `{"Image":"nosuch"}`, 404},
		{"POST", "/containers/create", `{"Image":`, 400},
		{"POST", "/containers/prune" + none, "", 200},
		{"GET", "/containers/one/json?size=1", "", 200},
		{"GET", "/containers/nosuch/json", "", 404},
		{"GET", "/containers/one/top", "", 200},
		{"GET", "/containers/off/top", "", 409},
		{"GET", "/containers/one/logs?stdout=1", "", 200},
		{"GET", "/containers/one/logs", "", 400},
		{"GET", "/containers/off/stats?stream=0", "", 200},
		{"GET", "/containers/nosuch/stats", "", 404},
		{"GET", "/containers/one/changes", "", 200},
		{"GET", "/containers/nosuch/export", "", 404},
		{"GET", "/containers/one/archive?path=/etc/hostname", "", 200},
		{"HEAD", "/containers/one/archive?path=/etc/hostname", "", 200},
		{"PUT", "/containers/nosuch/archive?path=/", "", 404},
		{"POST", "/containers/one/start", "", 304},
		{"POST", "/containers/one/start", `{"Binds":[]}`, 400},
		{"POST", "/containers/off/stop", "", 304},
		{"POST", "/containers/nosuch/restart", "", 404},
		{"POST", "/containers/off/kill", "", 409},
		{"POST", "/containers/off/pause", "", 409},
		{"POST", "/containers/nosuch/unpause", "", 404},
		{"POST", "/containers/off/rename?name=one", "", 409},
		{"POST", "/containers/one/update", `{}`, 200},
		{"POST", "/containers/off/wait", "", 200},
		{"POST", "/containers/off/resize?h=1&w=1", "", 409},
		{"POST", "/containers/nosuch/attach", "", 404},
		{"GET", "/containers/one/attach/ws", "", 400}, // no websocket
		{"POST", "/containers/off/exec", `{"Cmd":["true"]}`, 409},
		{"POST", "/containers/one/exec", `{"Cmd":[]}`, 400},
		{"DELETE", "/containers/one", "", 409},
		{"DELETE", "/containers/nosuch", "", 404},
		{"POST", "/containers/nosuch/copy", `{"Resource":"/"}`, 404}, // removed with v1.24
		{"GET", "/exec/nosuch/json", "", 404},
		{"POST", "/exec/nosuch/start", `{}`, 404},
		{"POST", "/exec/nosuch/resize?h=1&w=1", "", 404},
		{"POST", "/commit?container=nosuch", "", 404},
		{"GET", "/images/json?all=1", "", 200},
		{"GET", "/images/busybox/json", "", 200},
		{"GET", "/images/busybox/history", "", 200},
		{"GET", "/images/nosuch/get", "", 404},
		{"GET", "/images/get?names=nosuch", "", 404},
		{"GET", "/images/search?term=x&limit=1000", "", 400},
		{"POST", "/images/create", "", 400},
		{"POST", "/images/load", "x", 400},
		{"POST", "/images/prune" + none, "", 200},
		{"POST", "/images/nosuch/tag?repo=x", "", 404},
		{"POST", "/images/busybox/tag?repo=BAD", "", 400},
		{"POST", "/images/127.0.0.1:1/nosuch/push", "", 200}, // the error comes with the progress
		{"DELETE", "/images/nosuch", "", 404},
		{"GET", "/networks", "", 200},
		{"GET", "/networks/bridge", "", 200},
		{"GET", "/networks/nosuch", "", 404},
		{"POST", "/networks/create", `{}`, 400},
		{"POST", "/networks/create", `{"Name":"net","CheckDuplicate":true}`, 409},
		{"POST", "/networks/nosuch/connect", `{"Container":"one"}`, 404},
		{"POST", "/networks/nosuch/disconnect", `{"Container":"one"}`, 404},
		{"POST", "/networks/prune" + none, "", 200},
		{"DELETE", "/networks/nosuch", "", 404},
		{"DELETE", "/networks/bridge", "", 403},
		{"GET", "/volumes", "", 200},
		{"POST", "/volumes/create", `{"Name":"kept"}`, 201},
		{"GET", "/volumes/kept", "", 200},
		{"PUT", "/volumes/kept?version=1", `{}`, 503},
		{"POST", "/volumes/prune" + none, "", 200},
		{"DELETE", "/volumes/nosuch", "", 404},
		{"DELETE", "/volumes/nosuch?force=1", "", 204},
		{"GET", "/_ping", "", 200},
		{"HEAD", "/_ping", "", 200},
		{"GET", "/version", "", 200},
		{"GET", "/info", "", 200},
		{"GET", "/system/df", "", 200},
		{"POST", "/auth", `{"serveraddress":"BAD ADDRESS"}`, 400},
		{"GET", "/events?since=0&until=1", "", 200},
		{"GET", "/events?since=x", "", 400},
		{"GET", "/distribution/BAD/json", "", 400},
		{"POST", "/build/prune" + none, "", 200},
		{"GET", "/plugins", "", 200},
		{"GET", "/plugins?filters=%7B%22nosuch%22%3A%5B%221%22%5D%7D", "", 400},
		{"GET", "/plugins/nosuch/json", "", 404},
		{"GET", "/nosuch", "", 404},
		// a node that is in no swarm
		{"GET", "/swarm", "", 503},
		{"POST", "/swarm/update", `{}`, 503},
		{"POST", "/swarm/leave", "", 503},
		{"GET", "/swarm/unlockkey", "", 503},
		{"POST", "/swarm/unlock", `{}`, 503},
		{"GET", "/nodes", "", 503},
		{"GET", "/nodes/x", "", 503},
		{"POST", "/nodes/x/update?version=1", `{}`, 503},
		{"DELETE", "/nodes/x", "", 503},
		{"GET", "/services", "", 503},
		{"POST", "/services/create", `{}`, 503},
		{"GET", "/services/x", "", 503},
		{"POST", "/services/x/update?version=1", `{}`, 503},
		{"GET", "/services/x/logs?stdout=1", "", 503},
		{"DELETE", "/services/x", "", 503},
		{"GET", "/tasks", "", 503},
		{"GET", "/tasks/x", "", 503},
		{"GET", "/tasks/x/logs?stdout=1", "", 503},
		{"GET", "/secrets", "", 503},
		{"POST", "/secrets/create", `{}`, 503},
		{"GET", "/secrets/x", "", 503},
		{"POST", "/secrets/x/update?version=1", `{}`, 503},
		{"DELETE", "/secrets/x", "", 503},
		{"GET", "/configs", "", 503},
		{"POST", "/configs/create", `{}`, 503},
		{"GET", "/configs/x", "", 503},
		{"POST", "/configs/x/update?version=1", `{}`, 503},
		{"DELETE", "/configs/x", "", 503},
	} {
		for v := oldest; v <= newest; v++ {
			status, text, header := a.ask(v, endpoint.method, endpoint.path, endpoint.body)
			if status != endpoint.status {
				t.Errorf("v1.%d %s %s: %d, expected %d: %s", v, endpoint.method, endpoint.path, status, endpoint.status, text)
				break
			}
			if header.Get("Api-Version") == "" || header.Get("Server") == "" || header.Get("Ostype") == "" {
				t.Errorf("v1.%d %s %s: headers %v", v, endpoint.method, endpoint.path, header)
			}
			var e struct{ Message string }
			if status >= 400 && (json.Unmarshal([]byte(text), &e) != nil || e.Message == "") {
				t.Errorf("v1.%d %s %s: the error has no message: %s", v, endpoint.method, endpoint.path, text)
			}
		}
	}
	a.ask(newest, "DELETE", "/volumes/kept", "")
	for _, version := range []int{oldest - 1, newest + 1} {
		if status, text, _ := a.ask(version, "GET", "/containers/json", ""); status != 400 || !strings.Contains(text, fmt.Sprintf("client version 1.%d is too", version)) {
			t.Errorf("v1.%d: %d %s", version, status, text)
		}
	}
}

// TestAnswersByVersion is the change log of the API: from which version on, and up to which, a field is there.
func TestAnswersByVersion(t *testing.T) {
	a := daemon(t)
	for _, field := range []struct {
		path, field string
		since, last int    // versions that have it
		value       string // and its value there, "" for any
	}{
		{"/info", "BridgeNfIptables", oldest, 49, ""},
		{"/info", "BridgeNfIp6tables", oldest, 49, ""},
		{"/info", "RuncCommit.Expected", oldest, 48, ""},
		{"/info", "ContainerdCommit.Expected", oldest, 48, ""},
		{"/info", "InitCommit.Expected", oldest, 48, ""},
		{"/info", "RegistryConfig.AllowNondistributableArtifactsCIDRs", oldest, 48, "<nil>"},
		{"/info", "RegistryConfig.IndexConfigs", oldest, newest, ""},
		{"/info", "RuncCommit.ID", oldest, newest, ""},
		{"/info", "CDISpecDirs", oldest, newest, ""},
		{"/info", "Swarm.LocalNodeState", oldest, newest, "inactive"},
		{"/images/json", "0.VirtualSize", oldest, 43, ""},
		{"/images/json", "0.Size", oldest, newest, ""},
		{"/images/busybox/json", "VirtualSize", oldest, 43, ""},
		{"/images/busybox/json", "Config.Hostname", oldest, 49, ""},
		{"/images/busybox/json", "Config.AttachStdin", oldest, 49, "false"},
		{"/images/busybox/json", "Config.Cmd.0", oldest, newest, "sh"},
		{"/images/busybox/json", "ContainerConfig", 0, 0, ""},
		{"/system/df", "BuilderSize", oldest, 41, "0"},
		{"/system/df", "Images.0.VirtualSize", oldest, 43, ""},
		{"/system/df", "BuildCache", oldest, newest, ""},
		{"/system/df?type=volume", "Images.0", oldest, 41, ""},
		{"/system/df?type=volume", "Volumes", oldest, newest, ""},
		{"/containers/json", "0.HostConfig.Annotations.a", 46, newest, "b"},
		{"/containers/one/json", "HostConfig.Annotations.a", oldest, newest, "b"},
		{"/containers/one/json", "NetworkSettings.Networks.net.Aliases.0", oldest, 44, "<short>"},
		{"/containers/one/json", "NetworkSettings.Networks.net.Aliases.1", oldest, 44, "host"},
		{"/containers/one/json", "NetworkSettings.Networks.net.DNSNames.0", oldest, newest, "one"},
		{"/networks", "0.Containers", oldest, newest, ""},
	} {
		for v := oldest; v <= newest; v++ {
			got, ok := at(a.must(v, "GET", field.path, ""), field.field)
			want := v >= field.since && v <= field.last
			if ok != want || ok && field.value != "" && fmt.Sprint(got) != a.ids.Replace(field.value) {
				t.Errorf("v1.%d GET %s: %s is %v (there: %t), expected %q from v1.%d to v1.%d", v, field.path, field.field, got, ok, a.ids.Replace(field.value), field.since, field.last)
			}
		}
	}
	for v := oldest; v <= newest; v++ {
		var inUse bool
		for _, n := range a.must(v, "GET", "/networks", "").([]any) {
			containers, _ := at(n, "Containers")
			inUse = inUse || len(containers.(map[string]any)) > 0
		}
		if inUse != (v < 28) {
			t.Errorf("v1.%d: the list of networks tells of containers: %t", v, inUse)
		}
		options, _ := at(a.must(v, "GET", "/info", ""), "SecurityOptions")
		if text := fmt.Sprint(options); strings.Contains(text, "name=") != (v >= 25) {
			t.Errorf("v1.%d: the security options are %s", v, text)
		}
		_, _, header := a.ask(v, "GET", "/containers/one/logs?stdout=1", "")
		if kind := header.Get("Content-Type"); strings.HasSuffix(kind, ".multiplexed-stream") != (v >= 42) {
			t.Errorf("v1.%d: the type of logs is %s", v, kind)
		}
		if status, _, _ := a.ask(v, "POST", "/containers/off/wait?condition=nosuch", ""); (status == 400) != (v >= 30) {
			t.Errorf("v1.%d: waiting for a condition that is none: %d", v, status)
		}
	}
}

// TestRequestsByVersion is the change log of the API: what older clients cannot say is not heard, and
// what is left out has the default of their time.
func TestRequestsByVersion(t *testing.T) {
	a := daemon(t)
	for _, c := range []struct {
		name, request, field string
		older                string // its value up to the version before since, or "!" for a request that is refused
		since                int
		newer                string
	}{
		{"AutoRemove", `{"HostConfig":{"AutoRemove":true}}`, "HostConfig.AutoRemove", "false", 25, "true"},
		{"IpcMode", `{}`, "HostConfig.IpcMode", "shareable", 40, "private"},
		{"NonRecursive", `{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/tmp","Target":"/t","BindOptions":{"NonRecursive":true}}]}}`,
			"HostConfig.Mounts.0.BindOptions.NonRecursive", "", 40, "true"},
		{"ConsoleSize", `{"HostConfig":{"ConsoleSize":[24,80]}}`, "HostConfig.ConsoleSize.0", "0", 42, "24"},
		{"CreateMountpoint", `{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/tmp","Target":"/t","BindOptions":{"CreateMountpoint":true}}]}}`,
			"HostConfig.Mounts.0.BindOptions.CreateMountpoint", "", 42, "true"},
		{"options of another type", `{"HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","VolumeOptions":{"NoCopy":true}}]}}`, "HostConfig.Mounts.0.Type", "tmpfs", 42, "!"},
		{"Annotations", `{"HostConfig":{"Annotations":{"a":"b"}}}`, "HostConfig.Annotations.a", "", 43, "b"},
		{"StartInterval", `{"Healthcheck":{"Test":["CMD","true"],"StartInterval":1000000000}}`, "Config.Healthcheck.StartInterval", "", 44, "1e+09"},
		{"two networks", `{"NetworkingConfig":{"EndpointsConfig":{"net":{},"bridge":{}}},"HostConfig":{"NetworkMode":"net"}}`, "HostConfig.NetworkMode", "!", 44, "net"},
		{"ReadOnlyForceRecursive", `{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/tmp","Target":"/t","ReadOnly":true,"BindOptions":{"ReadOnlyForceRecursive":true,"Propagation":"rprivate"}}]}}`,
			"HostConfig.Mounts.0.BindOptions.ReadOnlyForceRecursive", "!", 44, "true"},
		{"Subpath", `{"HostConfig":{"Mounts":[{"Type":"volume","Source":"sub","Target":"/t","VolumeOptions":{"Subpath":"x"}}]}}`,
			"HostConfig.Mounts.0.VolumeOptions.Subpath", "!", 45, "x"},
		{"GwPriority", `{"NetworkingConfig":{"EndpointsConfig":{"net":{"GwPriority":7}}},"HostConfig":{"NetworkMode":"net"}}`,
			"NetworkSettings.Networks.net.GwPriority", "0", 48, "7"},
	} {
		for v := oldest; v <= newest; v++ {
			want := c.newer
			if v < c.since {
				want = c.older
			}
			body := bytes.Replace([]byte(c.request), []byte("{"), []byte(`{"Image":"busybox","Cmd":["true"],`), 1)
			status, text, _ := a.ask(v, "POST", "/containers/create?name=made", string(bytes.Replace(body, []byte(",}"), []byte("}"), 1)))
			if status != 201 {
				if want != "!" || status != 400 {
					t.Errorf("v1.%d %s: %d %s", v, c.name, status, text)
				}
				continue
			}
			value, ok := at(a.must(v, "GET", "/containers/made/json", ""), c.field)
			got := fmt.Sprint(value)
			if zero := !ok || got == "false" && want == ""; zero {
				got = ""
			}
			if got != want {
				t.Errorf("v1.%d %s: %s is %q, expected %q", v, c.name, c.field, got, want)
			}
			a.must(v, "DELETE", "/containers/made?v=1", "")
		}
	}
	a.ask(newest, "DELETE", "/volumes/sub", "")
	for v := oldest; v <= newest; v++ {
		a.must(v, "POST", "/containers/off/update", `{"PidsLimit":0}`)
		a.must(newest, "POST", "/containers/off/update", `{"PidsLimit":5}`)
		a.must(v, "POST", "/containers/off/update", `{"PidsLimit":9}`)
		limit, _ := at(a.must(v, "GET", "/containers/off/json", ""), "HostConfig.PidsLimit")
		if want := map[bool]string{true: "9", false: "5"}[v >= 40]; fmt.Sprint(limit) != want {
			t.Errorf("v1.%d: a limit of pids becomes %v, expected %s", v, limit, want)
		}
		a.must(v, "POST", "/volumes/create", `{"Name":"named"}`)
		a.must(v, "POST", "/volumes/prune", "")
		if status, _, _ := a.ask(v, "DELETE", "/volumes/named", ""); (status == 204) != (v >= 42) {
			t.Errorf("v1.%d: deleting the named volume after a prune: %d", v, status)
		}
		if status, _, _ := a.ask(v, "POST", "/containers/create?platform=linux/nosuch&name=made", `{"Image":"busybox"}`); (status == 404) != (v >= 41) {
			t.Errorf("v1.%d: an image of another platform: %d", v, status)
		}
		a.ask(v, "DELETE", "/containers/made", "")
	}
}
