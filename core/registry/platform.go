package registry

import (
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-project/sampan/core/fault"
)

// Host is the platform of this machine.
func Host() ocispec.Platform {
	p := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if p.Architecture == "arm" {
		p.Variant = "v7"
	}
	return p
}

// ParsePlatform reads os[/arch[/variant]] or arch[/variant]; "" is the empty platform.
func ParsePlatform(s string) (ocispec.Platform, error) {
	var p ocispec.Platform
	if s == "" {
		return p, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	bad := &fault.Field{Field: "platform", Given: s, Expected: "os/architecture such as linux/amd64 or linux/arm/v7"}
	if len(parts) > 3 || slices.Contains(parts, "") || strings.ContainsAny(s, " \t\n\x00") {
		return p, bad
	}
	if !slices.Contains([]string{"linux", "windows", "darwin", "freebsd"}, parts[0]) {
		if len(parts) > 2 {
			return p, bad
		}
		parts = append([]string{"linux"}, parts...)
	}
	p.OS, p.Architecture = parts[0], runtime.GOARCH
	if len(parts) > 1 {
		p.Architecture = parts[1]
	}
	if len(parts) > 2 {
		p.Variant = parts[2]
	}
	return normal(p), nil
}

// normal gives a platform the names that images use: what uname calls x86_64 is amd64.
func normal(p ocispec.Platform) ocispec.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	case "i386", "i686":
		p.Architecture = "386"
	}
	if p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1" {
		p.Variant = ""
	}
	return p
}

func orHost(p ocispec.Platform) ocispec.Platform {
	if p.OS == "" && p.Architecture == "" {
		return Host()
	}
	return normal(p)
}

// PlatformString is the platform as os/architecture[/variant].
func PlatformString(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// Runs reports how well an image for have runs on want: 0 is not at all, more is better.
func Runs(want, have ocispec.Platform) int {
	want, have = normal(want), normal(have)
	if want.OS != have.OS || want.Architecture != have.Architecture {
		return 0
	}
	switch {
	case want.Variant == have.Variant:
		return 100
	case have.Variant == "":
		return 50
	case want.Architecture == "arm" && want.Variant != "" && have.Variant < want.Variant:
		// ARM processors run code for the versions before theirs: v7 runs v6 and v5.
		return 10 + int(have.Variant[len(have.Variant)-1]-'0')
	case want.Variant == "" && want.Architecture == "arm":
		return 10
	}
	return 0
}

// choose returns the entry of an index that runs best on the platform; of equals the first.
func choose(list []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, error) {
	best, score := ocispec.Descriptor{}, 0
	for _, d := range list {
		n := 0
		switch {
		case d.Platform != nil:
			n = Runs(want, *d.Platform)
		case isIndex(d.MediaType) || len(list) == 1:
			n = 1 // what it is for stands further down
		}
		if n > score {
			best, score = d, n
		}
	}
	if score == 0 {
		return best, fault.New(fault.NotFound, "no matching manifest for %s in the manifest list entries", PlatformString(want))
	}
	return best, nil
}
