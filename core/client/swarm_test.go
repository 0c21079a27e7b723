package client

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// TestSwarmRequests is about what is asked for by path, query and header; cmd/sampan compares bodies with docker's.
func TestSwarmRequests(t *testing.T) {
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
		auth, _ := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth"))
		got = strings.Join([]string{r.Method, "/" + path, r.URL.Query().Encode(), string(auth)}, " ")
		answer := "{}"
		if r.Method == http.MethodGet && (!strings.Contains(path, "/") && path != "swarm") {
			answer = "[]"
		} else if path == "swarm/init" {
			answer = `"id"`
		}
		io.WriteString(w, answer) //nolint:errcheck // who asked is gone
	})
	ctx, version, auth := t.Context(), wire.ObjectVersion{Index: 4}, &wire.AuthConfig{Username: "u"}
	second := func(_ any, err error) error { return err }
	for want, do := range map[string]func() error{
		"POST /swarm/init  ":              func() error { return second(c.SwarmInit(ctx, wire.SwarmInitRequest{})) },
		"POST /swarm/join  ":              func() error { return c.SwarmJoin(ctx, wire.SwarmJoinRequest{}) },
		"POST /swarm/leave force=1 ":      func() error { return c.SwarmLeave(ctx, true) },
		"GET /swarm  ":                    func() error { return second(c.SwarmInspect(ctx)) },
		"GET /swarm/unlockkey  ":          func() error { return second(c.SwarmUnlockKey(ctx)) },
		"POST /swarm/unlock  ":            func() error { return c.SwarmUnlock(ctx, "k") },
		"GET /nodes  ":                    func() error { return second(c.NodeList(ctx, nil)) },
		"GET /nodes/a%2Fb  ":              func() error { return second(c.NodeInspect(ctx, "a/b")) },
		"DELETE /nodes/a force=1 ":        func() error { return c.NodeRemove(ctx, "a", true) },
		"GET /services status=true ":      func() error { return second(c.ServiceList(ctx, nil, true)) },
		"DELETE /services/a  ":            func() error { return c.ServiceRemove(ctx, "a") },
		"GET /tasks/a  ":                  func() error { return second(c.TaskInspect(ctx, "a")) },
		"GET /networks/a scope=swarm ":    func() error { return second(c.SwarmNetwork(ctx, "a")) },
		"POST /nodes/a/update version=4 ": func() error { return c.NodeUpdate(ctx, "a", version, wire.NodeSpec{}) },
		"POST /swarm/update rotateManagerToken=false&rotateManagerUnlockKey=true&rotateWorkerToken=true&version=4 ": func() error {
			return c.SwarmUpdate(ctx, version, wire.SwarmSpec{}, wire.SwarmRotation{WorkerToken: true, ManagerUnlockKey: true})
		},
		"GET /services/a insertDefaults=true ":    func() error { return second(c.ServiceInspectRaw(ctx, "a", true)) },
		`POST /services/create  {"username":"u"}`: func() error { return second(c.ServiceCreate(ctx, wire.ServiceSpec{}, auth)) },
		"POST /services/a/update registryAuthFrom=spec&rollback=previous&version=4 ": func() error {
			return second(c.ServiceUpdate(ctx, "a", wire.ServiceSpec{}, wire.ServiceUpdate{Version: 4, RegistryAuthFrom: "spec", Rollback: "previous"}, nil))
		},
		"GET /services/a/logs details=1&stdout=1&tail=3 ": func() error {
			return second(c.ServiceLogs(ctx, "a", LogOptions{Stdout: true, Details: true, Tail: "3"}))
		},
		`GET /distribution/host:5000/a/b:1/json  {"username":"u"}`:      func() error { return second(c.Distribution(ctx, "host:5000/a/b:1", auth)) },
		`GET /secrets filters=%7B%22name%22%3A%7B%22a%22%3Atrue%7D%7D `: func() error { return second(c.SecretList(ctx, Filters{"name": {"a"}})) },
	} {
		if err := do(); err != nil || got != want {
			t.Errorf("%q, %v, expected %q", got, err, want)
		}
	}
	for _, do := range []func() error{
		func() error { return second(c.NodeInspect(ctx, "")) }, func() error { return c.ServiceRemove(ctx, " ") },
		func() error { return second(c.TaskInspect(ctx, "")) }, func() error { return second(c.Distribution(ctx, "a//b", nil)) },
	} {
		if err := do(); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
	}
}

func TestEachFrame(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	stop := errors.New("enough")
	tests := []struct {
		in    string
		want  []string
		fails string
	}{
		{"", nil, ""},
		{frame(1, "a b\n") + frame(2, "c") + frame(0, "") + frame(1, long), []string{"a b\n", "!c", "", long}, ""},
		{frame(1, "a") + frame(3, "broken"), []string{"a"}, "error from daemon in stream: broken"},
		{frame(1, "a") + frame(1, "bcd")[:10], []string{"a"}, "unexpected EOF"},
		{frame(1, "a")[:5], nil, "unexpected EOF"},
		{frame(4, "a"), nil, "stream 4"},
		{"\x01\x00\x00\x00\xff\xff\xff\xff", nil, "at most"},
		{frame(1, "stop") + frame(1, "a"), []string{"stop"}, "enough"},
	}
	for _, tt := range tests {
		var got []string
		err := EachFrame(strings.NewReader(tt.in), func(isError bool, frame []byte) error {
			text := string(frame)
			if isError {
				text = "!" + text
			}
			if got = append(got, text); text == "stop" {
				return stop
			}
			return nil
		})
		if diff := cmp.Diff(tt.want, got); diff != "" || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%.40q: %v %s", tt.in, err, diff)
		}
	}
}
