package userns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// idRange is a line of subuid(5): who may use which ids.
type idRange struct {
	owner        string
	start, count uint64
}

// maxFile bounds the files of subordinate ids.
const maxFile = 1 << 20

// readRanges reads a file such as /etc/subuid; one that is missing has no lines.
func readRanges(file string) ([]idRange, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("userns-remap: %w", err)
	}
	if len(data) > maxFile {
		return nil, fault.New(fault.Invalid, "userns-remap: %s has %d bytes, expected at most %d", file, len(data), maxFile)
	}
	var list []idRange
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		parts := strings.Split(line, ":")
		invalid := fault.New(fault.Invalid, "userns-remap: %s, line %d: %q: expected owner:first:count, of 32 bits together", file, n, line)
		if len(parts) != 3 || parts[0] == "" {
			return nil, invalid
		}
		r := idRange{owner: parts[0]}
		var serr, cerr error
		r.start, serr = strconv.ParseUint(parts[1], 10, 32)
		r.count, cerr = strconv.ParseUint(parts[2], 10, 32)
		if serr != nil || cerr != nil || r.start+r.count > 1<<32-1 {
			return nil, invalid
		}
		if r.count > 0 {
			list = append(list, r)
		}
	}
	return list, nil
}

// Ids of the default user, as many as useradd(8) gives (login.defs(5), SUB_UID_MIN and SUB_UID_COUNT).
const (
	firstID = 100000
	idCount = 65536
)

// ensureDefault makes the default user and gives it ids, as dockerd does for its own.
func ensureDefault(dir string) error {
	_, err := user.Lookup(DefaultUser)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		err = command("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", DefaultUser)
	}
	if err != nil {
		return err
	}
	var all []idRange
	missing := false
	for _, name := range []string{"subuid", "subgid"} {
		list, err := readRanges(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		has := false
		for _, r := range list {
			has = has || r.owner == DefaultUser
		}
		missing = missing || !has
		all = append(all, list...)
	}
	if !missing || dir != "/etc" { // usermod(8) knows no other files; mapping says what is missing
		return nil
	}
	ids, err := freeRange(all)
	if err != nil {
		return err
	}
	return command("usermod", "--add-subuids", ids, "--add-subgids", ids, DefaultUser)
}

// freeRange is where nobody has ids yet: "first-last".
func freeRange(taken []idRange) (string, error) {
	start := uint64(firstID)
	for _, r := range taken {
		start = max(start, r.start+r.count)
	}
	if start+idCount > 1<<32-1 {
		return "", fault.New(fault.Unavailable, "no %d subordinate ids are left for user %s", idCount, DefaultUser)
	}
	return fmt.Sprintf("%d-%d", start, start+idCount-1), nil
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make user %s: %s: %w: %s", DefaultUser, name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
