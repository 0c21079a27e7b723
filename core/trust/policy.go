package trust

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// What is done with the images of a repository.
const (
	Accept = "accept" // any image
	Reject = "reject" // none
	Signed = "signed" // those with enough signatures
)

// Config is the policy as daemon.json says it, under "trust".
type Config struct {
	// Default is for repositories that no other rule is for: accept or reject.
	Default string `json:"default,omitempty"`
	// Repositories are rules by repository, by what names of repositories begin with ("host:5000/team",
	// "docker.io") or both; the longest holds.
	Repositories map[string]RuleConfig `json:"repositories,omitempty"`
}

// RuleConfig is what a repository's images need.
type RuleConfig struct {
	Action string `json:"action,omitempty"` // signed unless it says accept or reject
	// Keys are files of public keys. Require is how many of them must have signed, 1 unless given.
	Keys    []string `json:"keys,omitempty"`
	Require int      `json:"require,omitempty"`
	// Match is exact, unless it says repository.
	Match string `json:"match,omitempty"`
}

// maxKeys bounds the keys of a rule, and with MaxSignatures the work of a check.
const maxKeys = 64

// Policy is a configuration whose keys were read.
type Policy struct {
	byDefault string
	rules     map[string]Rule
}

// Rule is what a name needs.
type Rule struct {
	Scope   string // what of the policy it is: a repository, its beginning, or "default"
	Action  string
	Keys    []*PublicKey
	Require int
	Match   string
}

// Load checks the configuration and reads the keys.
func (c Config) Load() (*Policy, error) {
	p := &Policy{byDefault: c.Default, rules: map[string]Rule{}}
	switch c.Default {
	case "":
		p.byDefault = Accept
	case Accept, Reject:
	default:
		return nil, &fault.Field{Field: "default", Given: c.Default, Expected: "accept or reject", Nearest: fault.Nearest(c.Default, []string{Accept, Reject})}
	}
	for _, scope := range slices.Sorted(maps.Keys(c.Repositories)) {
		full, err := completeScope(scope)
		if err != nil {
			return nil, err
		}
		if _, twice := p.rules[full]; twice {
			return nil, fault.New(fault.Invalid, "repositories: %s: expected one rule for %s", scope, full)
		}
		rule, err := c.Repositories[scope].load(full)
		if err != nil {
			return nil, fault.New(fault.Invalid, "repositories: %s: %w", scope, err)
		}
		p.rules[full] = rule
	}
	return p, nil
}

// completeScope gives a scope the registry that Docker's rules give a name. A host alone stays one, and so
// does what ends in a slash: "docker.io/someone/" is all of someone's, "docker.io/app" an official image, and a host
// without a dot is "hub:5000/", as "hub:5000" could be a tag.
func completeScope(given string) (string, error) {
	scope := strings.ToLower(given)
	if scope == "index.docker.io" {
		scope = "docker.io"
	}
	prefix, isPrefix := strings.CutSuffix(scope, "/")
	host, _, _ := strings.Cut(scope, ":")
	if !isPrefix && !strings.Contains(scope, "/") && (strings.Contains(host, ".") || host == "localhost" || strings.HasPrefix(scope, "[")) {
		prefix, isPrefix = scope, true
	}
	if isPrefix {
		scope = prefix + "/x"
		if strings.HasPrefix(prefix, "docker.io") {
			scope = prefix + "/x/x" // which is not completed
		}
	}
	r, err := ParseReference(scope)
	if err != nil || r.Tag != "" || r.Digest != "" {
		return "", &fault.Field{Field: "repositories", Given: given, Expected: "a registry's host, or a repository without tag and digest"}
	}
	if isPrefix {
		return prefix, nil
	}
	return r.Repository, nil
}

func (c RuleConfig) load(scope string) (Rule, error) {
	r := Rule{Scope: scope, Action: c.Action, Require: c.Require, Match: c.Match}
	switch c.Action {
	case Accept, Reject:
		if len(c.Keys) > 0 || c.Require != 0 || c.Match != "" {
			return r, fault.New(fault.Invalid, "action %s: expected no keys, require and match", c.Action)
		}
		return r, nil
	case "":
		r.Action = Signed
	case Signed:
	default:
		return r, &fault.Field{Field: "action", Given: c.Action, Expected: "signed, accept or reject", Nearest: fault.Nearest(c.Action, []string{Accept, Reject, Signed})}
	}
	if len(c.Keys) == 0 || len(c.Keys) > maxKeys {
		return r, &fault.Field{Field: "keys", Given: fmt.Sprint(len(c.Keys), " files"), Expected: fmt.Sprint("1 to ", maxKeys, " files of public keys")}
	}
	for _, path := range c.Keys {
		if !filepath.IsAbs(path) {
			return r, &fault.Field{Field: "keys", Given: path, Expected: "an absolute path"}
		}
		key, err := ReadPublicKey(path)
		if err != nil {
			return r, fault.New(fault.Invalid, "keys: %w", err)
		}
		if slices.ContainsFunc(r.Keys, func(k *PublicKey) bool { return k.ID == key.ID }) {
			return r, fault.New(fault.Invalid, "keys: %s: the same key is in the list twice", path)
		}
		key.Name = strings.TrimSuffix(filepath.Base(path), ".pub")
		r.Keys = append(r.Keys, key)
	}
	if r.Require == 0 {
		r.Require = 1
	}
	if r.Require < 1 || r.Require > len(r.Keys) {
		return r, &fault.Field{Field: "require", Given: fmt.Sprint(c.Require), Expected: fmt.Sprintf("1 to %d, the number of keys", len(r.Keys))}
	}
	switch c.Match {
	case "":
		r.Match = MatchExact
	case MatchExact, MatchRepository:
	default:
		return r, &fault.Field{Field: "match", Given: c.Match, Expected: "exact or repository", Nearest: fault.Nearest(c.Match, []string{MatchExact, MatchRepository})}
	}
	return r, nil
}

// For returns the rule of a repository, by the longest scope that it lies in; "" has the default's.
func (p *Policy) For(repository string) Rule {
	for scope := strings.ToLower(repository); scope != ""; {
		if r, ok := p.rules[scope]; ok {
			return r
		}
		i := strings.LastIndexByte(scope, '/')
		if i < 0 {
			break
		}
		scope = scope[:i]
	}
	return Rule{Scope: "default", Action: p.byDefault}
}

// Verdict is why an image was let in.
type Verdict struct {
	Signers []*PublicKey // each once, in the order of the rule; none without a need
	Time    time.Time    // of the newest of their claims, zero when none tells it
}

// Verify decides whether the digests, which are those of one image (its index and its manifest), may be used
// under the name that is asked for. A claim counts for what it says, however it came here.
func (r Rule) Verify(asked Reference, digests []string, signatures []wire.Signature) (Verdict, error) {
	var v Verdict
	switch r.Action {
	case Accept:
		return v, nil
	case Reject:
		return v, fault.New(fault.Forbidden, "image %s is refused by the trust policy: %s rejects it", asked, r.Scope)
	}
	if len(signatures) > MaxKept {
		return v, fault.New(fault.Forbidden, "image %s has %d signatures: expected at most %d", asked, len(signatures), MaxKept)
	}
	var others []string
	for _, s := range signatures {
		signers := r.signersOf(s)
		if len(signers) == 0 {
			continue
		}
		c, err := ParseClaim(s.Payload)
		switch {
		case err != nil:
			others = append(others, err.Error())
		case !slices.Contains(digests, c.Digest):
			others = append(others, fmt.Sprintf("%s signed another digest, %s", signers[0].Name, c.Digest))
		case !c.Covers(asked, r.Match):
			others = append(others, fmt.Sprintf("%s signed another name, %s", signers[0].Name, quote(c.Reference)))
		default:
			v.add(c, signers)
		}
	}
	if len(v.Signers) >= r.Require {
		return v, nil
	}
	return v, r.refusal(asked, len(signatures), len(v.Signers), others)
}

// About returns the signatures that claim to be of one of the digests.
func About(digests []string, signatures []wire.Signature) []wire.Signature {
	var list []wire.Signature
	for _, s := range signatures {
		if c, err := ParseClaim(s.Payload); err == nil && slices.Contains(digests, c.Digest) {
			list = append(list, s)
		}
	}
	return list
}

// signersOf returns the keys of the rule that made a signature; of a list of different keys, one at most.
func (r Rule) signersOf(s wire.Signature) []*PublicKey {
	if len(s.Payload) > MaxClaim {
		return nil
	}
	sum := sha256.Sum256(s.Payload)
	for _, k := range r.Keys {
		if k.verifySum(sum, s.Signature) {
			return []*PublicKey{k}
		}
	}
	return nil
}

func (v *Verdict) add(c Claim, signers []*PublicKey) {
	for _, k := range signers {
		if !slices.Contains(v.Signers, k) {
			v.Signers = append(v.Signers, k)
		}
	}
	if c.Time.After(v.Time) {
		v.Time = c.Time
	}
}

// refusal says what is missing.
func (r Rule) refusal(asked Reference, signatures, good int, others []string) error {
	need := "a signature"
	if r.Require > 1 {
		need = fmt.Sprintf("signatures by %d keys", r.Require)
	}
	var names []string
	for _, k := range r.Keys {
		names = append(names, k.Name)
	}
	found := "it has none"
	switch {
	case len(others) > 0:
		found = others[0]
	case good > 0:
		found = fmt.Sprintf("it has %d of them", good)
	case signatures > 0:
		found = fmt.Sprintf("none of its %d is by them", signatures)
	}
	return fault.New(fault.Forbidden, "image %s is refused by the trust policy: %s needs %s of %s: %s", asked, r.Scope, need, strings.Join(names, ", "), found)
}
