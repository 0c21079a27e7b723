package api

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// docker runs the stock client against the server.
func (s *server) docker(stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + s.socket}, args...)...)
	cmd.Env = []string{"HOME=" + s.t.TempDir(), "PATH=/usr/local/bin:/usr/bin:/bin"}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func needDocker(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("no docker client on this machine")
	}
}

// The stock client understands every answer: it negotiates, prints, streams and exits as with dockerd.
func TestStockClient(t *testing.T) {
	needDocker(t)
	s := newServer(t)
	stop, signal := "stop -t 7 web", "" // of a client before 23.0, as Debian 12 has
	if help, _, _ := s.docker("", "stop", "--help"); strings.Contains(help, "--signal") {
		stop, signal = "stop -t 7 -s INT web", "INT"
	}
	tests := []struct {
		stdin, args    string
		stdout, stderr string // regular expressions
		code           int
	}{
		{"", "version", `API version: +1\.50 \(minimum version 1\.24\)`, ``, 0},
		{"", "info", `Storage Driver: overlay2`, ``, 0},
		{"", "run busybox echo hello", `^hello\n$`, `^$`, 0},
		{"", "run --rm busybox fail", `^$`, `^it fails\n$`, 42},
		{"some\nlines\n", "run -i --rm busybox cat", `^some\nlines\n$`, `^$`, 0},
		{"", "run --rm busybox no-such-program", ``, `executable file not found in \$PATH`, 127},
		{"", "run missing true", ``, `No such image|missing`, 125},
		{"", "run -d --name web busybox sleep 100", `^[0-9a-f]{64}\n$`, ``, 0},
		{"", "run --name web busybox sleep 1", ``, `Conflict\. The container name "/web" is already in use`, 125},
		{"", "ps", `CONTAINER ID +IMAGE +COMMAND +CREATED +STATUS +PORTS +NAMES\n[0-9a-f]{12} +busybox +"sleep 100" .* web`, ``, 0},
		{"", "ps -a --filter name=x --filter label=y", `CONTAINER ID`, ``, 0},
		{"", "ps --filter colour=red", ``, `invalid filter 'colour'`, 1},
		{"", "inspect -f {{.State.Running}} web", `^true\n$`, ``, 0},
		{"", "exec web say this", `^say this\n$`, ``, 0},
		{"input", "exec -i web cat", `^input$`, ``, 0},
		{"", "exec web no-such-program", `executable file not found`, ``, 127},
		{"", "exec -d web x", `^$`, `^$`, 0},
		{"", "top web", `PID +CMD\n1 +sleep`, ``, 0},
		{"", "rm web", ``, `container is running`, 1},
		{"", stop, `^web\n$`, ``, 0},
		{"", "wait web", `^143\n$`, ``, 0},
		{"", "rm web", `^web\n$`, ``, 0},
		{"", "logs none", ``, `No such container: none`, 1},
		{"", "images", `busybox +latest +abababababab`, ``, 0},
		{"", "pull busybox", `Status: Downloaded newer image`, ``, 0},
		{"", "pull denied", ``, `pull access denied`, 1},
		{"tar", "load", `Loaded image: busybox:latest`, ``, 0},
		{"", "rmi busybox", `Untagged: busybox:latest`, ``, 0},
		{"", "network ls", `cdcdcdcdcdcd +bridge +bridge +local`, ``, 0},
		{"", "network create x", `^[0-9a-f]{64}\n$`, ``, 0},
		{"", "network rm bridge", ``, `pre-defined network`, 1},
		{"", "volume ls", `local +data`, ``, 0},
		{"", "volume create data", `^data\n$`, ``, 0},
		{"", "volume inspect none", ``, `(?i)no such volume`, 1},
		{"", "system df", `Images +1`, ``, 0},
		{"", "plugin ls", `ID +NAME`, ``, 0},
		{"", "service ls", ``, `This node is not a swarm manager`, 1},
		{"", "stats --no-stream x", ``, `No such container|not supported`, 1},
	}
	for _, tt := range tests {
		stdout, stderr, code := s.docker(tt.stdin, strings.Fields(tt.args)...)
		if code != tt.code || !regexp.MustCompile(tt.stdout).MatchString(stdout) || !regexp.MustCompile(tt.stderr).MatchString(stderr) {
			t.Errorf("docker %s\nexit %d, want %d\nstdout: %s\nstderr: %s", tt.args, code, tt.code, stdout, stderr)
		}
	}
	if s.containers.stop.signal != signal || s.containers.stop.timeout == nil || *s.containers.stop.timeout != 7 {
		t.Errorf("stop came as %+v", s.containers.stop)
	}
}

// Clients of every version from 1.24 on can be served; an older one is told so.
func TestStockClientVersions(t *testing.T) {
	needDocker(t)
	s := newServer(t)
	for _, version := range []string{"1.24", "1.30", "1.41", "1.44", "1.50"} {
		t.Setenv("DOCKER_API_VERSION", version)
		args := []string{"-H", "unix://" + s.socket, "run", "--rm", "busybox", "echo", version}
		if version == "1.24" { // whose wait goes by events, of which the fake has none
			args = []string{"-H", "unix://" + s.socket, "version", "-f", "{{.Client.APIVersion}}"}
		}
		cmd := exec.CommandContext(t.Context(), "docker", args...)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != version+"\n" {
			t.Errorf("%s: %v: %s", version, err, out)
		}
	}
	t.Setenv("DOCKER_API_VERSION", "1.23")
	cmd := exec.CommandContext(t.Context(), "docker", "-H", "unix://"+s.socket, "ps")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "client version 1.23 is too old") {
		t.Errorf("1.23: %v: %s", err, out)
	}
}
