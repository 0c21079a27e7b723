package docker

import (
	"net/http"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
)

// attach joins the client to the container's standard streams. It answers when the stream exists,
// which is before the container starts: `docker run` waits for that.
func (c containers) attach(w http.ResponseWriter, r *route.Request) error {
	o, sequence, err := attachOptions(r)
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

// attachOptions reads the query of attach, and the keys that detach.
func attachOptions(r *route.Request) (container.AttachOptions, []byte, error) {
	q := r.Query()
	o := container.AttachOptions{
		Stdin: q.Bool("stdin"), Stdout: q.Bool("stdout"), Stderr: q.Bool("stderr"),
		Logs: q.Bool("logs"), Stream: q.Bool("stream"),
	}
	keys := q.Text("detachKeys")
	if err := q.Err(); err != nil {
		return o, nil, err
	}
	sequence, err := detachKeys(keys)
	return o, sequence, err
}
