package task

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func TestImage(t *testing.T) {
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for given, want := range map[string]string{
		"": "", "busybox": "busybox", "busybox:1": "busybox:1", "busybox:1" + digest: "busybox:1", "busybox" + digest: "busybox" + digest,
		"docker.io/library/busybox:1" + digest: "busybox:1", "docker.io/me/app:2": "me/app:2", "localhost:5000/app": "localhost:5000/app",
		"localhost:5000/app:3" + digest: "localhost:5000/app:3", "docker.io/library/a/b:1": "library/a/b:1",
	} {
		if got := Image(given); got != want {
			t.Errorf("%q: %q, expected %q", given, got, want)
		}
	}
}

func TestRow(t *testing.T) {
	task := wire.Task{ID: "0123456789abcdef", Spec: wire.TaskSpec{ContainerSpec: &wire.ContainerSpec{Image: "docker.io/library/a:1"}}, DesiredState: "shutdown"}
	task.Name = "web.1"
	task.Status.State, task.Status.Err = "failed", "task: non-zero exit (137): and more words"
	task.Status.PortStatus.Ports = []wire.ServicePort{{PublishedPort: 8080, TargetPort: 80, Protocol: "tcp"}, {PublishedPort: 53, TargetPort: 53, Protocol: "udp"}}
	short, full := newRow(&task, false), newRow(&task, true)
	short.CurrentState, full.CurrentState = "", "" // of long ago
	want := row{
		DesiredState: "Shutdown", Error: `"task: non-zero exit (137): an…"`, ID: "0123456789ab", Image: "a:1", Name: "web.1", Ports: "*:8080->80/tcp,*:53->53/udp",
	}
	if diff := cmp.Diff(want, short); diff != "" {
		t.Error(diff)
	}
	want.Error, want.ID, want.Image = `"task: non-zero exit (137): and more words"`, task.ID, "docker.io/library/a:1"
	if diff := cmp.Diff(want, full); diff != "" {
		t.Error(diff)
	}
}
