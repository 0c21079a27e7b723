package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// The requests of other nodes. All but enrolment need a certificate of the swarm.
//
//	POST /v1/join             a node with a token asks for a certificate (enrol.go)
//	POST /v1/renew            a node asks for its next one
//	POST /v1/manager          a manager takes its seat
//	POST /v1/session          a node's session with the leader (package session)
//	GET  /v1/tasks/{id}/logs  the leader asks a node for a task's log (logs.go)
//	     /docker/...          a manager passes on a request of Docker's API (forward.go)

// maxRequest bounds the body of a request that is one JSON object.
const maxRequest = 1 << 20

// notLeader is the answer of a manager that does not lead, with the address of the one that does if it is known.
type notLeader struct {
	Leader string `json:"leader"`
}

func (e notLeader) Error() string { return "this manager is not the leader of the swarm" }

// refusal is the body of an answer that is an error.
type refusal struct {
	Message string      `json:"message"`
	Class   fault.Class `json:"class"`
}

// ServeHTTP answers other nodes.
func (p *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := p.answer(w, r)
	if err == nil {
		return
	}
	var other notLeader
	if errors.As(err, &other) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusMisdirectedRequest)
		_ = json.NewEncoder(w).Encode(other) // whoever asked has gone
		return
	}
	p.log.Debug("request of another node", "path", r.URL.Path, "error", err)
	writeRefusal(w, err)
}

func writeRefusal(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.ClassOf(err) {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(refusal{err.Error(), fault.ClassOf(err)}) // whoever asked may have gone
}

// answerRemoved tells a node that it is in this swarm no more.
func (p *member) answerRemoved(w http.ResponseWriter, r *http.Request) {
	peer, _ := identity.PeerOf(*r.TLS) // it has a certificate, or it would not come here
	writeRefusal(w, fault.New(fault.Forbidden, "node %s was removed from this swarm", peer.NodeID))
}

func (p *member) answer(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost && r.URL.Path == "/v1/join" {
		return p.answerJoin(w, r)
	}
	peer, ok := identity.PeerOf(*r.TLS)
	if !ok || peer.SwarmID != p.who.Current().SwarmID {
		return fault.New(fault.Forbidden, "%s: a certificate of this swarm is needed", r.URL.Path)
	}
	if r.Method == http.MethodPost {
		switch r.URL.Path {
		case "/v1/renew":
			return p.answerRenew(w, r, peer)
		case "/v1/manager":
			return p.answerManager(w, r, peer)
		case "/v1/session":
			return p.answerSession(w, r, peer)
		}
	}
	if !p.isManager(r.Context(), peer) {
		return fault.New(fault.Forbidden, "%s: node %s is no manager", r.URL.Path, peer.NodeID)
	}
	if strings.HasPrefix(r.URL.Path, forwardPrefix) {
		return p.answerForward(w, r)
	}
	if id, ok := strings.CutPrefix(r.URL.Path, "/v1/tasks/"); ok && r.Method == http.MethodGet {
		if id, ok := strings.CutSuffix(id, "/logs"); ok {
			return p.answerLogs(w, r, id)
		}
	}
	return fault.New(fault.NotFound, "%s %s: no such request between nodes", r.Method, r.URL.Path)
}

// isManager reports whether a node is a manager now: its certificate may be of a time when it was one. What this node
// remembers of an earlier life may be of that time too, so it waits a while for the leader's word.
func (p *member) isManager(ctx context.Context, peer identity.Peer) bool {
	if peer.Role != wire.RoleManager {
		return false
	}
	if s, err := p.managing(); err == nil {
		if n := s.store.Reader().Node(peer.NodeID); n != nil {
			return n.Spec.Role == wire.RoleManager
		}
	}
	select {
	case <-p.up:
	case <-ctx.Done():
	case <-time.After(settleTime):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told && isOneOf(p.local.Managers, peer.NodeID)
}

// leader is this manager's seat if it leads; else the error says who does.
func (p *member) leader() (*seat, error) {
	s, err := p.managing()
	if err != nil {
		return nil, notLeader{}
	}
	if !s.leads() {
		_, addr := s.store.Leader()
		return nil, notLeader{addr}
	}
	return s, nil
}

// answerSession is the leader's end of a session over the network.
func (p *member) answerSession(w http.ResponseWriter, r *http.Request, peer identity.Peer) error {
	s, err := p.leader()
	if err != nil {
		return err
	}
	if s.store.Reader().Node(peer.NodeID) == nil {
		return fault.New(fault.Forbidden, "node %s is not in this swarm", peer.NodeID)
	}
	c := http.NewResponseController(w)
	_ = c.EnableFullDuplex() // HTTP/2 is so anyhow
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	if err := c.Flush(); err != nil {
		return nil //nolint:nilerr // the node has gone
	}
	err = s.dispatcher.serve(r.Context(), peer.NodeID, &remoteStream{out: json.NewEncoder(w), control: c, in: r.Body})
	p.log.Debug("a node's session ended", "peer", peer.NodeID, "error", err)
	return nil
}

// remoteStream is a session over the network, as the leader has it.
type remoteStream struct {
	out     *json.Encoder
	control *http.ResponseController
	in      io.ReadCloser
	once    sync.Once
	next    func(v any) error
}

func (s *remoteStream) stop() {
	past := time.Unix(1, 0)
	_ = errors.Join(s.control.SetReadDeadline(past), s.control.SetWriteDeadline(past), s.in.Close()) // any of them is enough
}

func (s *remoteStream) send(w session.Wanted) error {
	if err := s.out.Encode(w); err != nil {
		return err
	}
	return s.control.Flush()
}

func (s *remoteStream) receive() (r session.Report, err error) {
	s.once.Do(func() {
		in := lines(s.in, session.MaxReport)
		s.next = func(v any) error { return line(in, v) }
	})
	err = s.next(&r)
	return r, err
}

// localLink is the leader's session with itself: both ends of it.
type localLink struct {
	ctx     context.Context
	cancel  context.CancelFunc
	reports chan session.Report
	wanted  chan session.Wanted
	ended   chan error
}

// local opens the leader's session with itself.
func (d *dispatcher) local(ctx context.Context, node string) link {
	ctx, cancel := context.WithCancel(ctx)
	l := &localLink{ctx, cancel, make(chan session.Report), make(chan session.Wanted), make(chan error, 1)}
	go func() {
		defer cancel()
		l.ended <- d.serve(ctx, node, localStream{l})
	}()
	return l
}

func (l *localLink) send(r session.Report) error { return pass(l.ctx, l.reports, r) }

func (l *localLink) receive() (session.Wanted, error) {
	w, err := take(l.ctx, l.wanted)
	if err != nil {
		select {
		case why := <-l.ended:
			err = why
		default:
		}
	}
	return w, err
}

func (l *localLink) close() { l.cancel() }

type localStream struct{ *localLink }

func (s localStream) stop() { s.cancel() }

func (s localStream) send(w session.Wanted) error { return pass(s.ctx, s.wanted, w) }

func (s localStream) receive() (session.Report, error) { return take(s.ctx, s.reports) }

func pass[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func take[T any](ctx context.Context, from <-chan T) (v T, err error) {
	select {
	case v = <-from:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// decode reads a request's or an answer's JSON object.
func decode(r io.Reader, v any) error {
	if err := json.NewDecoder(io.LimitReader(r, maxRequest)).Decode(v); err != nil {
		return fault.New(fault.Invalid, "invalid JSON: %w", err)
	}
	return nil
}

// answerError is the error that another node has answered with; nil if it has not, and then the body is for the caller
// to close.
func answerError(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusMisdirectedRequest {
		var other notLeader
		if err := decode(resp.Body, &other); err != nil {
			return err
		}
		return other
	}
	var said refusal
	if err := decode(resp.Body, &said); err != nil || said.Message == "" {
		return fault.New(fault.Unavailable, "answered %s", resp.Status)
	}
	return fault.New(said.Class, "%s", said.Message)
}

// ask posts a JSON object to a manager, follows it once to the leader, and reads the answer.
func ask(ctx context.Context, client *http.Client, addr, path string, request, answer any) error {
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	for follow := true; ; follow = false {
		err := post(ctx, client, addr, path, string(text), answer)
		var other notLeader
		if !errors.As(err, &other) || other.Leader == "" || other.Leader == addr || !follow {
			if err != nil {
				return fmt.Errorf("%s: %w", addr, err)
			}
			return nil
		}
		addr = other.Leader
	}
}

func post(ctx context.Context, client *http.Client, addr, path, body string, answer any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	if err := answerError(resp); err != nil {
		return err
	}
	defer resp.Body.Close()
	return decode(resp.Body, answer)
}
