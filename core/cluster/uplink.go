package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
	// describeEvery is how often a node looks whether what it says of itself has changed.
	describeEvery = 30 * time.Second
)

// A link is a node's end of a session.
type link interface {
	send(session.Report) error
	receive() (session.Wanted, error)
	close()
}

// uplink keeps a session with whoever leads, until ctx ends. Without one the node goes on with what it was told.
func (p *member) uplink(ctx context.Context) {
	pause, hint := firstPause, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := p.converse(ctx, hint)
		if ctx.Err() != nil {
			return
		}
		var other notLeader
		hint = ""
		if errors.As(err, &other) && other.Leader != "" {
			hint = other.Leader
		}
		if time.Since(began) > longPause {
			pause = firstPause
		}
		p.setTrouble(err)
		p.log.Debug("session with the swarm's leader ended", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, longPause)
	}
}

// converse is one session, to its end.
func (p *member) converse(ctx context.Context, hint string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := p.connect(ctx, hint)
	if err != nil {
		return err
	}
	defer l.close()
	period := make(chan time.Duration, 1)
	ended := make(chan error, 2)
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	defer l.close()
	both.Go(func() { ended <- p.report(ctx, l, period) })
	both.Go(func() { ended <- p.obey(l, period) })
	return <-ended
}

// connect opens a session: with this node itself if it leads, else with the manager that is said to lead, or any.
func (p *member) connect(ctx context.Context, hint string) (link, error) {
	p.mu.Lock()
	seat, known := p.seat, slices.Clone(p.local.Managers)
	p.mu.Unlock()
	me := p.who.Current().NodeID
	if seat != nil {
		if seat.leads() {
			return seat.dispatcher.local(ctx, me), nil
		}
		if id, addr := seat.store.Leader(); id != "" && id != me {
			hint = addr
		}
	}
	if hint == "" {
		known = slices.DeleteFunc(known, func(m wire.SwarmPeer) bool { return m.NodeID == me })
		if len(known) == 0 {
			return nil, errNoLeader
		}
		hint = known[rand.N(len(known))].Addr
	}
	return p.dialSession(ctx, hint)
}

// dialSession opens a session with the manager at the address.
func (p *member) dialSession(ctx context.Context, addr string) (link, error) {
	ctx, cancel := context.WithCancel(ctx)
	body, w := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+"/v1/session", body)
	if err != nil {
		cancel()
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer := time.AfterFunc(longPause, cancel) // it begins to answer at once, or is none we can use
	resp, err := p.net.Client().Do(r)
	if !answer.Stop() && err == nil {
		resp.Body.Close()
		err = ctx.Err()
	}
	if err == nil {
		err = answerError(resp)
	}
	if err != nil {
		cancel()
		_ = w.Close() // a pipe's never fails
		return nil, fmt.Errorf("session with %s: %w", addr, err)
	}
	return &remoteLink{out: json.NewEncoder(w), in: lines(resp.Body, session.MaxWanted), pipe: w, body: resp.Body, cancel: cancel}, nil
}

// remoteLink is a session over the network.
type remoteLink struct {
	out    *json.Encoder
	in     *bufio.Scanner
	pipe   *io.PipeWriter
	body   io.Closer
	cancel context.CancelFunc
}

func (l *remoteLink) send(r session.Report) error { return l.out.Encode(r) }

func (l *remoteLink) receive() (w session.Wanted, err error) {
	err = line(l.in, &w)
	return w, err
}

func (l *remoteLink) close() {
	l.cancel()
	_ = l.pipe.Close() // a pipe's never fails
	_ = l.body.Close() // its context is done
}

// lines reads lines of JSON, none longer than most.
func lines(r io.Reader, most int) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), most)
	return s
}

func line(s *bufio.Scanner, v any) error {
	if !s.Scan() {
		if s.Err() != nil {
			return s.Err()
		}
		return io.EOF
	}
	return json.Unmarshal(s.Bytes(), v)
}

// report tells the leader what there is, what changes, and that this node lives.
func (p *member) report(ctx context.Context, l link, period <-chan time.Duration) error {
	every := defaultHeartbeat
	description := p.describe(ctx)
	described := time.Now()
	news := p.agent.News(0)
	first := session.Report{Addr: p.state().Advertise, Description: description, Tasks: news.Tasks, Gone: news.Gone}
	if err := l.send(first); err != nil {
		return err
	}
	for {
		var r session.Report
		select {
		case <-ctx.Done():
			return ctx.Err()
		case every = <-period:
			continue
		case <-news.Changed:
			news = p.agent.News(news.Seq)
			r.Tasks, r.Gone = news.Tasks, news.Gone
		case <-time.After(every):
			if time.Since(described) > describeEvery {
				described = time.Now()
				if now := p.describe(ctx); now != nil && !reflect.DeepEqual(now, description) {
					description, r.Description = now, now
				}
			}
		}
		if err := l.send(r); err != nil {
			return err
		}
	}
}

// describe is what this node says of itself; nil when it cannot be found out, and then what it has said before holds: a
// node without a processor would lose its tasks.
func (p *member) describe(ctx context.Context) *wire.NodeDescription {
	d, err := p.agent.Describe(ctx)
	if err != nil {
		p.log.Warn("describe this node to its swarm", "error", err)
		return nil
	}
	if info, err := identity.TLSInfo(p.who.Current().Roots); err == nil {
		d.TLSInfo = info
	}
	return &d
}

// obey does what the leader says. A leader that says nothing for long is none any more.
func (p *member) obey(l link, period chan time.Duration) error {
	every := defaultHeartbeat
	for {
		silence := time.AfterFunc(missedHeartbeats*every, l.close)
		w, err := l.receive()
		if !silence.Stop() {
			return fault.New(fault.Unavailable, "the swarm's leader has been silent for %s", missedHeartbeats*every)
		}
		if err == nil {
			err = w.Unpack()
		}
		if err != nil {
			return err
		}
		if next := time.Duration(w.HeartbeatSec * float64(time.Second)); next >= 10*time.Millisecond && next < 24*time.Hour && next != every {
			every = next
			select { // only the newest counts
			case <-period:
			default:
			}
			period <- every
		}
		p.take(w)
	}
}

// learn takes in who the managers are.
func (p *member) learn(managers []wire.SwarmPeer) {
	if !slices.Equal(managers, p.state().Managers) {
		if err := p.save(func(l *local) { l.Managers = managers }); err != nil {
			p.log.Error("remember the swarm's managers", "error", err)
			return
		}
	}
	p.mu.Lock()
	p.told = true
	p.mu.Unlock()
}

// take is one line of the leader.
func (p *member) take(w session.Wanted) {
	p.agent.Assign(w)
	p.mesh.Update(w.Routes)
	if len(w.Managers) > 0 {
		p.learn(w.Managers)
	}
	select { // only the newest counts
	case <-p.role:
	default:
	}
	select {
	case p.role <- w.Role:
	default:
	}
	p.setTrouble(nil)
	p.upOnce.Do(func() { close(p.up) })
}
