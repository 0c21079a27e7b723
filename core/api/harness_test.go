package api

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/api/docker"
	"github.com/sampan-project/sampan/core/api/sampan"
	"github.com/sampan-project/sampan/core/wire"
)

// server is a Server with fakes behind it, on a unix socket.
type server struct {
	*Server
	t          *testing.T
	socket     string
	temp       string
	containers *fakeContainers
	images     *fakeImages
	networks   *fakeNetworks
	events     fakeEvents
	builder    *fakeBuilder
	client     *http.Client
}

func newServer(t *testing.T) *server {
	t.Helper()
	return newServerWith(t, nil)
}

func newServerWith(t *testing.T, swarm docker.Swarm) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{
		t: t, socket: filepath.Join(dir, "s.sock"), temp: filepath.Join(dir, "tmp"), containers: newFakeContainers(), images: &fakeImages{},
		networks: &fakeNetworks{}, events: fakeEvents{make(chan wire.Event)}, builder: &fakeBuilder{},
	}
	s.Server = New(Options{
		Docker: docker.Backends{
			Containers: s.containers, Images: s.images, Networks: s.networks, Volumes: fakeVolumes{}, Events: s.events, System: fakeSystem{},
			Swarm: swarm,
		},
		Sampan:  sampan.Backends{Build: s.builder, Plugins: fakePlugins{}},
		TempDir: s.temp, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	listeners, err := Listen("unix://"+s.socket, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listeners[0]) }()
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.socket)
	}}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if left, _ := os.ReadDir(s.temp); len(left) > 0 {
			t.Errorf("left in the temporary directory: %v", left)
		}
	})
	return s
}

// do sends a request and returns its answer's status and body. body: nil, a string of JSON, or a Reader.
func (s *server) do(method, path string, body any, header ...string) (status int, text string, h http.Header) {
	s.t.Helper()
	var r io.Reader
	kind := ""
	switch b := body.(type) {
	case string:
		r, kind = strings.NewReader(b), "application/json"
	case io.Reader:
		r, kind = b, "application/x-tar"
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://localhost"+path, r)
	if err != nil {
		s.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// message is the text of an error's body.
func message(body string) string {
	var e wire.Error
	if json.Unmarshal([]byte(body), &e) != nil {
		return "no error body: " + body
	}
	return e.Message
}

// create makes a container.
func (s *server) create(name, body string) {
	s.t.Helper()
	status, text, _ := s.do("POST", "/v1.50/containers/create?name="+name, body)
	var answer wire.ContainerCreateResponse
	if status != http.StatusCreated || json.Unmarshal([]byte(text), &answer) != nil {
		s.t.Fatalf("create: %d %s", status, text)
	}
}
