package image

import (
	"strings"
	"unicode"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// parseName reads a name as a user writes it; without tag and digest it stays without.
func parseName(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil && printable(ref) {
		return nil, fault.As(fault.Invalid, err)
	}
	if err != nil { // whose words would have the name in them as it is
		return nil, fault.New(fault.Invalid, "invalid reference format: %q", brief(ref))
	}
	return named, nil
}

// printable reports whether a text can be shown as it is: an archive's names reach a terminal.
func printable(s string) bool {
	return len(s) <= reference.RepositoryNameTotalLengthMax && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// parseTag reads the name that an image is to be given, "x" is "x:latest".
func parseTag(ref string) (string, error) {
	named, err := parseName(ref)
	if err != nil {
		return "", err
	}
	if _, ok := named.(reference.Digested); ok {
		return "", fault.New(fault.Invalid, "refusing to create a tag with a digest reference")
	}
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return "", fault.New(fault.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	return reference.TagNameOnly(named).String(), nil
}

// parseTags is parseTag for several; the empty name is no name.
func parseTags(refs []string) ([]string, error) {
	var list []string
	for _, r := range refs {
		if r == "" {
			continue
		}
		tag, err := parseTag(r)
		if err != nil {
			return nil, err
		}
		list = include(list, tag)
	}
	return list, nil
}

// repository returns the name before the tag or digest of a canonical reference.
func repository(ref string) string {
	if before, _, ok := strings.Cut(ref, "@"); ok {
		return before
	}
	return ref[:strings.LastIndexByte(ref, ':')]
}

func short(d digest.Digest) string {
	hex := d.Encoded()
	return hex[:min(len(hex), 12)]
}
