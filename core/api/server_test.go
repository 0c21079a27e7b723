package api

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func TestPing(t *testing.T) {
	s := newServer(t)
	for _, method := range []string{"HEAD", "GET"} {
		status, body, h := s.do(method, "/_ping", nil)
		if status != 200 || method == "GET" && body != "OK" || method == "HEAD" && body != "" {
			t.Errorf("%s: %d %q", method, status, body)
		}
		for name, want := range map[string]string{"Api-Version": "1.50", "Ostype": "linux", "Docker-Experimental": "false", "Builder-Version": "1", "Swarm": "inactive"} {
			if h.Get(name) != want {
				t.Errorf("%s: header %s is %q, want %q", method, name, h.Get(name), want)
			}
		}
		if !strings.HasPrefix(h.Get("Server"), "Sampan/") {
			t.Errorf("Server: %q", h.Get("Server"))
		}
	}
}

func TestVersions(t *testing.T) {
	s := newServer(t)
	tests := []struct {
		path, message string
		status        int
	}{
		{"/version", "", 200}, {"/v1.24/version", "", 200}, {"/v1.50/version", "", 200},
		{"/v1.23/version", "client version 1.23 is too old. Minimum supported API version is 1.24", 400},
		{"/v1.51/version", "client version 1.51 is too new. Maximum supported API version is 1.50", 400},
		{"/v2.0/version", "too new", 400}, {"/v1.50", "page not found", 404}, {"/v1.50/nothing", "page not found", 404},
		{"/volumes", "", 200},
	}
	for _, tt := range tests {
		status, body, h := s.do("GET", tt.path, nil)
		if status != tt.status || tt.message != "" && !strings.Contains(message(body), tt.message) {
			t.Errorf("%s: %d %s", tt.path, status, body)
		}
		if plain := strings.HasPrefix(h.Get("Content-Type"), "text/plain"); plain != strings.HasPrefix(tt.path, "/v1.23/") {
			t.Errorf("%s: %s; clients before v1.24 are told in plain text", tt.path, h.Get("Content-Type"))
		}
		if h.Get("Api-Version") != "1.50" {
			t.Errorf("%s: no Api-Version header", tt.path)
		}
	}
}

// Every error is {"message": ...} with the status of its class.
func TestErrors(t *testing.T) {
	s := newServer(t)
	s.create("web", `{"Image":"busybox","Cmd":["sleep"]}`)
	s.do("POST", "/v1.50/containers/web/start", nil)
	tests := []struct {
		method, path string
		body         any
		status       int
		message      string
	}{
		{"GET", "/containers/none/json", nil, 404, "No such container: none"},
		{"GET", "/images/none/json", nil, 404, "No such image: none:latest"},
		{"GET", "/networks/none", nil, 404, "network none not found"},
		{"GET", "/volumes/none", nil, 404, "no such volume"},
		{"DELETE", "/networks/bridge", nil, 403, "pre-defined network"},
		{"POST", "/containers/create?name=web", `{"Image":"busybox","Cmd":["true"]}`, 409, "already in use"},
		{"POST", "/containers/create", nil, 400, "invalid JSON: got EOF while reading request body"},
		{"POST", "/containers/create", `null`, 400, "config cannot be empty"},
		{"POST", "/containers/create", `{"Image":`, 400, "invalid JSON"},
		{"POST", "/containers/create", `{"Image":7}`, 400, "Image: got number, expected a string"},
		{"POST", "/containers/create", `[]`, 400, "invalid JSON: the body: got array, expected an object"},
		{"POST", "/containers/create", `{"HostConfig":{"Memory":"x"}}`, 400, "Memory: got string, expected an integer"},
		{"POST", "/containers/create", `{"Image":"x"} {}`, 400, "unexpected content after JSON"},
		{"POST", "/containers/create", bytes.NewReader([]byte("{}")), 400, "must be 'application/json'"},
		{"POST", "/containers/create", `{"Image":"` + strings.Repeat("x", 9<<20) + `"}`, 413, "too large"},
		{"POST", "/containers/web/start", nil, 304, ""},
		{"POST", "/containers/web/start", `{"HostConfig":{}}`, 400, "non-empty request body"},
		{"DELETE", "/containers/web", nil, 409, "container is running"},
		{"GET", "/containers/web/logs", nil, 400, "Bad parameters: you must choose at least one stream"},
		{"GET", "/containers/web/logs?stdout=1&tail=x", nil, 400, "tail"},
		{"GET", "/containers/json?limit=x", nil, 400, "limit"},
		{"GET", "/containers/json?filters={", nil, 400, "filters"},
		{"GET", `/containers/json?filters={"colour":["red"]}`, nil, 400, "invalid filter 'colour'"},
		{"GET", `/containers/json?filters={"status":["asleep"]}`, nil, 400, "invalid filter 'status=asleep'"},
		{"POST", "/containers/web/wait?condition=never", nil, 400, "invalid condition"},
		{"POST", "/containers/web/resize?h=1&w=99999", nil, 400, "width"},
		{"POST", "/containers/web/attach?detachKeys=escape-key", nil, 400, "Invalid detach keys"},
		{"POST", "/containers/web/exec", `{"Cmd":[]}`, 400, "No exec command specified"},
		{"GET", "/containers/web/stats", nil, 501, "not supported"},
		{"GET", "/containers/web/export", nil, 501, "not supported"},
		{"POST", "/build", nil, 501, "build.star"},
		{"POST", "/swarm/init", `{}`, 501, "swarm mode"},
		{"GET", "/swarm", nil, 503, "This node is not a swarm manager"},
		{"GET", "/services", nil, 503, "This node is not a swarm manager"},
		{"GET", "/nodes/x", nil, 503, "This node is not a swarm manager"},
		{"POST", "/images/create", nil, 400, "fromImage"},
		{"POST", "/images/create?fromImage=denied&tag=1", nil, 404, "pull access denied"},
		{"GET", "/distribution/x/json", nil, 501, "not supported"},
	}
	for _, tt := range tests {
		path := strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(tt.path)
		status, body, _ := s.do(tt.method, "/v1.50"+path, tt.body)
		if status != tt.status || tt.message != "" && !strings.Contains(message(body), tt.message) {
			t.Errorf("%s %s: %d %s; want %d %s", tt.method, tt.path, status, body, tt.status, tt.message)
		}
	}
}

func TestFiltersInBothEncodings(t *testing.T) {
	s := newServer(t)
	want := map[string][]string{"label": {"a", "b=c"}, "name": {"x"}}
	for _, given := range []string{
		`%7B%22label%22:%5B%22a%22,%22b=c%22%5D,%22name%22:%5B%22x%22%5D%7D`,
		`%7B%22label%22:%7B%22b=c%22:true,%22a%22:true,%22no%22:false%7D,%22name%22:%7B%22x%22:true%7D%7D`,
	} {
		if status, body, _ := s.do("GET", "/v1.50/networks?filters="+given, nil); status != 200 {
			t.Fatal(status, body)
		}
		if diff := cmp.Diff(want, s.networks.filters); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCreateIsShapedByVersion(t *testing.T) {
	s := newServer(t)
	body := `{"Image":"busybox","Cmd":"sleep","Entrypoint":"/bin/sh","HostConfig":{"AutoRemove":true,"PidsLimit":-1,"Annotations":{"a":"b"},"NetworkMode":"default"}}`
	s.do("POST", "/v1.24/containers/create", body)
	r := s.containers.last
	if r.HostConfig.AutoRemove || r.HostConfig.Annotations != nil || r.HostConfig.NetworkMode != "bridge" || r.HostConfig.PidsLimit != nil || r.HostConfig.IpcMode != "shareable" {
		t.Errorf("1.24: %+v", r.HostConfig)
	}
	if !slices.Equal(r.Cmd, []string{"sleep"}) || !slices.Equal(r.Entrypoint, []string{"/bin/sh"}) {
		t.Errorf("a command as one string: %q %q", r.Cmd, r.Entrypoint)
	}
	s.do("POST", "/v1.50/containers/create", body)
	if r := s.containers.last; !r.HostConfig.AutoRemove || r.HostConfig.Annotations["a"] != "b" || r.HostConfig.IpcMode != "" {
		t.Errorf("1.50: %+v", r.HostConfig)
	}
}

// head is the head of an answer whose body is the connection.
type head struct {
	code         int
	status, kind string
}

// hijacked opens a connection of its own, sends an upgrade and returns the answer's head.
func (s *server) hijacked(path, body string, header ...string) (net.Conn, *bufio.Reader, head) {
	s.t.Helper()
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, len(body))
	for i := 0; i+1 < len(header); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", header[i], header[i+1])
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil) //nolint:bodyclose // it is the connection, which the cleanup closes
	if err != nil {
		s.t.Fatal(err)
	}
	return conn, r, head{resp.StatusCode, resp.Status, resp.Header.Get("Content-Type")}
}

var upgrade = []string{"Connection", "Upgrade", "Upgrade", "tcp"}

func TestAttachBeforeStartMissesNothing(t *testing.T) {
	s := newServer(t)
	tests := []struct {
		version, tty, kind, want string
		status                   int
		upgrade                  []string
	}{
		{"1.50", "false", "application/vnd.docker.multiplexed-stream", string(frame(1, "hello\n")), 101, upgrade},
		{"1.50", "true", "application/vnd.docker.raw-stream", "hello\n", 101, upgrade},
		{"1.41", "false", "application/vnd.docker.raw-stream", string(frame(1, "hello\n")), 101, upgrade},
		{"1.50", "false", "application/vnd.docker.raw-stream", string(frame(1, "hello\n")), 200, nil},
	}
	for i, tt := range tests {
		name := fmt.Sprint("attached", i)
		s.create(name, `{"Image":"busybox","Cmd":["echo","hello"],"Tty":`+tt.tty+`}`)
		_, r, resp := s.hijacked("/v"+tt.version+"/containers/"+name+"/attach?stream=1&stdout=1&stderr=1", "", tt.upgrade...)
		if resp.code != tt.status || resp.kind != tt.kind {
			t.Errorf("%d: %+v", i, resp)
		}
		if tt.upgrade != nil && resp.status != "101 UPGRADED" {
			t.Errorf("%d: %s", i, resp.status)
		}
		if status, body, _ := s.do("POST", "/v1.50/containers/"+name+"/start", nil); status != 204 {
			t.Fatal(status, body)
		}
		got, err := io.ReadAll(r)
		if string(got) != tt.want || err != nil {
			t.Errorf("%d: got %q, %v", i, got, err)
		}
	}
}

// The end of the client's input is the end of the process's; its output still comes.
func TestHalfClose(t *testing.T) {
	s := newServer(t)
	s.create("c", `{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true}`)
	conn, r, _ := s.hijacked("/v1.50/containers/c/attach?stream=1&stdin=1&stdout=1", "", upgrade...)
	s.do("POST", "/v1.50/containers/c/start", nil)
	if _, err := io.WriteString(conn, "some input"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if want := string(frame(1, "some input")); string(got) != want || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// The detach keys end the conversation of a terminal and leave the container alone.
func TestDetachKeys(t *testing.T) {
	s := newServer(t)
	s.create("c", `{"Image":"busybox","Cmd":["sleep"],"OpenStdin":true,"Tty":true}`)
	s.do("POST", "/v1.50/containers/c/start", nil)
	conn, r, _ := s.hijacked("/v1.50/containers/c/attach?stream=1&stdin=1&stdout=1&detachKeys=a,b", "", upgrade...)
	if _, err := io.WriteString(conn, "ab"); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); len(got) > 0 || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, body, _ := s.do("GET", "/v1.50/containers/c/json", nil); !strings.Contains(body, `"Running":true`) {
		t.Error(body)
	}
}

func TestExec(t *testing.T) {
	s := newServer(t)
	s.create("c", `{"Image":"busybox","Cmd":["sleep"]}`)
	if status, body, _ := s.do("POST", "/v1.50/containers/c/exec", `{"Cmd":["x"]}`); status != 409 || !strings.Contains(message(body), "is not running") {
		t.Error(status, body)
	}
	s.do("POST", "/v1.50/containers/c/start", nil)
	create := func(config string) string {
		var answer wire.ID
		status, body, _ := s.do("POST", "/v1.50/containers/c/exec", config)
		if status != 201 || json.Unmarshal([]byte(body), &answer) != nil {
			t.Fatal(status, body)
		}
		return answer.ID
	}
	id := create(`{"Cmd":["say","this"],"AttachStdout":true}`)
	_, r, resp := s.hijacked("/v1.50/exec/"+id+"/start", `{"Detach":false}`, upgrade...)
	if got, _ := io.ReadAll(r); resp.code != 101 || string(got) != string(frame(1, "say this\n")) {
		t.Errorf("%s %q", resp.status, got)
	}
	id = create(`{"Cmd":["no-such-program"],"AttachStdout":true}`)
	_, r, resp = s.hijacked("/v1.50/exec/"+id+"/start", `{}`, upgrade...)
	if got, _ := io.ReadAll(r); resp.code != 101 || !strings.Contains(string(got), "executable file not found in $PATH") {
		t.Errorf("%s %q", resp.status, got)
	}
	if _, body, _ := s.do("GET", "/v1.50/exec/"+id+"/json", nil); !strings.Contains(body, `"ExitCode":127`) {
		t.Error(body)
	}
	id = create(`{"Cmd":["x"]}`)
	if status, body, _ := s.do("POST", "/v1.50/exec/"+id+"/start", `{"Detach":true}`); status != 200 || body != "" {
		t.Error(status, body)
	}
	if status, _, _ := s.do("POST", "/v1.50/exec/none/start", `{}`); status != 404 {
		t.Error(status)
	}
}

// The header of wait comes before the exit, so that who waits for it may start the container.
func TestWaitAnswersBeforeTheExit(t *testing.T) {
	s := newServer(t)
	s.create("c", `{"Image":"busybox","Cmd":["fail"]}`)
	req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://x/v1.50/containers/c/wait?condition=next-exit", nil)
	resp, err := s.client.Do(req) // returns with the header
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if !slices.Contains(s.containers.calls, "wait next-exit") {
		t.Error("the waiter is not registered")
	}
	s.do("POST", "/v1.50/containers/c/start", nil)
	var answer wire.WaitResponse
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.StatusCode != 42 {
		t.Error(answer, err)
	}
}

func TestLogs(t *testing.T) {
	s := newServer(t)
	s.create("c", `{"Image":"busybox","Cmd":["echo","line"]}`)
	s.do("POST", "/v1.50/containers/c/start", nil)
	status, body, h := s.do("GET", "/v1.50/containers/c/logs?stdout=1&follow=1", nil)
	if status != 200 || body != string(frame(1, "line\n")) || h.Get("Content-Type") != "application/vnd.docker.multiplexed-stream" {
		t.Errorf("%d %q %v", status, body, h)
	}
}

func TestProgress(t *testing.T) {
	s := newServer(t)
	auth := base64.URLEncoding.EncodeToString([]byte(`{"username":"u","password":"p"}`))
	status, body, h := s.do("POST", "/v1.50/images/create?fromImage=busybox&tag=latest", nil, "X-Registry-Auth", auth)
	lines := strings.Split(strings.TrimSuffix(body, "\r\n"), "\r\n")
	if status != 200 || len(lines) != 3 || h.Get("Content-Type") != "application/json" || h.Get("Content-Length") != "" {
		t.Errorf("%d %q %v", status, body, h)
	}
	if s.images.auth == nil || s.images.auth.Username != "u" {
		t.Errorf("login: %+v", s.images.auth)
	}
	_, body, _ = s.do("POST", "/v1.50/images/create?fromImage=broken&tag=1", nil)
	if !strings.HasSuffix(body, `"errorDetail":{"message":"the connection broke"}}`+"\r\n") {
		t.Errorf("%q", body)
	}
	_, body, _ = s.do("POST", "/v1.50/images/load?quiet=1", strings.NewReader("tar"))
	if strings.Contains(body, "Loading") || !strings.Contains(body, "Loaded image") || string(s.images.upload) != "tar" {
		t.Errorf("%q", body)
	}
	if status, _, _ := s.do("POST", "/v1.50/images/create?fromImage=x&tag=1", nil, "X-Registry-Auth", "!"); status != 400 {
		t.Errorf("a bad login: %d", status)
	}
}

// Half of an archive must not look like a whole one.
func TestBrokenDownloadBreaksTheConnection(t *testing.T) {
	s := newServer(t)
	if _, body, _ := s.do("GET", "/v1.50/images/get?names=a&names=b", nil); body != "an archive of a,b" {
		t.Error(body)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x/v1.50/images/late/get", nil)
	resp, err := s.client.Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an archive came without an error")
	}
}

func TestEvents(t *testing.T) {
	s := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://x/v1.50/events", nil)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := json.NewDecoder(resp.Body)
	for i := range 3 {
		s.events.ch <- wire.Event{Type: "container", Action: "start", Actor: wire.EventActor{ID: fmt.Sprint(i)}}
		var e wire.Event
		if err := out.Decode(&e); err != nil || e.Actor.ID != fmt.Sprint(i) {
			t.Fatal(e, err)
		}
	}
	cancel()
	until := fmt.Sprintf("%d.5", time.Now().Unix())
	if status, body, _ := s.do("GET", "/v1.50/events?until="+until, nil); status != 200 || body != "" {
		t.Error(status, body)
	}
}

// A shutdown ends streams that have no end, and the listener's socket is gone.
func TestShutdownEndsStreams(t *testing.T) {
	s := newServer(t)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x/v1.50/events", nil)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.create("c", `{"Image":"busybox","Cmd":["sleep"],"OpenStdin":true}`)
	s.do("POST", "/v1.50/containers/c/start", nil)
	_, r, _ := s.hijacked("/v1.50/containers/c/attach?stream=1&stdin=1&stdout=1", "", upgrade...)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
	_, _ = io.ReadAll(r) // that it ends is what counts
	if _, err := os.Stat(s.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestPanicFailsOneRequest(t *testing.T) {
	s := newServer(t)
	s.builder.solve = func(wire.BuildGraph, map[string]string, func(wire.Message)) error { panic("oops") }
	status, body, _ := s.do("POST", "/sampan/v1/build", upload(t, `{"nodes":[{"op":"scratch"}],"target":0}`))
	if status != 500 || !strings.Contains(message(body), "oops") {
		t.Error(status, body)
	}
	if status, _, _ := s.do("GET", "/_ping", nil); status != 200 {
		t.Error(status)
	}
}

// upload is the body of a build: the graph, then entries as header and content.
func upload(t *testing.T, graph string, entries ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	put(tar.Header{Name: "graph.json", Mode: 0o644, Typeflag: tar.TypeReg}, graph)
	for _, h := range entries {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "content of " + h.Name
		}
		put(h, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

const localGraph = `{"nodes":[{"op":"local","local":{"name":"src"}}],"target":0}`

func TestBuild(t *testing.T) {
	s := newServer(t)
	var got []string
	s.builder.solve = func(g wire.BuildGraph, locals map[string]string, progress func(wire.Message)) error {
		root := locals["src"]
		if !strings.HasPrefix(root, s.temp) {
			t.Errorf("local source at %s", root)
		}
		err := filepath.Walk(root, func(p string, info os.FileInfo, err error) error {
			if err == nil {
				got = append(got, fmt.Sprintf("%s %v", strings.TrimPrefix(p, root), info.Mode()))
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		progress(wire.Message{Stream: "step\n"})
		return nil
	}
	body := upload(t, localGraph,
		tar.Header{Name: "local/src/dir/", Mode: 0o700, Typeflag: tar.TypeDir},
		tar.Header{Name: "local/src/dir/file", Mode: 0o640, Typeflag: tar.TypeReg},
		tar.Header{Name: "local/src/link", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink},
		tar.Header{Name: "local/src/hard", Linkname: "local/src/dir/file", Typeflag: tar.TypeLink})
	status, text, _ := s.do("POST", "/sampan/v1/build", body)
	if status != 200 || !strings.Contains(text, `"stream":"step\n"`) || !strings.Contains(text, `"aux":{"ID":"sha256:`) {
		t.Errorf("%d %s", status, text)
	}
	want := []string{" drwxr-xr-x", "/dir drwx------", "/dir/file -rw-r-----", "/hard -rw-r-----", "/link Lrwxrwxrwx"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What is no build, or would get out of its directory, is refused before it is solved.
func TestBuildRefusesHostileUploads(t *testing.T) {
	s := newServer(t)
	outside := filepath.Join(t.TempDir(), "outside")
	file := func(name string) tar.Header { return tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	s.builder.solve = func(wire.BuildGraph, map[string]string, func(wire.Message)) error {
		t.Error("it is solved")
		return nil
	}
	tests := map[string]io.Reader{
		"no tar":          strings.NewReader("nonsense"),
		"no graph":        upload(t, `{"nodes":[],"target":0}`),
		"unknown field":   upload(t, `{"nodes":[{"op":"scratch","shell":true}],"target":0}`),
		"bad target":      upload(t, `{"nodes":[{"op":"scratch"}],"target":1}`),
		"bad local name":  upload(t, `{"nodes":[{"op":"local","local":{"name":"../x"}}],"target":0}`),
		"dots":            upload(t, localGraph, file("local/src/../../../x")),
		"not local":       upload(t, localGraph, file("etc/passwd")),
		"through a link":  upload(t, localGraph, link("local/src/d", filepath.Dir(outside)), file("local/src/d/outside")),
		"link over links": upload(t, localGraph, link("local/src/a", ".."), link("local/src/b", "a/.."), file("local/src/b/x")),
		"hard link out":   upload(t, localGraph, tar.Header{Name: "local/src/h", Linkname: "/etc/passwd", Typeflag: tar.TypeLink}),
		"device":          upload(t, localGraph, tar.Header{Name: "local/src/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}),
		"twice":           upload(t, localGraph, file("local/src/f"), file("local/src/f")),
	}
	for name, body := range tests {
		status, text, _ := s.do("POST", "/sampan/v1/build", body)
		if status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a file outside was written")
	}
}

func TestSampanLists(t *testing.T) {
	s := newServer(t)
	if status, body, _ := s.do("GET", "/sampan/v1/schemas", nil); status != 200 || !strings.Contains(body, `"driver":"bridge"`) {
		t.Error(status, body)
	}
	if status, body, _ := s.do("GET", "/sampan/v1/plugins", nil); status != 200 || strings.TrimSpace(body) != "[]" {
		t.Error(status, body)
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.sock")
	listeners, err := Listen("unix://"+path, ListenOptions{Group: "0"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, err := Listen("unix://"+path, ListenOptions{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second daemon: %v", err)
	}
	listeners[0].(*net.UnixListener).SetUnlinkOnClose(false)
	listeners[0].Close()
	if listeners, err = Listen("unix://"+path, ListenOptions{}); err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	listeners[0].Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"unix://" + path, "unix://relative", "tcp://0.0.0.0:2375", "tcp://127.0.0.1:0", "tcp://127.0.0.1:x", "ssh://x", "nothing", "fd://none",
	} {
		if _, err := Listen(host, ListenOptions{}); err == nil {
			t.Errorf("%s: no error", host)
		}
		// The last of a name is systemd's, and the first is there: that takes more than to look at what was said.
		if err := Check(host, ListenOptions{}); (err == nil) != (host == "unix://"+path || host == "fd://none") {
			t.Errorf("check %s: %v", host, err)
		}
	}
	plain, err := Listen("tcp://127.0.0.1:0", ListenOptions{AllowPlainTCP: true})
	if err != nil {
		t.Fatal(err)
	}
	plain[0].Close()
}

// On plain TCP a browser's page is refused, whatever name it came by.
func TestBrowsersAreRefused(t *testing.T) {
	s := newServer(t)
	listeners, err := Listen("tcp://127.0.0.1:0", ListenOptions{AllowPlainTCP: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(listeners[0]) //nolint:errcheck // ends with the server
	ask := func(header, value string) int {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+listeners[0].Addr().String()+"/_ping", nil)
		if req.Header.Set(header, value); header == "Host" {
			req.Host = value
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := ask("X", "y"); got != 200 {
		t.Errorf("a plain client: %d", got)
	}
	if got := ask("Origin", "http://evil.example"); got != 403 {
		t.Errorf("a page: %d", got)
	}
	if got := ask("Host", "evil.example"); got != 403 {
		t.Errorf("a rebound name: %d", got)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
