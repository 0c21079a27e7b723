package service

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

func newCreate(c *cli.CLI) *cobra.Command {
	o := newOptions()
	var name, mode string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a new service", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args[1:]
			spec, err := o.spec(cmd.Flags(), name, mode, args[0])
			if err != nil {
				return err
			}
			return o.create(cmd.Context(), c, spec)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	o.addFlags(f, true)
	o.addListFlags(f, "")
	f.Var(&o.envFiles, "env-file", "Read in a file of environment variables")
	f.StringVar(&name, "name", "", "Service name")
	f.StringVar(&mode, "mode", "replicated", `Service mode ("replicated", "global", "replicated-job", "global-job")`)
	return cmd
}

func (o *options) create(ctx context.Context, c *cli.CLI, spec *wire.ServiceSpec) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	if err := o.refer(ctx, engine, spec); err != nil {
		return err
	}
	auth, err := o.auth(c, spec)
	if err != nil {
		return err
	}
	warning, err := pin(ctx, c, engine, &spec.TaskTemplate, auth, !o.noResolve)
	if err != nil {
		return err
	}
	made, err := engine.ServiceCreate(ctx, *spec, auth)
	if err != nil {
		return err
	}
	warn(c, made.Warnings, warning)
	fmt.Fprintln(c.Out, made.ID)
	if o.detach {
		return nil
	}
	return wait(ctx, c, engine, made.ID, o.quiet)
}

// refer puts the IDs of what a new service refers to into its specification.
func (o *options) refer(ctx context.Context, engine *client.Client, spec *wire.ServiceSpec) error {
	attached, err := resolveNetworks(ctx, engine, o.networks.values)
	if err != nil {
		return err
	}
	spec.TaskTemplate.Networks = attached
	k := spec.TaskTemplate.ContainerSpec
	if k.Secrets, err = resolveSecrets(ctx, engine, &o.secrets); err != nil {
		return err
	}
	if k.Configs, err = resolveConfigs(ctx, engine, &o.configs, o.credential.value); err != nil {
		return err
	}
	if o.credential.value != nil {
		k.Privileges = &wire.Privileges{CredentialSpec: o.credential.value}
	}
	return nil
}

// warn prints what the daemon warns of, and what we do.
func warn(c *cli.CLI, warnings []string, more ...string) {
	for _, w := range append(warnings, more...) {
		if w != "" {
			fmt.Fprintln(c.Err, cli.Printable(w))
		}
	}
}

// spec is the service that the flags describe.
func (o *options) spec(f *pflag.FlagSet, name, mode, image string) (*wire.ServiceSpec, error) {
	k, err := o.containerSpec(f, image)
	if err != nil {
		return nil, err
	}
	serviceMode, err := o.mode(mode)
	if err != nil {
		return nil, err
	}
	resources, err := o.resources()
	if err != nil {
		return nil, err
	}
	s := &wire.ServiceSpec{
		Annotations: wire.Annotations{Name: name, Labels: cli.ToMap(o.labels.Values)},
		TaskTemplate: wire.TaskSpec{
			ContainerSpec: k, Resources: resources,
			Placement: &wire.Placement{Constraints: o.constraints.Values, Preferences: o.preferences.values, MaxReplicas: o.maxReplicas},
		},
		Mode:         serviceMode,
		EndpointSpec: &wire.EndpointSpec{Mode: strings.ToLower(o.endpointMode), Ports: o.ports.values},
	}
	if o.logDriver != "" {
		s.TaskTemplate.LogDriver = &wire.NamedDriver{Name: o.logDriver, Options: cli.ToMap(o.logOptions.Values)}
	}
	o.restart.apply(f, &s.TaskTemplate.RestartPolicy)
	o.update.apply(f, "update", &s.UpdateConfig)
	o.rollback.apply(f, "rollback", &s.RollbackConfig)
	if (serviceMode.ReplicatedJob != nil || serviceMode.GlobalJob != nil) && (s.UpdateConfig != nil || s.RollbackConfig != nil) {
		return nil, fault.New(fault.Invalid, "update and rollback configuration is not supported for jobs")
	}
	return s, nil
}

func (o *options) containerSpec(f *pflag.FlagSet, image string) (*wire.ContainerSpec, error) {
	env, err := o.environment()
	if err != nil {
		return nil, err
	}
	add, drop := effectiveCapabilities(o.capAdd.Values, o.capDrop.Values)
	k := &wire.ContainerSpec{
		Image: image, Labels: cli.ToMap(o.containerLabels.Values), Command: o.entrypoint.words, Args: o.args, Hostname: o.hostname, Env: env,
		Dir: o.workdir, User: o.user, Groups: o.groups.Values, Init: &o.init, StopSignal: o.stopSignal, TTY: o.tty, ReadOnly: o.readOnly,
		Mounts: o.mounts.Values, Hosts: hostLines(o.hosts.Values), Isolation: o.isolation, Sysctls: cli.ToMap(o.sysctls.Values),
		DNSConfig:     &wire.TaskDNS{Nameservers: o.dns.Values, Search: o.dnsSearch.Values, Options: o.dnsOptions.Values},
		CapabilityAdd: add, CapabilityDrop: drop, Ulimits: o.ulimits.Values, OomScoreAdj: o.oomScoreAdj,
	}
	set(f, "stop-grace-period", &k.StopGracePeriod, &o.stopGrace)
	return k, o.health.apply(f, &k.Healthcheck)
}

// environment are the variables of files and flags, of which the last of a name counts.
func (o *options) environment() ([]string, error) {
	given, err := container.Environment(o.envFiles.Values, o.env.Values)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, v := range given {
		name := key(v)
		env = append(slices.DeleteFunc(env, func(earlier string) bool { return strings.HasPrefix(earlier, name+"=") || earlier == v }), v)
	}
	return env, nil
}

// key is the name of NAME=VALUE.
func key(pair string) string {
	name, _, _ := strings.Cut(pair, "=")
	return name
}

// hostLines turns NAME:ADDRESS into lines of hosts(5).
func hostLines(given []string) []string {
	var lines []string
	for _, h := range given {
		name, address, _ := strings.Cut(h, ":")
		lines = append(lines, address+" "+name)
	}
	return lines
}

// The words of --cap-add and --cap-drop that are no capabilities: all of them, and what was said of them before.
const (
	allCapabilities   = "ALL"
	resetCapabilities = "CAP_RESET" // as container.Capabilities spells RESET
)

// effectiveCapabilities are those of a new service: what is added is not dropped, and ALL has the others in it.
func effectiveCapabilities(add, drop []string) (added, dropped []string) {
	whole := func(list []string) []string {
		list = slices.DeleteFunc(container.Capabilities(list), func(name string) bool { return name == resetCapabilities })
		if slices.Contains(list, allCapabilities) {
			return []string{allCapabilities}
		}
		return list
	}
	added = whole(add)
	return added, slices.DeleteFunc(whole(drop), func(name string) bool { return slices.Contains(added, name) })
}

// mode is how many tasks there are to be, and on which nodes.
func (o *options) mode(name string) (wire.ServiceMode, error) {
	replicated, job := name == "replicated" || name == "replicated-job", name == "replicated-job"
	const ofReplicated = "can only be used with replicated or replicated-job mode"
	switch {
	case !slices.Contains([]string{"replicated", "global", "replicated-job", "global-job"}, name):
		return wire.ServiceMode{}, fault.New(fault.Invalid, "Unknown mode: %s, only replicated and global supported", name)
	case o.replicas.value != nil && !replicated:
		return wire.ServiceMode{}, fault.New(fault.Invalid, "replicas %s", ofReplicated)
	case o.maxReplicas > 0 && !replicated:
		return wire.ServiceMode{}, fault.New(fault.Invalid, "replicas-max-per-node %s", ofReplicated)
	case o.maxConcurrent.value != nil && !job:
		return wire.ServiceMode{}, fault.New(fault.Invalid, "max-concurrent can only be used with replicated-job mode")
	}
	switch name {
	case "replicated":
		return wire.ServiceMode{Replicated: &wire.Replicated{Replicas: o.replicas.value}}, nil
	case "global":
		return wire.ServiceMode{Global: &wire.Global{}}, nil
	case "global-job":
		return wire.ServiceMode{GlobalJob: &wire.Global{}}, nil
	}
	return wire.ServiceMode{ReplicatedJob: &wire.ReplicatedJob{MaxConcurrent: cmp.Or(o.maxConcurrent.value, o.replicas.value), TotalCompletions: o.replicas.value}}, nil
}

// resources are what a task may use, and what must be there for it.
func (o *options) resources() (*wire.TaskResources, error) {
	r := &wire.TaskResources{
		Limits:       &wire.TaskLimit{NanoCPUs: o.limitCPU.Nano, MemoryBytes: o.limitMemory.Value, Pids: o.limitPids},
		Reservations: &wire.NodeResources{NanoCPUs: o.reserveCPU.Nano, MemoryBytes: o.reserveMemory.Value},
	}
	list, err := parseGenerics(o.generic.Values)
	if err != nil {
		return nil, err
	}
	for _, g := range list {
		r.Reservations.GenericResources = append(r.Reservations.GenericResources, g)
	}
	return r, nil
}
