package api

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// A recorder remembers whether an answer has begun, and with which status.
type recorder struct {
	http.ResponseWriter
	code     int
	hijacked bool
	broken   bool // an error came after the answer had begun
}

func (r *recorder) WriteHeader(code int) {
	// Informational answers (1xx) come before the answer.
	if r.code == 0 && code >= 200 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack notes that the connection was taken over: nothing more can be answered.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	r.hijacked = err == nil
	return conn, buffered, err
}

func (r *recorder) status() int {
	switch {
	case r.hijacked:
		return http.StatusSwitchingProtocols
	case r.code == 0:
		return http.StatusOK
	}
	return r.code
}

// guarded is handle, with a panic as an error.
func (s *Server) guarded(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.ErrorContext(r.Context(), "panic in a request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "%s %s: internal error: %v", r.Method, r.URL.Path, p)
		}
	}()
	return s.handle(w, r)
}

// answerError sends the error, if nothing was sent before it.
func (s *Server) answerError(w *recorder, r *http.Request, err error) {
	status := statusOf(err)
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && r.Context().Err() == nil {
		s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	switch {
	case w.hijacked:
	case w.code != 0:
		w.broken = true
	case status == http.StatusNotModified: // has no body
		w.WriteHeader(status)
	case errors.As(err, &tooOld{}):
		w.Header().Del("Content-Length")
		http.Error(w, route.Words(err), status)
	default:
		w.Header().Del("Content-Length")
		_ = route.WriteJSON(w, status, wire.Error{Message: route.Words(err)})
	}
}

// tooOld is what a client is told that may be from before errors were JSON: it prints what comes, and so gets plain
// text, as from dockerd.
type tooOld struct{ error }

func (e tooOld) Unwrap() error { return e.error }

// refuseBrowsers protects a daemon that listens on TCP. A page in a browser can send requests there: to
// one on loopback, also under a name of its own choosing (DNS rebinding), and to one with TLS in the name of
// a user whose certificate the browser has. Such requests carry a foreign Host, or a foreign Origin.
// There is no CORS: no answer ever says that a page may read it.
func refuseBrowsers(r *http.Request) error {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || local == nil {
		return nil
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		// Websocket clients that are no browsers send the daemon's own.
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return fault.New(fault.Forbidden, "requests of browsers are refused: origin %q is not this daemon", origin)
		}
	}
	if r.Header.Get("Sec-Fetch-Site") != "" {
		return fault.New(fault.Forbidden, "requests of browsers are refused")
	}
	if r.TLS != nil {
		return nil
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host != "localhost" && !net.ParseIP(trimBrackets(host)).IsLoopback() {
		return fault.New(fault.Forbidden, "host %q: expected localhost or a loopback address", host)
	}
	return nil
}

func trimBrackets(host string) string {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}
