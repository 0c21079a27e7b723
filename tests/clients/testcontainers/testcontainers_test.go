// Package testcontainers drives the engine that DOCKER_HOST names with testcontainers-go, as the tests of
// some other project would. The scenario testcontainers.txtar starts it.
package testcontainers

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/exec"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/testcontainers/testcontainers-go/wait"
)

const image = "busybox:1.36"

// The program says ready, serves a page, and becomes healthy when its page can be had.
const program = `echo starting; echo a warning >&2; mkdir -p /www; echo page >/www/index.html; cat /given >/www/given; echo ready; exec httpd -f -p 8080 -h /www`

func run(t *testing.T, options ...testcontainers.ContainerCustomizer) *testcontainers.DockerContainer {
	t.Helper()
	// A first process without a handler does not see SIGTERM: without this each stop would take ten seconds.
	options = append(options, testcontainers.WithConfigModifier(func(c *container.Config) { c.StopSignal = "SIGKILL" }))
	c, err := testcontainers.Run(t.Context(), image, options...)
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func web(t *testing.T) *testcontainers.DockerContainer {
	t.Helper()
	return run(t,
		testcontainers.WithEntrypoint("sh", "-c", program),
		testcontainers.WithExposedPorts("8080/tcp"),
		testcontainers.WithEnv(map[string]string{"NAME": "value"}),
		testcontainers.WithFiles(testcontainers.ContainerFile{Reader: strings.NewReader("given\n"), ContainerFilePath: "/given", FileMode: 0o640}),
		testcontainers.WithConfigModifier(func(c *container.Config) {
			c.Healthcheck = &container.HealthConfig{
				Test: []string{"CMD-SHELL", "wget -q -O - http://127.0.0.1:8080/"}, Interval: 100 * time.Millisecond, Timeout: 10 * time.Second, Retries: 100,
			}
		}),
		testcontainers.WithWaitStrategy(
			wait.ForLog("ready"),
			wait.ForListeningPort("8080/tcp"),
			wait.ForHTTP("/").WithPort("8080/tcp"),
			wait.ForExec([]string{"test", "-e", "/www/index.html"}),
			wait.ForHealthCheck(),
		),
	)
}

func read(t *testing.T, r io.Reader, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestContainer(t *testing.T) {
	c := web(t)
	ctx := t.Context()

	t.Run("state", func(t *testing.T) {
		state, err := c.State(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !state.Running || state.Health == nil || state.Health.Status != container.Healthy {
			t.Errorf("state: %+v, expected a running and healthy one", state)
		}
	})
	t.Run("logs", func(t *testing.T) {
		logs, err := c.Logs(ctx)
		if got, want := read(t, logs, err), "starting\na warning\nready\n"; sorted(got) != sorted(want) {
			t.Errorf("logs: %q, expected the lines of %q", got, want)
		}
	})
	t.Run("exec", func(t *testing.T) {
		code, out, err := c.Exec(ctx, []string{"sh", "-c", "pwd; echo $NAME $MORE; id -u; exit 7"},
			exec.WithWorkingDir("/www"), exec.WithEnv([]string{"MORE=more"}), exec.WithUser("65534"), exec.Multiplexed())
		if got, want := read(t, out, err), "/www\nvalue more\n65534\n"; code != 7 || got != want {
			t.Errorf("exec: exit %d, output %q, expected 7 and %q", code, got, want)
		}
	})
	t.Run("files", func(t *testing.T) { files(t, c) })
	t.Run("port", func(t *testing.T) {
		endpoint, err := c.PortEndpoint(ctx, "8080/tcp", "http")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get(endpoint + "/given")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := read(t, resp.Body, nil); got != "given\n" {
			t.Errorf("GET %s/given: %q, expected the file that was copied before the start", endpoint, got)
		}
	})
	t.Run("stop and start", func(t *testing.T) {
		patience := time.Duration(0)
		if err := c.Stop(ctx, &patience); err != nil {
			t.Fatal(err)
		}
		if state, err := c.State(ctx); err != nil || state.Running || state.ExitCode != 137 {
			t.Fatalf("after stop: %+v, %v, expected exit status 137", state, err)
		}
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if state, err := c.State(ctx); err != nil || !state.Running {
			t.Errorf("after start: %+v, %v, expected a running one", state, err)
		}
	})
}

// files copies a text, a file and a directory into the container and the text back.
func files(t *testing.T, c *testcontainers.DockerContainer) {
	ctx, dir := t.Context(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "one"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.CopyToContainer(ctx, []byte("text\n"), "/tmp/text", 0o604); err != nil {
		t.Fatal(err)
	}
	if err := c.CopyFileToContainer(ctx, filepath.Join(dir, "one"), "/tmp/file", 0o640); err != nil {
		t.Fatal(err)
	}
	// It comes into the parent of the path that is given, by the name it has here.
	if err := c.CopyDirToContainer(ctx, dir, "/tmp/"+filepath.Base(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	_, out, err := c.Exec(ctx, []string{"sh", "-c", "stat -c '%a %s' /tmp/text /tmp/file; cat /tmp/" + filepath.Base(dir) + "/one"}, exec.Multiplexed())
	if got, want := read(t, out, err), "604 5\n640 2\n1\n"; got != want {
		t.Errorf("in the container: %q, expected %q", got, want)
	}
	back, err := c.CopyFileFromContainer(ctx, "/tmp/text")
	if got := read(t, back, err); got != "text\n" {
		t.Errorf("copied back: %q, expected what was copied in", got)
	}
}

// Containers of one network find each other by the aliases that they were given.
func TestNetwork(t *testing.T) {
	n, err := network.New(t.Context())
	testcontainers.CleanupNetwork(t, n)
	if err != nil {
		t.Fatal(err)
	}
	run(t, network.WithNetwork([]string{"server"}, n), testcontainers.WithEntrypoint("sh", "-c", "mkdir /w; echo hello >/w/index.html; exec httpd -f -p 80 -h /w"))
	c := run(t, network.WithNetwork([]string{"client"}, n), testcontainers.WithEntrypoint("sh", "-c", "until wget -q -O - http://server/; do sleep 0.1; done"),
		testcontainers.WithWaitStrategy(wait.ForExit().WithExitTimeout(time.Minute)))
	logs, err := c.Logs(t.Context())
	if got := read(t, logs, err); !strings.Contains(got, "hello") {
		t.Errorf("what the client read by the server's alias: %q, expected hello", got)
	}
}

// What Terminate has removed is unknown to the engine.
func TestTerminate(t *testing.T) {
	c := run(t, testcontainers.WithEntrypoint("sleep", "1000"))
	if err := c.Terminate(t.Context(), testcontainers.StopTimeout(0)); err != nil {
		t.Fatal(err)
	}
	if inspect, err := c.Inspect(t.Context()); err == nil {
		t.Errorf("the container %s is still there after Terminate", inspect.ID)
	}
}

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
