package trust

import (
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// Reference is an image's name taken apart.
type Reference struct {
	Repository string // in full: "docker.io/library/busybox"
	Tag        string
	Digest     string
}

// maxReference bounds a name, as distribution's grammar does in its parts.
const maxReference = 512

// ParseReference completes a name by Docker's rules ("busybox" is one of docker.io/library) and takes it
// apart. It does not check the grammar of names: a name is compared here, never sent, and one that no
// registry can have equals none. (The library for that compiles its grammar when a program starts.)
func ParseReference(s string) (Reference, error) {
	r := Reference{}
	name, digest, digested := strings.Cut(s, "@")
	if digested {
		if err := checkDigest(digest); err != nil {
			return r, err
		}
		r.Digest = digest
	}
	slash := strings.LastIndexByte(name, '/')
	if colon := strings.LastIndexByte(name, ':'); colon > slash {
		name, r.Tag = name[:colon], name[colon+1:]
		if r.Tag == "" {
			name = ""
		}
	}
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-/:[]", c))
	}
	if name == "" || len(s) > maxReference || strings.ContainsFunc(name+r.Tag, odd) || strings.Contains(name, "//") || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
		return r, &fault.Field{Field: "image reference", Given: quote(s), Expected: "a name such as registry.example.com/app:1.0"}
	}
	host, rest, ok := strings.Cut(name, "/")
	switch {
	case !ok:
		r.Repository = "docker.io/library/" + name
	case host == "index.docker.io" || host == "docker.io":
		if !strings.Contains(rest, "/") {
			rest = "library/" + rest
		}
		r.Repository = "docker.io/" + rest
	case !strings.ContainsAny(host, ".:") && host != "localhost" && host == strings.ToLower(host): // distribution's rule
		r.Repository = "docker.io/" + name
	default:
		r.Repository = strings.ToLower(host) + "/" + rest // the host's name has no case
	}
	return r, nil
}

// String is the name in full.
func (r Reference) String() string {
	s := r.Repository
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// How a claim's name is compared with the name that is asked for.
const (
	// MatchExact wants repository and tag; who asks by digest names no tag, and the repository will do
	// (matchRepoDigestOrExact of containers-policy.json(5)).
	MatchExact = "exact"
	// MatchRepository wants the repository, as cosign's own claims name no tag.
	MatchRepository = "repository"
)

// Covers reports whether a claim is about the name that is asked for.
func (c Claim) Covers(asked Reference, match string) bool {
	said, err := ParseReference(c.Reference)
	if err != nil || said.Repository != asked.Repository {
		return false
	}
	return match == MatchRepository || asked.Digest != "" || asked.Tag == said.Tag && said.Tag != "" && said.Digest == ""
}
