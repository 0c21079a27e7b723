package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// TestInterruptedRun interrupts run before there is a process: nothing is started, and what was to remove itself is removed.
func TestInterruptedRun(t *testing.T) {
	const removal = "DELETE /containers/c?force=1&v=1"
	for _, test := range []struct {
		name string
		args []string
		at   string // the request during which it is interrupted
		want string // removals
	}{
		{"during create", []string{"--rm"}, "/create", removal},
		{"during create, and it stays", nil, "/create", ""},
		{"during create, detached", []string{"--rm", "-d"}, "/create", removal},
		{"while it attaches", []string{"--rm"}, "/wait", removal},
		{"while it attaches, and signals are not passed on", []string{"--rm", "--sig-proxy=false"}, "/wait", removal},
		{"while it attaches, and it stays", nil, "/wait", ""},
		{"during start, detached", []string{"--rm", "-d"}, "/start", removal},
		{"during start, and signals are not passed on", []string{"--rm", "--sig-proxy=false"}, "/start", removal},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			d := newFakeDaemon(t, func(path string) {
				if strings.HasSuffix(path, test.at) {
					interrupt()
				}
			})
			var out bytes.Buffer
			c := cli.New(strings.NewReader(""), &out, &out)
			c.Globals.Hosts, c.Globals.ConfigDir = []string{"unix://" + d.socket}, t.TempDir()
			cmd := newRun(c)
			cmd.SetArgs(append(test.args, "busybox", "true"))
			cmd.Flags().Bool("help", false, "") // the program has it with no -h, which is --hostname
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			err := cmd.ExecuteContext(ctx)
			if !errors.Is(err, context.Canceled) || c.Code(err) != cli.CodeInterrupt {
				t.Errorf("got %v, expected that it is interrupted", err)
			}
			if got := strings.Join(d.asked("DELETE"), ", "); got != test.want {
				t.Errorf("removals: %q, want %q", got, test.want)
			}
			if started := d.asked("POST /containers/c/start"); len(started) > 0 && test.at != "/start" {
				t.Error("it was started")
			}
			if out.Len() > 0 {
				t.Errorf("said: %q", out.String())
			}
		})
	}
}

// fakeDaemon answers what run asks; a start goes on until the client is gone.
type fakeDaemon struct {
	socket string

	mu       sync.Mutex
	requests []string // without the version
}

// newFakeDaemon calls at for each request before it answers it.
func newFakeDaemon(t *testing.T, at func(path string)) *fakeDaemon {
	t.Helper()
	d := &fakeDaemon{socket: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.RequestURI(), "/"), "/")
		d.mu.Lock()
		d.requests = append(d.requests, r.Method+" /"+path)
		d.mu.Unlock()
		at(r.URL.Path)
		switch {
		case strings.HasSuffix(r.URL.Path, "/containers/create"):
			time.Sleep(10 * time.Millisecond) // the client has taken note of the interruption
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"Id":"c","Warnings":[]}`)
		case strings.HasSuffix(r.URL.Path, "/wait"):
			fmt.Fprint(w, `{"StatusCode":0}`)
		case strings.HasSuffix(r.URL.Path, "/start"):
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/attach"):
			silent(t, w)
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		}
	})}
	go server.Serve(l) //nolint:errcheck // it says that it was closed
	t.Cleanup(func() { _ = server.Close() })
	return d
}

// asked are the requests that begin so.
func (d *fakeDaemon) asked(prefix string) (list []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.requests {
		if strings.HasPrefix(r, prefix) {
			list = append(list, r)
		}
	}
	return list
}
