package route

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Version is a version of Docker's API: the number after "1.", so that v1.44 is 44.
type Version int

// The versions that the server speaks, from core/wire.
var (
	Newest = mustVersion(wire.APIVersion)
	Oldest = mustVersion(wire.MinAPIVersion)
)

func (v Version) String() string { return fmt.Sprintf("1.%d", int(v)) }

// SplitVersion takes the prefix "/v1.44" from a path. A path without one is of the newest version.
// A version that the server does not speak is Invalid, with the words that clients print; it and the rest of the
// path are returned all the same. What is no version at all is taken for the newest.
func SplitVersion(path string) (Version, string, error) {
	tail, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return Newest, path, nil
	}
	number, rest, slash := strings.Cut(tail, "/")
	if !slash || number == "" || strings.Trim(number, "0123456789.") != "" {
		return Newest, path, nil // "/volumes" begins with "/v" as well
	}
	rest = "/" + rest
	v, err := parseVersion(number)
	switch {
	case err != nil:
		return Newest, rest, err
	case v < Oldest:
		return v, rest, fault.New(fault.Invalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", number, Oldest)
	case v > Newest:
		return v, rest, fault.New(fault.Invalid, "client version %s is too new. Maximum supported API version is %s", number, Newest)
	}
	return v, rest, nil
}

// parseVersion reads "1.44". A number that is left out is 0, and versions of another major number
// are older or newer than all that we know.
func parseVersion(s string) (Version, error) {
	a, b, _ := strings.Cut(s, ".")
	b, _, _ = strings.Cut(b, ".")
	major, err := strconv.Atoi(a)
	minor, err2 := strconv.Atoi("0" + b)
	switch {
	case err != nil || err2 != nil || minor > 1_000_000:
		return 0, &fault.Field{Field: "API version", Given: s, Expected: "a version from " + wire.MinAPIVersion + " to " + wire.APIVersion}
	case major < 1:
		return 0, nil
	case major > 1:
		return 1_000_001, nil
	}
	return Version(minor), nil
}

func mustVersion(s string) Version {
	v, err := parseVersion(s)
	if err != nil {
		panic(err)
	}
	return v
}
