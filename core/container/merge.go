package container

import (
	"maps"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/wire"
)

// merge fills in what the request leaves open with what the image says, as Docker does.
func merge(c *wire.ContainerConfig, image *wire.ContainerConfig) {
	if c.User == "" {
		c.User = image.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = image.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = image.StopSignal
	}
	if c.StopTimeout == nil {
		c.StopTimeout = image.StopTimeout
	}
	if len(c.Shell) == 0 {
		c.Shell = slices.Clone(image.Shell)
	}
	c.ExposedPorts = union(c.ExposedPorts, image.ExposedPorts)
	c.Volumes = union(c.Volumes, image.Volumes)
	c.Labels = mergeLabels(c.Labels, image.Labels)
	c.Env = mergeEnv(c.Env, image.Env)
	mergeCommand(c, image)
	c.Healthcheck = mergeHealth(c.Healthcheck, image.Healthcheck)
	if c.OnBuild = nil; len(c.Volumes) == 0 {
		c.Volumes = nil // inspect shows null, as Docker's does
	}
}

func union(a, b map[string]struct{}) map[string]struct{} {
	if len(b) == 0 {
		return a
	}
	all := maps.Clone(b)
	maps.Copy(all, a)
	return all
}

func mergeLabels(own, image map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, image)
	maps.Copy(all, own)
	return all
}

// mergeEnv appends the image's variables that the container does not set itself.
func mergeEnv(own, image []string) []string {
	all := slices.Clone(own)
	for _, e := range image {
		key, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(own, func(o string) bool { k, _, _ := strings.Cut(o, "="); return k == key }) {
			all = append(all, e)
		}
	}
	return all
}

// mergeCommand: the image's command goes with the image's entrypoint. Whoever gives an entrypoint
// loses it; an entrypoint of one empty string, `--entrypoint ""`, is none.
func mergeCommand(c, image *wire.ContainerConfig) {
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(image.Cmd)
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(image.Entrypoint)
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
}

// mergeHealth takes each setting that the container does not give from the image.
func mergeHealth(own, image *wire.Healthcheck) *wire.Healthcheck {
	if image == nil {
		return own
	}
	if own == nil {
		h := *image
		return &h
	}
	h := *own
	if len(h.Test) == 0 {
		h.Test = slices.Clone(image.Test)
	}
	for _, f := range []struct{ to, from *int64 }{
		{&h.Interval, &image.Interval}, {&h.Timeout, &image.Timeout},
		{&h.StartPeriod, &image.StartPeriod}, {&h.StartInterval, &image.StartInterval},
	} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	if h.Retries == 0 {
		h.Retries = image.Retries
	}
	if h.OnFailure == "" {
		h.OnFailure = image.OnFailure
	}
	return &h
}

// defaultPath is what Docker puts into PATH when nobody else does.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what the container's process gets: defaults first, the configured variables over
// them. A configured name without "=" takes a variable away.
func environment(configured []string, hostname, home string, tty bool) []string {
	env := []string{defaultPath}
	if hostname != "" {
		env = append(env, "HOSTNAME="+hostname)
	}
	if tty {
		env = append(env, "TERM=xterm")
	}
	env = overlay(env, configured)
	if home != "" && !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+home)
	}
	return env
}

// overlay sets variables in place where they are there already, and appends the others.
func overlay(env, over []string) []string {
	env = slices.Clone(env)
	at := make(map[string]int, len(env)+len(over))
	for i, e := range env {
		k, _, _ := strings.Cut(e, "=")
		at[k] = i
	}
	var gone []string
	for _, e := range over {
		k, _, set := strings.Cut(e, "=")
		i, there := at[k]
		switch {
		case !set:
			gone = append(gone, k)
		case there:
			env[i] = e
		default:
			at[k] = len(env)
			env = append(env, e)
		}
	}
	return slices.DeleteFunc(env, func(e string) bool {
		k, _, _ := strings.Cut(e, "=")
		return slices.Contains(gone, k)
	})
}
