package docker

import (
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
)

// attach joins the client to the container's standard streams. It answers when the stream exists,
// which is before the container starts: `docker run` waits for that.
func (c containers) attach(w http.ResponseWriter, r *route.Request) error {
	q := r.Query()
	o := container.AttachOptions{
		Stdin: q.Bool("stdin"), Stdout: q.Bool("stdout"), Stderr: q.Bool("stderr"),
		Logs: q.Bool("logs"), Stream: q.Bool("stream"),
	}
	keys := q.Text("detachKeys")
	if err := q.Err(); err != nil {
		return err
	}
	sequence, err := detachKeys(keys)
	if err != nil {
		return err
	}
	tty, err := c.backend.TTY(r.Variable())
	if err != nil {
		return err
	}
	s, err := c.backend.Attach(r.Detached(), r.Variable(), o)
	if err != nil {
		return err
	}
	talk, err := hijack(w, r, streamType(tty, r.Version))
	if err != nil {
		s.Close()
		return err
	}
	talk.stdin = o.Stdin && o.Stream
	if tty { // without a terminal nobody types the keys, and the bytes are data
		talk.keys = sequence
	}
	talk.run(s, r.Stopping)
	return nil
}

// attachWebsocket is for browsers, which have no stock client.
func (c containers) attachWebsocket(http.ResponseWriter, *route.Request) error {
	return fault.New(fault.NotImplemented, "attaching over a websocket is not supported by this daemon; use POST /containers/{id}/attach")
}
