// Package server is the process that shows layers before they are there: sampan-lazy. It serves the
// filesystems of one exec-root, so that neither the end of the daemon nor its replacement is noticed by
// the containers on them, and does what the daemon asks for over a unix socket (core/lazy, Verb...).
//
//	server.go  the verbs, and when the process ends
//	mount.go   one layer: its table, its mount, its fetches
//	index.go   indexes of gzip layers, for the next time
//	files.go   the filesystem (FUSE) of a layer
//	recent.go  parts of files in memory
//
// A layer is here from Open until the kernel lets go of its filesystem: after Close it is unmounted
// but stays for the containers that have it. The process ends when it has neither layers nor clients.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/lazy"
	"github.com/sampan-project/sampan/core/monitor/protocol"
)

const (
	// memory bounds the parts of files in memory.
	memory = 64 << 20
	// idle is how long a process without layers and clients waits for the next one.
	idle = 2 * time.Second
	// maxRequest bounds a request: a table of directories.
	maxRequest = 64 << 20
)

// Server is the process.
type Server struct {
	socket string
	log    *slog.Logger
	parts  *recent
	stop   chan struct{} // closed by shutdown
	once   sync.Once

	opening singleflight.Group // two requests for the same layer make one

	indexing chan struct{} // has an element while an index is made

	mu      sync.Mutex
	layers  map[digest.Digest]*layer
	leaving map[*layer]bool // closed, and kept by containers
	conns   int
	changed chan struct{}
}

// Run serves on the listener, whose socket file is at socket, until there is nothing more to do.
func Run(listener net.Listener, socket string, log *slog.Logger) error {
	s := &Server{
		socket: socket, log: log, parts: newRecent(memory), stop: make(chan struct{}),
		layers: map[digest.Digest]*layer{}, leaving: map[*layer]bool{}, changed: make(chan struct{}, 1),
		indexing: make(chan struct{}, 1),
	}
	mux := http.NewServeMux()
	mux.HandleFunc(lazy.VerbHello, handle(func(context.Context, struct{}) (any, error) {
		return lazy.Hello{Version: lazy.Version, Pid: os.Getpid()}, nil
	}))
	mux.HandleFunc(lazy.VerbOpen, handle(s.open))
	mux.HandleFunc(lazy.VerbIndex, handle(s.index))
	mux.HandleFunc(lazy.VerbSettle, handle(s.settle))
	mux.HandleFunc(lazy.VerbWait, handle(s.wait))
	mux.HandleFunc(lazy.VerbClose, handle(s.close))
	mux.HandleFunc(lazy.VerbList, handle(s.list))
	mux.HandleFunc(lazy.VerbShutdown, handle(s.shutdown))
	mux.HandleFunc(lazy.VerbAlive, handle(func(ctx context.Context, _ struct{}) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, ConnState: s.connection, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(listener) }()
	return errors.Join(s.linger(failed), h.Close())
}

// handle makes a verb of a function.
func handle[In any](fn func(context.Context, In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&in)
		var out any
		if err == nil {
			out, err = fn(r.Context(), in)
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			out = protocol.ErrorOf(err)
		}
		json.NewEncoder(w).Encode(out) //nolint:errcheck,errchkjson // the client is gone
	}
}

// connection counts the clients.
func (s *Server) connection(_ net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns++
	case http.StateClosed, http.StateHijacked:
		s.conns--
	default:
		return
	}
	s.tell()
}

// tell wakes linger. The caller holds mu.
func (s *Server) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Server) busy() (layers, clients bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.layers)+len(s.leaving) > 0, s.conns > 0
}

// linger waits until the process may end.
func (s *Server) linger(failed <-chan error) error {
	stop, stopping := s.stop, false
	for {
		var after <-chan time.Time
		if layers, clients := s.busy(); !layers && stopping {
			after = time.After(0)
		} else if !layers && !clients {
			after = time.After(idle)
		}
		select {
		case err := <-failed:
			return err
		case <-stop:
			stop, stopping = nil, true
		case <-s.changed:
		case <-after:
			if s.end(stopping) {
				return nil
			}
		}
	}
}

// end removes the socket under the lock by which others start a process, so that nobody connects to
// one that is about to go.
func (s *Server) end(stopping bool) bool {
	unlock, err := protocol.Lock(s.socket, false)
	if fault.Is(err, fault.Conflict) {
		time.Sleep(idle / 20) // somebody is about to ask for something
		return false
	}
	if err == nil {
		defer unlock()
	}
	if layers, clients := s.busy(); layers || clients && !stopping {
		return false
	}
	os.Remove(s.socket)
	return true
}

func (s *Server) open(ctx context.Context, r lazy.OpenRequest) (any, error) {
	if err := r.Chain.Validate(); err != nil {
		return nil, fault.New(fault.Invalid, "chain %q: %w", r.Chain, err)
	}
	s.mu.Lock()
	l := s.layers[r.Chain]
	s.mu.Unlock()
	if l != nil {
		if r.Auth == nil { // the login of before may be better
			return l.opened(), nil
		}
		return l.opened(), l.from(r)
	}
	v, err, _ := s.opening.Do(r.Chain.String(), func() (any, error) { return s.show(ctx, r) })
	return v, err
}

func (s *Server) show(ctx context.Context, r lazy.OpenRequest) (any, error) {
	l, err := openLayer(ctx, r, s.parts, s.log)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.layers[r.Chain] = l
	s.mu.Unlock()
	go s.serve(l)
	if err := l.server.WaitMount(); err != nil {
		return nil, errors.Join(err, s.leave(l))
	}
	s.log.Info("layer is shown", "layer", r.Chain, "files", len(l.tree.Nodes), "size", l.tree.Size)
	return l.opened(), nil
}

// serve serves a layer to its end, and forgets it.
func (s *Server) serve(l *layer) {
	l.serve()
	s.parts.forget(l)
	s.mu.Lock()
	delete(s.leaving, l)
	if s.layers[l.request.Chain] == l {
		delete(s.layers, l.request.Chain)
	}
	s.tell()
	s.mu.Unlock()
	err := errors.Join(l.blob.Close(), l.tree.Close())
	if err != nil {
		s.log.Warn("close what was fetched of a layer", "layer", l.request.Chain, "error", err)
	}
	s.log.Info("layer is no longer shown", "layer", l.request.Chain)
}

func (s *Server) get(chain digest.Digest) (*layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.layers[chain]; ok {
		return l, nil
	}
	return nil, fault.New(fault.NotFound, "layer %s is not shown", chain)
}

func (s *Server) settle(_ context.Context, r lazy.SettleRequest) (any, error) {
	l, err := s.get(r.Chain)
	if err == nil {
		l.settle(r.Attributes)
	}
	return nil, err
}

func (s *Server) wait(ctx context.Context, r lazy.Named) (any, error) {
	l, err := s.get(r.Chain)
	if err != nil {
		return nil, err
	}
	select {
	case <-l.whole:
		return lazy.Whole{Path: l.blob.Path()}, nil
	case <-l.ctx.Done():
		return nil, fault.New(fault.Canceled, "layer %s is no longer shown", r.Chain)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Server) list(context.Context, struct{}) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []lazy.Status{}
	for _, l := range s.layers {
		list = append(list, l.status(false))
	}
	for l := range s.leaving {
		list = append(list, l.status(true))
	}
	return list, nil
}

func (s *Server) close(_ context.Context, r lazy.Named) (any, error) {
	l, err := s.get(r.Chain)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	return nil, s.leave(l)
}

// leave unmounts a layer, and gives up what was fetched of it: its files stay open, without names, for as
// long as a container has it.
func (s *Server) leave(l *layer) error {
	s.mu.Lock()
	s.leaving[l] = true
	if s.layers[l.request.Chain] == l {
		delete(s.layers, l.request.Chain)
	}
	s.mu.Unlock()
	return errors.Join(l.blob.Unlink(), lazy.Clear(l.request.At))
}

// shutdown unmounts all; what was fetched stays.
func (s *Server) shutdown(context.Context, struct{}) (any, error) {
	s.mu.Lock()
	var all []*layer
	for chain, l := range s.layers {
		all = append(all, l)
		s.leaving[l] = true // nobody gets it from now on
		delete(s.layers, chain)
	}
	s.mu.Unlock()
	var err error
	for _, l := range all {
		err = errors.Join(err, lazy.Clear(l.request.At))
	}
	s.once.Do(func() { close(s.stop) })
	return nil, err
}
