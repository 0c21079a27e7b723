package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

// printPretty prints services for people, until the first that cannot be had.
func printPretty(ctx context.Context, out *cli.Out, engine *client.Client, names []string, get func(name string) (any, json.RawMessage, error)) error {
	var b bytes.Buffer
	var failed error
	for _, name := range names {
		v, _, err := get(name)
		if err != nil {
			failed = err
			break
		}
		s := v.(wire.Service) //nolint:errcheck,forcetypeassert // Typed has made it
		attached := make([]string, 0, len(s.Spec.TaskTemplate.Networks))
		for _, n := range s.Spec.TaskTemplate.Networks {
			if found, err := engine.SwarmNetwork(ctx, n.Target); err == nil {
				n.Target = found.Name
			}
			attached = append(attached, n.Target)
		}
		(&page{&b}).service(&s, attached)
	}
	if failed != nil {
		return failed
	}
	_, err := fmt.Fprint(out, cli.Printable(b.String()))
	return err
}

// page writes a service with Docker's words, tabs and spaces.
type page struct{ *bytes.Buffer }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, "\n"+format, args...) }

// pairs writes a map below a title, if there is anything in it.
func (p *page) pairs(title, between string, m map[string]string) {
	if len(m) > 0 {
		p.line("%s", title)
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		text := " " + name
		if value := m[name]; value != "" {
			text += between + value
		}
		p.line("%s", text)
	}
}

func (p *page) service(s *wire.Service, attached []string) {
	t := &s.Spec.TaskTemplate
	p.line("ID:\t\t%s", s.ID)
	p.line("Name:\t\t%s", s.Spec.Name)
	p.pairs("Labels:", "=", s.Spec.Labels)
	switch m := s.Spec.Mode; {
	case m.Global != nil:
		p.line("Service Mode:\tGlobal")
	case m.Replicated != nil:
		p.line("Service Mode:\tReplicated")
		if m.Replicated.Replicas != nil {
			p.line(" Replicas:\t%d", *m.Replicated.Replicas)
		}
	default:
		p.line("Service Mode:")
	}
	p.updateStatus(s.UpdateStatus)
	p.placement(t.Placement)
	p.rollout("Update", s.Spec.UpdateConfig)
	p.rollout("Rollback", s.Spec.RollbackConfig)
	p.container(t.ContainerSpec)
	p.logDriver(t.LogDriver)
	p.resources(t.Resources)
	if len(attached) > 0 {
		p.line("Networks: %s ", strings.Join(attached, " "))
	}
	mode := ""
	if s.Spec.EndpointSpec != nil {
		mode = s.Spec.EndpointSpec.Mode
	}
	p.line("Endpoint Mode:\t%s", mode)
	if len(s.Endpoint.Ports) > 0 {
		p.line("Ports:")
		for _, port := range s.Endpoint.Ports {
			p.line(" PublishedPort = %d\n  Protocol = %s\n  TargetPort = %d\n  PublishMode = %s", port.PublishedPort, port.Protocol, port.TargetPort, port.PublishMode)
		}
		p.WriteByte(' ')
	}
	if t.ContainerSpec != nil {
		p.health(t.ContainerSpec.Healthcheck)
	}
	p.WriteString("\n\n")
}

func (p *page) updateStatus(u *wire.UpdateStatus) {
	if u == nil || u.State == "" {
		return
	}
	p.line("UpdateStatus:")
	p.line(" State:\t\t%s", u.State)
	if u.StartedAt != nil {
		p.line(" Started:\t%s", cli.Ago(*u.StartedAt))
	}
	if u.State == wire.UpdateCompleted && u.CompletedAt != nil {
		p.line(" Completed:\t%s", cli.Ago(*u.CompletedAt))
	}
	p.line(" Message:\t%s", u.Message)
}

func (p *page) placement(at *wire.Placement) {
	p.line("Placement:")
	if at == nil {
		return
	}
	if len(at.Constraints) > 0 {
		p.line(" Constraints:\t%v", at.Constraints)
	}
	var spread []string
	for _, pref := range at.Preferences {
		if pref.Spread != nil {
			spread = append(spread, "spread="+pref.Spread.SpreadDescriptor)
		}
	}
	if len(spread) > 0 {
		p.line(" Preferences:   %v", spread)
	}
	if at.MaxReplicas > 0 {
		p.line(" Max Replicas Per Node:   %d", at.MaxReplicas)
	}
}

func (p *page) rollout(verb string, u *wire.UpdateConfig) {
	if u == nil {
		return
	}
	p.line("%sConfig:", verb)
	p.line(" Parallelism:\t%d", u.Parallelism)
	if u.Delay > 0 {
		p.line(" Delay:\t\t%s", u.Delay)
	}
	p.line(" On failure:\t%s", u.FailureAction)
	if u.Monitor > 0 {
		p.line(" Monitoring Period: %s", u.Monitor)
	}
	p.line(" Max failure ratio: %v", u.MaxFailureRatio)
	p.line(" %-18s %s", verb+" order:", u.Order)
}

func (p *page) container(k *wire.ContainerSpec) {
	p.line("ContainerSpec:")
	if k == nil {
		return
	}
	p.line(" Image:\t\t%s", k.Image)
	if len(k.Args) > 0 {
		p.line(" Args:\t\t%s ", strings.Join(k.Args, " "))
	}
	if len(k.Env) > 0 {
		p.line(" Env:\t\t%s ", strings.Join(k.Env, " "))
	}
	if k.Dir != "" {
		p.line(" Dir:\t\t%s", k.Dir)
	}
	if k.Init != nil {
		p.line(" Init:\t\t%t", *k.Init)
	}
	if k.User != "" {
		p.line(" User: %s", k.User)
	}
	if len(k.CapabilityAdd)+len(k.CapabilityDrop) > 0 {
		p.line("Capabilities:")
	}
	if len(k.CapabilityAdd) > 0 {
		p.line(" Add: %s", strings.Join(k.CapabilityAdd, ", "))
	}
	if len(k.CapabilityDrop) > 0 {
		p.line(" Drop: %s", strings.Join(k.CapabilityDrop, ", "))
	}
	p.pairs("SysCtls:", ": ", k.Sysctls)
	limits := map[string]string{}
	for _, l := range k.Ulimits {
		limits[l.Name] = fmt.Sprintf("%d:%d", l.Soft, l.Hard)
	}
	p.pairs("Ulimits:", ": ", limits)
	if len(k.Mounts) > 0 {
		p.line("Mounts:")
	}
	for _, m := range k.Mounts {
		p.line(" Target:\t%s\n  Source:\t%s\n  ReadOnly:\t%t\n  Type:\t\t%s", m.Target, m.Source, m.ReadOnly, m.Type)
	}
	p.files(k)
}

// files are the configs and secrets. A config that is there for a service account has no file.
func (p *page) files(k *wire.ContainerSpec) {
	write := func(at *wire.FileTarget, name string) {
		target := ""
		if at != nil {
			target = at.Name
		}
		p.line(" Target:\t%s\n  Source:\t%s", target, name)
	}
	if len(k.Configs) > 0 {
		p.line("Configs:")
	}
	for _, c := range k.Configs {
		write(c.File, c.ConfigName)
	}
	if len(k.Secrets) > 0 {
		p.line("Secrets:")
	}
	for _, s := range k.Secrets {
		write(s.File, s.SecretName)
	}
}

func (p *page) logDriver(d *wire.NamedDriver) {
	if d == nil {
		return
	}
	p.line("Log Driver:")
	if d.Name != "" {
		p.line(" Name:\t\t%s", d.Name)
	}
	if len(d.Options) > 0 {
		p.line(" LogOpts:")
	}
	for _, name := range slices.Sorted(maps.Keys(d.Options)) {
		text := "  " + name
		if value := d.Options[name]; value != "" {
			text += ":       " + value
		}
		p.line("%s", text)
	}
	p.WriteByte('\n')
}

func (p *page) resources(r *wire.TaskResources) {
	if r == nil {
		return
	}
	p.line("Resources:")
	amounts := func(title string, cpus, memory int64) {
		p.line(" %s:", title)
		if cpus > 0 {
			p.line("  CPU:\t\t%v", float64(cpus)/1e9)
		}
		if memory > 0 {
			p.line("  Memory:\t%s", units.BytesSize(float64(memory)))
		}
	}
	if v := r.Reservations; v != nil && (v.NanoCPUs > 0 || v.MemoryBytes > 0) {
		amounts("Reservations", v.NanoCPUs, v.MemoryBytes)
	}
	if v := r.Limits; v != nil && (v.NanoCPUs > 0 || v.MemoryBytes > 0 || v.Pids > 0) {
		amounts("Limits", v.NanoCPUs, v.MemoryBytes)
		if v.Pids > 0 {
			p.line("  PIDs:\t\t%d", v.Pids)
		}
	}
}

func (p *page) health(h *wire.Healthcheck) {
	if h == nil {
		return
	}
	p.line(" Healthcheck:\n  Interval = %s\n  Retries = %d\n  StartPeriod =\t%s\n  Timeout =\t%s", time.Duration(h.Interval), h.Retries, time.Duration(h.StartPeriod), time.Duration(h.Timeout))
	if len(h.Test) == 0 {
		return
	}
	p.line("  Tests:")
	for _, word := range h.Test {
		p.line("\t Test = %s", word)
	}
	p.WriteByte(' ')
}
