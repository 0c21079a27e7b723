package docker

import (
	"bufio"
	"encoding/binary"
	"io"
	"net/http"
	"strings"

	"golang.org/x/net/websocket"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/fault"
)

// attachWebsocket is attach over a websocket (RFC 6455), as dockerd has it: what the container writes
// comes as it is, with stdout and stderr in one, in binary frames since v1.28 and in text before; what
// the client sends goes to stdin. The client's closing ends the attachment, as there is no half of it.
func (c containers) attachWebsocket(w http.ResponseWriter, r *route.Request) error {
	o, sequence, err := attachOptions(r)
	if err != nil {
		return err
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || r.Header.Get("Sec-WebSocket-Key") == "" {
		return fault.New(fault.Invalid, "attach/ws: expected the upgrade to a websocket")
	}
	tty, err := c.backend.TTY(r.Variable())
	if err != nil {
		return err
	}
	s, err := c.backend.Attach(r.Detached(), r.Variable(), o)
	if err != nil {
		return err
	}
	defer s.Close() // the handshake may fail
	if !tty {
		s = &unframed{Stream: s}
	}
	handler := func(conn *websocket.Conn) {
		if conn.PayloadType = websocket.TextFrame; r.Version >= 28 {
			conn.PayloadType = websocket.BinaryFrame
		}
		talk := &conversation{conn: websocketConn{conn}, in: bufio.NewReader(conn), stdin: o.Stdin && o.Stream, whole: true}
		if tty {
			talk.keys = sequence
		}
		talk.run(s, r.Stopping)
	}
	// A Handshake of our own: the default one wants an Origin, which only browsers send.
	websocket.Server{Handler: handler, Handshake: func(*websocket.Config, *http.Request) error { return nil }}.ServeHTTP(w, r.Request)
	return nil
}

// websocketConn ends its output by a close frame.
type websocketConn struct{ *websocket.Conn }

func (c websocketConn) CloseWrite() error { return c.WriteClose(websocketNormal) }

// Close leaves the connection to whoever called the handler: Conn's own would send a second close frame.
func (websocketConn) Close() error { return nil }

// websocketNormal is the status of a close frame after which nothing is amiss (RFC 6455, 7.4.1).
const websocketNormal = 1000

// unframed reads the bytes of a stream without the frames that tell stdout and stderr apart.
type unframed struct {
	container.Stream
	left uint32 // of the frame
}

func (u *unframed) Read(p []byte) (int, error) {
	for u.left == 0 {
		var header [8]byte
		if _, err := io.ReadFull(u.Stream, header[:]); err != nil {
			return 0, err // the end of the output, or a frame that is cut off
		}
		u.left = binary.BigEndian.Uint32(header[4:])
	}
	n, err := u.Stream.Read(p[:min(len(p), int(u.left))])
	u.left -= uint32(n)
	return n, err
}
