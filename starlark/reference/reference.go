// Package reference checks and normalises names of images as scripts write them: NAME, NAME:TAG or
// NAME@DIGEST. The grammar is distribution's (distribution/reference); Docker Hub's own prefixes are
// left out, because the engine leaves them out too.
package reference

import (
	"strings"

	"go.starlark.net/starlark"

	"github.com/sampan-project/sampan/starlark/arg"
	"github.com/sampan-project/sampan/starlark/diag"
)

const (
	host      = `(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*(?::[0-9]+)?/)?`
	component = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
)

var (
	named = diag.Pattern(`^` + host + component + `(?:/` + component + `)*(?::[\w][\w.-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-f]{32,})?$`)
	tag   = diag.Pattern(`^[\w][\w.-]{0,127}$`)
)

// Type is a reference; its Go value is normalised.
var Type = arg.Of(`an image such as "debian" or "registry.example/shop/app:1.2"`, func(v starlark.Value) (string, bool) {
	s, _ := starlark.AsString(v)
	return Normalise(s)
})

// Tag is a tag.
var Tag = arg.Matching(`a tag such as "1.2"`, tag)

// Normalise adds :latest where neither tag nor digest is given, and takes Docker Hub's name away.
func Normalise(s string) (string, bool) {
	if len(s) > 512 || !named().MatchString(s) {
		return "", false
	}
	for _, prefix := range []string{"docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			s = strings.TrimPrefix(rest, "library/")
		}
	}
	if name, digest, ok := strings.Cut(s, "@"); ok { // the digest says more than the tag beside it
		name, _ = Split(name)
		return name + "@" + digest, true
	}
	if _, t := Split(s); t == "" {
		s += ":latest"
	}
	return s, true
}

// Split separates NAME:TAG.
func Split(s string) (name, tag string) {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		return s[:i], s[i+1:]
	}
	return s, ""
}
