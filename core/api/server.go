// Package api serves the engine's HTTP API: Docker's Engine API and /sampan/v1.
//
// It owns what all endpoints share: listeners (unix socket, TCP with mutual TLS, socket activation),
// the negotiation of versions, the headers, the table from error class to status, error bodies,
// panics, logging and the orderly end. The endpoints themselves are lists of route.Route in
// core/api/docker and core/api/sampan.
//
//	server := api.New(api.Options{...})
//	listeners, err := api.Listen("unix:///run/sampan.sock", api.ListenOptions{Group: "sampan"})
//	go server.Serve(listeners[0])      // any number of times
//	server.Shutdown(ctx)               // Serve returns nil
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/api/docker"
	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/api/sampan"
	"github.com/sampan-project/sampan/core/wire"
)

// Options are what a Server is made of.
type Options struct {
	Docker docker.Backends
	Sampan sampan.Backends
	// TempDir keeps the files of a build while it runs; only root may enter it.
	TempDir string
	Logger  *slog.Logger // nil: discard
}

// A Server answers requests on any number of listeners.
type Server struct {
	table  *route.Table
	log    *slog.Logger
	http   *http.Server
	cancel context.CancelFunc // ends every request's context

	stopping chan struct{} // closed when Shutdown begins: streams without an end do end
	stopOnce sync.Once
	active   sync.WaitGroup // handlers, also those that took over their connection
}

const (
	// headerTimeout is the time to send a header, and to shake hands in TLS. Bodies have none: an
	// image takes as long as it takes.
	headerTimeout = 30 * time.Second
	// idleTimeout closes connections that clients keep for later. It is long, as some clients do not
	// try again when a kept connection turns out to be closed.
	idleTimeout = 30 * time.Minute
	// maxHeader leaves room for X-Registry-Config with many registries.
	maxHeader = 1 << 20
)

// New returns a server. Nothing listens yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	base, cancel := context.WithCancel(context.Background())
	s := &Server{
		table:    route.NewTable(slices.Concat(docker.Routes(o.Docker), sampan.Routes(o.Sampan, o.TempDir))...),
		log:      o.Logger,
		cancel:   cancel,
		stopping: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers on the listener until Shutdown, and closes it.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops listening, ends streams that have no end of their own, and waits for the other
// requests. What is not done when ctx ends is broken off, and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stopping) })
	defer s.cancel()
	err := s.http.Shutdown(ctx)
	done := make(chan struct{})
	go func() {
		s.active.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.active.Add(1)
	defer s.active.Done()
	h := w.Header()
	h.Set("Api-Version", wire.APIVersion)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", runtime.GOOS)
	h.Set("Server", "Sampan/"+wire.Release+" ("+runtime.GOOS+")")
	answer := &recorder{ResponseWriter: w}
	begin := time.Now()
	err := s.guarded(answer, r)
	if err != nil {
		s.answerError(answer, r, err)
	}
	s.log.DebugContext(r.Context(), "request", "method", r.Method, "path", r.URL.Path, "status", answer.status(),
		"duration", time.Since(begin), "error", err)
	if err != nil && answer.broken {
		// Half an answer is there: only a broken connection tells the client that it is no whole one.
		panic(http.ErrAbortHandler)
	}
}

// handle finds the endpoint and calls it.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) error {
	if err := refuseBrowsers(r); err != nil {
		return err
	}
	version, path, versionErr := route.SplitVersion(r.URL.Path)
	handle, variable, err := s.table.Find(r.Method, path)
	if err != nil { // of no version, as with dockerd
		return err
	}
	if versionErr != nil && version < route.Oldest {
		return tooOld{versionErr}
	}
	if versionErr != nil {
		return versionErr
	}
	request := route.NewRequest(r, version, variable, s.stopping)
	defer request.Finish(w)
	return handle(w, request)
}
