package docker

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/sampan-project/sampan/core/api/route"
	"github.com/sampan-project/sampan/core/wire"
)

// System is what the daemon says of itself.
type System interface {
	Version(ctx context.Context) wire.Version
	Info(ctx context.Context) (wire.Info, error)
}

// RegistryLogin checks a login with its registry. It is an ability of Images.
type RegistryLogin interface {
	Login(ctx context.Context, auth wire.AuthConfig) (wire.AuthResponse, error)
}

type system struct{ backends Backends }

func (s system) routes() []route.Route {
	return []route.Route{
		{Method: http.MethodGet, Pattern: "/_ping", Handle: s.ping},
		{Method: http.MethodHead, Pattern: "/_ping", Handle: s.ping},
		{Method: http.MethodGet, Pattern: "/version", Handle: s.version},
		{Method: http.MethodGet, Pattern: "/info", Handle: s.info},
		{Method: http.MethodPost, Pattern: "/auth", Handle: s.auth},
		{Method: http.MethodGet, Pattern: "/events", Handle: s.events},
		{Method: http.MethodGet, Pattern: "/system/df", Handle: s.diskUsage},
	}
}

// ping tells clients what they negotiate by. "Builder-Version: 1" keeps `docker build` from opening
// a BuildKit session that nobody would answer.
func (s system) ping(w http.ResponseWriter, r *route.Request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "1")
	h.Set("Swarm", s.swarmStatus())
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := io.WriteString(w, "OK")
	return err
}

func (s system) swarmStatus() string {
	if s.backends.Swarm == nil {
		return wire.SwarmInactive
	}
	return s.backends.Swarm.Status()
}

func (s system) version(w http.ResponseWriter, r *route.Request) error {
	return route.WriteJSON(w, http.StatusOK, s.backends.System.Version(r.Context()))
}

// bridgeFilter reports whether packets on a bridge pass the host's filter too, of which clients before
// v1.50 warn when it is not so.
func bridgeFilter(table string) bool {
	text, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-" + table)
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

func (s system) info(w http.ResponseWriter, r *route.Request) error {
	info, err := s.backends.System.Info(r.Context())
	if err != nil {
		return err
	}
	if info.Swarm.LocalNodeState == "" {
		info.Swarm.LocalNodeState = "inactive"
	}
	return route.WriteJSON(w, http.StatusOK, shapeInfo(info, r.Version))
}

func (s system) auth(w http.ResponseWriter, r *route.Request) error {
	b, err := ability[RegistryLogin](s.backends.Images, "checking a registry login")
	if err != nil {
		return err
	}
	var login wire.AuthConfig
	if err := r.Decode(w, &login); err != nil {
		return err
	}
	answer, err := b.Login(r.Context(), login)
	if err != nil {
		return err
	}
	return route.WriteJSON(w, http.StatusOK, answer)
}
