package container

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sampan-project/sampan/core/fault"
)

// lookupEnv is the client's own environment.
var lookupEnv = os.LookupEnv

// Environment joins the variables of files and of flags, which come after and so win. A name
// without "=" takes the client's value; of a flag it is passed on alone when the client has none,
// which takes the variable out of the image's environment.
func Environment(files, flags []string) ([]string, error) {
	env, err := readLines("--env-file", files, func(name string) (string, bool) {
		value, ok := lookupEnv(name)
		return name + "=" + value, ok
	})
	if err != nil {
		return nil, err
	}
	for _, v := range flags {
		name, _, ok := strings.Cut(v, "=")
		if value, set := lookupEnv(name); !ok && set {
			v = name + "=" + value
		}
		env = append(env, v)
	}
	return env, nil
}

// CheckVariable is what --env accepts.
func CheckVariable(v string) (string, error) {
	if name, _, _ := strings.Cut(v, "="); name == "" {
		return "", &fault.Field{Given: v, Expected: "NAME=VALUE, or a NAME of the client's environment"}
	}
	return v, nil
}

// withProxies adds the variables that are not given: a name alone, which takes the image's away, is given too.
func withProxies(env []string, proxies map[string]string) []string {
	for _, name := range slices.Sorted(maps.Keys(proxies)) {
		given := slices.ContainsFunc(env, func(v string) bool {
			v, _, _ = strings.Cut(v, "=")
			return v == name
		})
		if !given {
			env = append(env, name+"="+proxies[name])
		}
	}
	return env
}

// labels joins the labels of files and of flags.
func labels(files, flags []string) (map[string]string, error) {
	lines, err := readLines("--label-file", files, func(name string) (string, bool) { return name, true })
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, l := range append(lines, flags...) {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			return nil, &fault.Field{Field: "--label", Given: l, Expected: "NAME=VALUE"}
		}
		all[name] = value
	}
	return all, nil
}

// maxFile bounds an env or label file.
const maxFile = 16 << 20

// readLines reads NAME=VALUE lines, without comments and empty ones; alone decides about a line
// that is a name only.
func readLines(flag string, files []string, alone func(string) (string, bool)) ([]string, error) {
	var lines []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fault.New(fault.Invalid, "%s: %w", flag, err)
		}
		if len(data) > maxFile {
			return nil, fault.New(fault.Invalid, "%s: %s: expected at most %d bytes", flag, file, maxFile)
		}
		data = bytes.TrimPrefix(data, []byte("\uFEFF"))
		s := bufio.NewScanner(bytes.NewReader(data))
		s.Buffer(nil, maxFile)
		for number := 1; s.Scan(); number++ {
			line, keep, err := readLine(s.Text(), alone)
			if err != nil {
				return nil, fault.New(fault.Invalid, "%s: %s:%d: %w", flag, file, number, err)
			}
			if keep {
				lines = append(lines, line)
			}
		}
	}
	return lines, nil
}

func readLine(line string, alone func(string) (string, bool)) (_ string, keep bool, err error) {
	if !utf8.ValidString(line) {
		return "", false, fmt.Errorf("expected UTF-8")
	}
	line = strings.TrimLeft(line, " \t\r")
	if strings.TrimSpace(line) == "" || line[0] == '#' {
		return "", false, nil
	}
	name, _, ok := strings.Cut(line, "=")
	if name == "" {
		return "", false, fmt.Errorf("%q: expected a name before the =", line)
	}
	if strings.ContainsAny(strings.TrimRight(name, " \t\r"), " \t") || ok && strings.TrimSpace(name) != name {
		return "", false, fmt.Errorf("%q: expected a name without spaces", name)
	}
	if ok {
		return line, true, nil
	}
	line, keep = alone(strings.TrimSpace(line))
	return line, keep, nil
}
