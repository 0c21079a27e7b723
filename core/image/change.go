package image

import (
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// changes are the Dockerfile instructions that can change a configuration (`commit --change`), each
// with what follows its name.
var changes = map[string]func(c *wire.ContainerConfig, rest string) error{
	"CMD":         changeCmd,
	"ENTRYPOINT":  changeEntrypoint,
	"ENV":         changeEnv,
	"EXPOSE":      changeExpose,
	"HEALTHCHECK": changeHealthcheck,
	"LABEL":       changeLabel,
	"ONBUILD":     changeOnbuild,
	"SHELL":       changeShell,
	"STOPSIGNAL":  func(c *wire.ContainerConfig, rest string) error { c.StopSignal = rest; return nil },
	"USER":        func(c *wire.ContainerConfig, rest string) error { c.User = rest; return nil },
	"VOLUME":      changeVolume,
	"WORKDIR":     changeWorkdir,
}

// ParseChanges applies Dockerfile instructions to a configuration, in order. As in a Dockerfile, a new
// entrypoint discards the command of the old one unless a CMD is among them.
func ParseChanges(c *wire.ContainerConfig, instructions []string) error {
	entrypoint, cmd := false, false
	for _, i := range instructions {
		if err := ParseChange(c, i); err != nil {
			return err
		}
		name, _, _ := strings.Cut(strings.TrimSpace(i), " ")
		entrypoint = entrypoint || strings.EqualFold(name, "ENTRYPOINT")
		cmd = cmd || strings.EqualFold(name, "CMD")
	}
	if entrypoint && !cmd {
		c.Cmd = nil
	}
	return nil
}

// ParseChange applies one Dockerfile instruction to a configuration.
func ParseChange(c *wire.ContainerConfig, instruction string) error {
	name, rest := cutSpace(strings.TrimSpace(instruction))
	name = strings.ToUpper(name)
	apply, ok := changes[name]
	if !ok {
		known := make([]string, 0, len(changes))
		for k := range changes {
			known = append(known, k)
		}
		slices.Sort(known)
		if near := fault.Nearest(name, known); near != "" {
			return fault.New(fault.Invalid, "%s is not a valid change command (did you mean %q?)", name, near)
		}
		return fault.New(fault.Invalid, "%s is not a valid change command: expected one of %s", name, strings.Join(known, ", "))
	}
	if rest == "" {
		return fault.New(fault.Invalid, "%s requires at least one argument", name)
	}
	return apply(c, rest)
}

func cutSpace(s string) (first, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// parseList reads the JSON form of a command.
func parseList(s string) ([]string, bool) {
	if !strings.HasPrefix(s, "[") {
		return nil, false
	}
	list := []string{}
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, false // as Docker: what looks like JSON and is none is a shell's business
	}
	return list, true
}

// parseCommand reads a command as JSON or for the shell.
func parseCommand(c *wire.ContainerConfig, s string) []string {
	if list, ok := parseList(s); ok {
		return list
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s)
}

func changeCmd(c *wire.ContainerConfig, rest string) error {
	c.Cmd = parseCommand(c, rest)
	return nil
}

func changeEntrypoint(c *wire.ContainerConfig, rest string) error {
	c.Entrypoint = parseCommand(c, rest)
	return nil
}

func changeShell(c *wire.ContainerConfig, rest string) error {
	list, ok := parseList(rest)
	if !ok || len(list) == 0 {
		return &fault.Field{Field: "SHELL", Given: rest, Expected: `a JSON list such as ["/bin/bash", "-c"]`}
	}
	c.Shell = list
	return nil
}

// parsePairs reads key=value words, or the old form of one key and a value that is the rest.
func parsePairs(name, s string) ([][2]string, error) {
	words, err := splitWords(s)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s %s: %w", name, s, err)
	}
	if !strings.Contains(words[0], "=") {
		key, value := cutSpace(s)
		if value == "" {
			return nil, fault.New(fault.Invalid, "%s must have two arguments", name)
		}
		return [][2]string{{key, value}}, nil
	}
	var pairs [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, &fault.Field{Field: name, Given: w, Expected: "key=value"}
		}
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs, nil
}

// splitWords splits at spaces outside of quotes, and takes quotes and backslashes away.
func splitWords(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fault.New(fault.Invalid, "expected a closing %c", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, fault.New(fault.Invalid, "expected a word")
	}
	return words, nil
}

func changeEnv(c *wire.ContainerConfig, rest string) error {
	pairs, err := parsePairs("ENV", rest)
	if err != nil {
		return err
	}
	env := slices.Clone(c.Env)
	for _, p := range pairs {
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, p[0]+"=") })
		env = append(env, p[0]+"="+p[1])
	}
	c.Env = env
	return nil
}

func changeLabel(c *wire.ContainerConfig, rest string) error {
	pairs, err := parsePairs("LABEL", rest)
	if err != nil {
		return err
	}
	labels := map[string]string{}
	for k, v := range c.Labels {
		labels[k] = v
	}
	for _, p := range pairs {
		labels[p[0]] = p[1]
	}
	c.Labels = labels
	return nil
}

func changeExpose(c *wire.ContainerConfig, rest string) error {
	ports := map[string]struct{}{}
	for p := range c.ExposedPorts {
		ports[p] = struct{}{}
	}
	for _, word := range strings.Fields(rest) {
		if err := expose(ports, word); err != nil {
			return err
		}
	}
	c.ExposedPorts = ports
	return nil
}

// expose adds a port such as 80, 53/udp or 8000-8010/tcp.
func expose(ports map[string]struct{}, word string) error {
	bad := &fault.Field{Field: "EXPOSE", Given: word, Expected: "a port such as 80, 53/udp or 8000-8010"}
	numbers, protocol, ok := strings.Cut(strings.ToLower(word), "/")
	if !ok {
		protocol = "tcp"
	}
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return bad
	}
	low, high, ok := strings.Cut(numbers, "-")
	if !ok {
		high = low
	}
	from, err := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if err != nil || err2 != nil || from == 0 || to < from {
		return bad
	}
	for p := from; p <= to; p++ {
		ports[strconv.FormatUint(p, 10)+"/"+protocol] = struct{}{}
	}
	return nil
}

func changeVolume(c *wire.ContainerConfig, rest string) error {
	list, ok := parseList(rest)
	if !ok {
		list = strings.Fields(rest)
	}
	volumes := map[string]struct{}{}
	for v := range c.Volumes {
		volumes[v] = struct{}{}
	}
	for _, v := range list {
		if strings.TrimSpace(v) == "" {
			return fault.New(fault.Invalid, "VOLUME specified can not be an empty string")
		}
		volumes[v] = struct{}{}
	}
	c.Volumes = volumes
	return nil
}

func changeWorkdir(c *wire.ContainerConfig, rest string) error {
	if !path.IsAbs(rest) {
		rest = path.Join("/", c.WorkingDir, rest)
	}
	c.WorkingDir = path.Clean(rest)
	return nil
}

func changeOnbuild(c *wire.ContainerConfig, rest string) error {
	name, _ := cutSpace(rest)
	switch strings.ToUpper(name) {
	case "ONBUILD":
		return fault.New(fault.Invalid, "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "FROM", "MAINTAINER":
		return fault.New(fault.Invalid, "%s isn't allowed as an ONBUILD trigger", strings.ToUpper(name))
	}
	c.OnBuild = append(slices.Clone(c.OnBuild), rest)
	return nil
}

func changeHealthcheck(c *wire.ContainerConfig, rest string) error {
	h := &wire.Healthcheck{}
	times := map[string]*int64{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest = cutSpace(rest)
		key, value, _ := strings.Cut(flag[2:], "=")
		if key == "retries" {
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return &fault.Field{Field: "HEALTHCHECK --retries", Given: value, Expected: "a number"}
			}
			h.Retries = n
			continue
		}
		to, ok := times[key]
		if !ok {
			return &fault.Field{Field: "HEALTHCHECK", Given: flag, Expected: "--interval, --timeout, --start-period, --start-interval or --retries"}
		}
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 || d != 0 && d < time.Millisecond {
			return &fault.Field{Field: "HEALTHCHECK --" + key, Given: value, Expected: "a duration such as 30s"}
		}
		*to = int64(d)
	}
	kind, command := cutSpace(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		if command == "" {
			return fault.New(fault.Invalid, "missing command after HEALTHCHECK CMD")
		}
		if list, ok := parseList(command); ok {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", command}
		}
	default:
		return &fault.Field{Field: "HEALTHCHECK", Given: kind, Expected: "CMD or NONE"}
	}
	c.Healthcheck = h
	return nil
}
