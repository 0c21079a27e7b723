package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	// forwardPrefix is before the paths of Docker's API on a node's cluster listener.
	forwardPrefix = "/docker"
	// electionTime is how long a request waits for the managers to find a leader.
	electionTime = 10 * time.Second
)

// forwarded are the groups that a leader answers for others: what the swarm has, and nothing of its own engine.
var forwarded = regexp.MustCompile(`^(/v[0-9.]+)?/(swarm|nodes|services|tasks|secrets|configs)(/|$)`)

// passedOn marks a request that has come from another manager: it is not passed on again.
type passedOn struct{}

// Forward passes a request on to the leader. done says that it was answered, an error that this node is no manager;
// otherwise this node is the leader.
func (m *Manager) Forward(w http.ResponseWriter, r *http.Request) (done bool, err error) {
	s, err := m.leading()
	if err != nil {
		return false, err
	}
	addr, err := s.leaderFor(r.Context())
	if err != nil || addr == "" {
		return false, err
	}
	if r.Context().Value(passedOn{}) != nil {
		return false, errNoLeader // it has just changed: the client may ask again
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "https", Host: addr})
			p.Out.URL.Path, p.Out.URL.RawPath = forwardPrefix+r.URL.Path, ""
			p.Out.Host = addr
		},
		Transport:     leaderTrip{s},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, cause error) {
			s.log.Warn("pass a request on to the leader", "leader", addr, "error", cause)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(wire.Error{Message: "the swarm's leader cannot be reached: " + cause.Error()}) // see above
		},
	}
	// The leader says of itself what we have said already.
	for _, h := range []string{"Api-Version", "Docker-Experimental", "Ostype", "Server"} {
		w.Header().Del(h)
	}
	proxy.ServeHTTP(w, r)
	return true, nil
}

// leaderTrip sends requests to the leader. One without a body that could not be sent, as the leader has died, goes to the
// next one.
type leaderTrip struct{ *seat }

func (t leaderTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), electionTime)
	defer cancel()
	for {
		resp, err := t.member.net.Client().Transport.RoundTrip(r)
		var failed *net.OpError
		if err == nil || r.Body != nil || !errors.As(err, &failed) || failed.Op != "dial" {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(firstPause):
		}
		addr, lerr := t.leaderFor(ctx)
		if lerr != nil {
			return nil, err
		}
		if addr == "" {
			addr = t.member.state().Advertise // it is this manager now
		}
		r = r.Clone(r.Context())
		r.URL.Host, r.Host = addr, addr
	}
}

// leaderFor is the address of the leader, "" when it is this manager. It waits while there is none.
func (s *seat) leaderFor(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, electionTime)
	defer cancel()
	for {
		changed := s.store.Changed()
		if s.leads() {
			return "", nil
		}
		if id, addr := s.store.Leader(); id != "" && addr != "" && id != s.member.who.Current().NodeID {
			return addr, nil
		}
		select {
		case <-changed:
		case <-time.After(firstPause):
		case <-s.ctx.Done():
			return "", errPreparing
		case <-ctx.Done():
			return "", errNoLeader
		}
	}
}

// answerForward answers a request that another manager passes on.
func (p *member) answerForward(w http.ResponseWriter, r *http.Request) error {
	path := strings.TrimPrefix(r.URL.Path, forwardPrefix)
	if !forwarded.MatchString(path) || strings.HasSuffix(path, "/swarm/init") || strings.HasSuffix(path, "/swarm/join") || strings.HasSuffix(path, "/swarm/leave") {
		return fault.New(fault.Forbidden, "%s: not a request that the leader answers for others", path)
	}
	r = r.Clone(context.WithValue(r.Context(), passedOn{}, true))
	r.URL.Path, r.URL.RawPath = path, ""
	p.m.api.ServeHTTP(w, r)
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}
