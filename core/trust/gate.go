package trust

import "sync/atomic"

// Gate is the policy in force, which a reload replaces. The zero gate, and a nil one, let everything in.
type Gate struct{ policy atomic.Pointer[Policy] }

// Set puts a policy into force.
func (g *Gate) Set(p *Policy) { g.policy.Store(p) }

// For returns the rule of a repository.
func (g *Gate) For(repository string) Rule {
	if g != nil {
		if p := g.policy.Load(); p != nil {
			return p.For(repository)
		}
	}
	return Rule{Scope: "default", Action: Accept}
}
