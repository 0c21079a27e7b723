package build

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

// configStep changes the image configuration and no file.
type configStep struct {
	*solve
	n *wire.BuildConfig
}

func (c *configStep) base() result { return c.value(c.n.Base) }

func (c *configStep) key(context.Context) (string, error) {
	n := *c.n
	n.Base = 0 // an index means nothing in another graph
	return keyOf("config", []any{c.base().id(), n, c.dropsCmd()})
}

func (c *configStep) make(ctx context.Context, _ *stepLog) (*image.Image, error) {
	config := c.base().config()
	apply(&config, c.n)
	if c.dropsCmd() {
		config.Cmd = nil
	}
	return c.commit(ctx, c.base(), "", config, c.describe())
}

// dropsCmd reports whether the command of the image at the start is forgotten: it was made for that
// image's entrypoint, and this step sets another one. A command that the script set itself stays.
func (c *configStep) dropsCmd() bool {
	if c.n.Entrypoint == nil || c.n.Cmd != nil {
		return false
	}
	for i := c.n.Base; ; {
		n := c.graph.Nodes[i]
		if n.Config != nil && n.Config.Cmd != nil {
			return false
		}
		in := inputs(n)
		if len(in) == 0 {
			return true
		}
		i = in[0]
	}
}

// apply makes the changes; what a change does not mention stays.
func apply(config *wire.ContainerConfig, n *wire.BuildConfig) {
	for _, k := range slices.Sorted(maps.Keys(n.Env)) {
		config.Env = setEnv(config.Env, k, n.Env[k])
	}
	if n.Entrypoint != nil {
		config.Entrypoint = *n.Entrypoint
	}
	if n.Cmd != nil {
		config.Cmd = *n.Cmd
	}
	if n.WorkingDir != nil {
		config.WorkingDir = under(config.WorkingDir, *n.WorkingDir)
	}
	if n.User != nil {
		config.User = *n.User
	}
	if n.StopSignal != nil {
		config.StopSignal = *n.StopSignal
	}
	if n.Health != nil {
		config.Healthcheck = n.Health
	}
	for k, v := range n.Labels {
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		config.Labels[k] = v
	}
	for _, p := range n.Expose {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[portOf(p)] = struct{}{}
	}
	for _, v := range n.Volumes {
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		config.Volumes[v] = struct{}{}
	}
}

// under is a directory as seen from another.
func under(base, dir string) string {
	if path.IsAbs(dir) {
		return path.Clean(dir)
	}
	return path.Join("/", base, dir)
}

// setEnv sets a variable, in its old place where there was one.
func setEnv(env []string, key, value string) []string {
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); name == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

func portOf(s string) string {
	if !strings.Contains(s, "/") {
		return s + "/tcp"
	}
	return strings.ToLower(s)
}

// cloneConfig copies all that apply changes.
func cloneConfig(c wire.ContainerConfig) wire.ContainerConfig {
	c.Env = slices.Clone(c.Env)
	c.Labels = maps.Clone(c.Labels)
	c.ExposedPorts = maps.Clone(c.ExposedPorts)
	c.Volumes = maps.Clone(c.Volumes)
	return c
}

func checkConfig(n *wire.BuildConfig) error {
	if len(n.Env)+len(n.Labels)+len(n.Expose)+len(n.Volumes) > maxStrings {
		return fault.New(fault.Invalid, "config: more than %d variables, labels, ports and volumes", maxStrings)
	}
	if err := checkEnv(n.Env); err != nil {
		return err
	}
	for _, p := range n.Expose {
		number, proto, has := strings.Cut(strings.ToLower(p), "/")
		first, last, isRange := strings.Cut(number, "-")
		ok := isPort(first) && (!isRange || isPort(last)) && (!has || proto == "tcp" || proto == "udp" || proto == "sctp")
		if !ok {
			return &fault.Field{Field: "expose", Given: p, Expected: "a port such as 80 or 53/udp"}
		}
	}
	for _, v := range n.Volumes {
		if !path.IsAbs(v) || strings.ContainsRune(v, 0) {
			return &fault.Field{Field: "volumes", Given: v, Expected: "an absolute path"}
		}
	}
	if n.WorkingDir != nil && (*n.WorkingDir == "" || strings.ContainsRune(*n.WorkingDir, 0)) {
		return &fault.Field{Field: "workdir", Given: *n.WorkingDir, Expected: "a path"}
	}
	return nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// describe writes the changes as a Dockerfile would.
func (c *configStep) describe() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	for _, k := range slices.Sorted(maps.Keys(c.n.Env)) {
		add("ENV %s=%s", k, c.n.Env[k])
	}
	for _, k := range slices.Sorted(maps.Keys(c.n.Labels)) {
		add("LABEL %s=%s", k, c.n.Labels[k])
	}
	for _, p := range c.n.Expose {
		add("EXPOSE %s", portOf(p))
	}
	if len(c.n.Volumes) > 0 {
		add("VOLUME %s", jsonText(c.n.Volumes))
	}
	if c.n.WorkingDir != nil {
		add("WORKDIR %s", *c.n.WorkingDir)
	}
	if c.n.User != nil {
		add("USER %s", *c.n.User)
	}
	if c.n.StopSignal != nil {
		add("STOPSIGNAL %s", *c.n.StopSignal)
	}
	if c.n.Health != nil {
		add("HEALTHCHECK %s", jsonText(c.n.Health.Test))
	}
	if c.n.Entrypoint != nil {
		add("ENTRYPOINT %s", jsonText(*c.n.Entrypoint))
	}
	if c.n.Cmd != nil {
		add("CMD %s", jsonText(*c.n.Cmd))
	}
	if len(parts) == 0 {
		return "CONFIG"
	}
	return printable(strings.Join(parts, "; "), maxHistory)
}

func jsonText(list []string) string {
	data, err := json.Marshal(list)
	if err != nil {
		return strings.Join(list, " ")
	}
	return string(data)
}
