package spec

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/apparmor"
	"github.com/sampan-project/sampan/core/wire"
)

// Exec is what a further process of a container is made from.
type Exec struct {
	Args, Env      []string
	Cwd            string
	User           specs.User
	Terminal       bool
	Privileged     bool
	DefaultUlimits map[string]wire.Ulimit
	AppArmor       string // as in Input
}

// ExecProcess makes the process: as confined as the container, unless it is to be privileged.
func ExecProcess(h *wire.HostConfig, e Exec) (*specs.Process, error) {
	caps, err := Capabilities(h)
	if err != nil {
		return nil, err
	}
	if e.Privileged {
		caps = hostCapabilities()
	}
	security, err := parseSecurity(h.SecurityOpt)
	if err != nil {
		return nil, err
	}
	profile := AppArmorProfile(h, e.AppArmor)
	if e.Privileged && profile != "" {
		profile = apparmor.Unconfined
	}
	limits, err := rlimits(h.Ulimits, e.DefaultUlimits)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal: e.Terminal, User: e.User, Args: e.Args, Env: e.Env, Cwd: e.Cwd, Rlimits: limits,
		NoNewPrivileges: security.noNewPrivileges, ApparmorProfile: profile,
		Capabilities: ProcessCapabilities(caps, e.User.UID),
	}
	p.OOMScoreAdj = oomScore(h)
	return p, nil
}
