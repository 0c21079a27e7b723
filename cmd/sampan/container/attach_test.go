package container

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
)

// TestAttachTooLate attaches to a container that ends after it was looked at: its streams are those of its next start,
// which may never come.
func TestAttachTooLate(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var looked atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/json"):
			fmt.Fprintf(w, `{"Id":"c","Config":{},"State":{"Running":%t}}`, looked.Add(1) == 1)
		case strings.HasSuffix(r.URL.Path, "/wait"):
			fmt.Fprint(w, `{"StatusCode":0}`)
		case strings.HasSuffix(r.URL.Path, "/attach"):
			silent(t, w)
		}
	})}
	go server.Serve(l) //nolint:errcheck // it says that it was closed
	t.Cleanup(func() { _ = server.Close() })
	engine, err := client.New(client.Options{Host: "unix://" + socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	c := cli.New(strings.NewReader(""), &out, &out)
	err = attachTo(ctx, c, engine, "c", attachOptions{noStdin: true})
	if err == nil || err.Error() != "cannot attach to a stopped container, start it first" {
		t.Errorf("%v, expected that it is stopped", err)
	}
}

// silent is a stream of a container that says nothing, until the client is gone.
func silent(t *testing.T, w http.ResponseWriter) {
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	conn.Read(make([]byte, 1)) //nolint:errcheck // see above
	conn.Close()
}
