package service

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// updateOptions are the flags of update: beside those of create what only a service that is there can lose.
type updateOptions struct {
	*options
	image       string
	args        command
	force, undo bool
	remove      removals
}

// removals are the flags --...-rm.
type removals struct {
	configs, constraints, containerLabels, dns, dnsOptions, dnsSearch, env, generic cli.List
	groups, hosts, labels, mounts, networks, secrets, sysctls, ulimits              cli.List
	preferences                                                                     preferences
	ports                                                                           ports
}

func (r *removals) addFlags(f *pflag.FlagSet) {
	f.Var(&r.configs, "config-rm", "Remove a configuration file")
	f.Var(&r.constraints, "constraint-rm", "Remove a constraint")
	f.Var(&r.containerLabels, "container-label-rm", "Remove a container label by its key")
	f.Var(&r.dns, "dns-rm", "Remove a custom DNS server")
	f.Var(&r.dnsOptions, "dns-option-rm", "Remove a DNS option")
	f.Var(&r.dnsSearch, "dns-search-rm", "Remove a DNS search domain")
	f.Var(&r.env, "env-rm", "Remove an environment variable")
	f.Var(&r.generic, "generic-resource-rm", "Remove a Generic resource")
	f.Var(&r.groups, "group-rm", "Remove a previously added supplementary user group from the container")
	f.Var(&r.hosts, "host-rm", `Remove a custom host-to-IP mapping ("host:ip")`)
	f.Var(&r.labels, "label-rm", "Remove a label by its key")
	f.Var(&r.mounts, "mount-rm", "Remove a mount by its target path")
	f.Var(&r.networks, "network-rm", "Remove a network")
	f.Var(&r.preferences, "placement-pref-rm", "Remove a placement preference")
	f.Var(&r.ports, "publish-rm", "Remove a published port by its target port")
	f.Var(&r.secrets, "secret-rm", "Remove a secret")
	f.Var(&r.sysctls, "sysctl-rm", "Remove a Sysctl option")
	f.Var(&r.ulimits, "ulimit-rm", "Remove a ulimit option")
}

func newUpdate(c *cli.CLI) *cobra.Command {
	o := &updateOptions{options: newOptions()}
	cmd := &cobra.Command{
		Use: "update [OPTIONS] SERVICE", Short: "Update a service", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), c, cmd.Flags(), args[0]) },
	}
	f := cmd.Flags()
	o.addFlags(f, false)
	o.addListFlags(f, "-add")
	o.remove.addFlags(f)
	f.Var(&o.args, "args", "Service command args")
	f.BoolVar(&o.force, "force", false, "Force update even if no changes require it")
	f.StringVar(&o.image, "image", "", "Service image tag")
	f.BoolVar(&o.undo, "rollback", false, "Rollback to previous specification")
	return cmd
}

func (o *updateOptions) run(ctx context.Context, c *cli.CLI, f *pflag.FlagSet, name string) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	service, err := engine.ServiceInspect(ctx, name)
	if err != nil {
		return err
	}
	spec, how := service.Spec, wire.ServiceUpdate{Version: service.Version.Index}
	if o.undo {
		others := false
		f.Visit(func(flag *pflag.Flag) {
			others = others || !slices.Contains([]string{"rollback", "detach", "quiet"}, flag.Name)
		})
		if others {
			return fault.New(fault.Invalid, "other flags may not be combined with --rollback")
		}
		how.Rollback = "previous"
	}
	if spec.TaskTemplate.ContainerSpec == nil {
		return fault.New(fault.NotImplemented, "service %s: its tasks are no containers, expected a service of containers", name)
	}
	if err := o.edit(ctx, engine, f, &spec); err != nil {
		return err
	}
	auth, err := o.auth(c, &spec)
	if err != nil {
		return err
	}
	if auth == nil {
		how.RegistryAuthFrom = "spec"
	}
	warning, err := pin(ctx, c, engine, &spec.TaskTemplate, auth, f.Changed("image") && !o.noResolve)
	if err != nil {
		return err
	}
	answer, err := engine.ServiceUpdate(ctx, service.ID, spec, how, auth)
	if err != nil {
		return err
	}
	warn(c, answer.Warnings, warning)
	fmt.Fprintln(c.Out, name)
	if o.detach {
		return nil
	}
	return wait(ctx, c, engine, name, o.quiet)
}

// edit changes a service as the flags say. What it has from the daemon it leaves whole where they say nothing.
func (o *updateOptions) edit(ctx context.Context, engine *client.Client, f *pflag.FlagSet, spec *wire.ServiceSpec) error {
	k := *spec.TaskTemplate.ContainerSpec
	spec.TaskTemplate.ContainerSpec = &k
	spec.Labels = editMap(spec.Labels, o.remove.labels.Values, o.labels.Values)
	for _, step := range []func() error{
		func() error { return o.editContainer(f, &k) },
		func() error { return o.editTask(f, &spec.TaskTemplate) },
		func() error { return o.editMode(f, &spec.Mode) },
		func() error { return o.editEndpoint(f, spec) },
		func() error { return o.editNetworks(ctx, engine, f, spec) },
		func() error { return o.editFiles(ctx, engine, f, &k) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	o.update.apply(f, "update", &spec.UpdateConfig)
	o.rollback.apply(f, "rollback", &spec.RollbackConfig)
	return nil
}

func (o *updateOptions) editMode(f *pflag.FlagSet, m *wire.ServiceMode) error {
	if f.Changed("replicas") {
		if m.Replicated == nil {
			return fault.New(fault.Invalid, "replicas can only be used with replicated mode")
		}
		m.Replicated = &wire.Replicated{Replicas: o.replicas.value}
	}
	if f.Changed("max-concurrent") {
		if m.ReplicatedJob == nil {
			return fault.New(fault.Invalid, "max-concurrent can only be used with replicated-job mode")
		}
		m.ReplicatedJob = &wire.ReplicatedJob{MaxConcurrent: o.maxConcurrent.value, TotalCompletions: m.ReplicatedJob.TotalCompletions}
	}
	return nil
}

func (o *updateOptions) editEndpoint(f *pflag.FlagSet, spec *wire.ServiceSpec) error {
	if !changed(f, "endpoint-mode", "publish-add", "publish-rm") {
		return nil
	}
	e := wire.EndpointSpec{}
	if spec.EndpointSpec != nil {
		e = *spec.EndpointSpec
	}
	set(f, "endpoint-mode", &e.Mode, o.endpointMode)
	if changed(f, "publish-add", "publish-rm") {
		e.Ports = editPorts(e.Ports, o.remove.ports.values, o.ports.values)
	}
	spec.EndpointSpec = &e
	return nil
}

// editNetworks also moves the networks of a service of an old client to where those of its tasks are.
func (o *updateOptions) editNetworks(ctx context.Context, engine *client.Client, f *pflag.FlagSet, spec *wire.ServiceSpec) error {
	if !changed(f, "network-add", "network-rm") {
		return nil
	}
	have := spec.TaskTemplate.Networks
	if len(have) == 0 {
		have = spec.Networks
	}
	spec.Networks = nil
	var remove []wire.NetworkAttachment
	for _, name := range o.remove.networks.Values {
		remove = append(remove, wire.NetworkAttachment{Target: name})
	}
	remove, err := resolveNetworks(ctx, engine, remove)
	if err != nil {
		return err
	}
	is := func(id string) func(wire.NetworkAttachment) bool {
		return func(n wire.NetworkAttachment) bool { return n.Target == id }
	}
	list := slices.DeleteFunc(slices.Clone(have), func(n wire.NetworkAttachment) bool { return slices.ContainsFunc(remove, is(n.Target)) })
	for _, n := range o.networks.values {
		found, err := resolveNetworks(ctx, engine, []wire.NetworkAttachment{n})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, is(found[0].Target)) {
			return fault.New(fault.Conflict, "service is already attached to network %s", n.Target)
		}
		list = append(list, found...)
	}
	slices.SortFunc(list, func(a, b wire.NetworkAttachment) int { return cmp.Compare(a.Target, b.Target) })
	spec.TaskTemplate.Networks = list
	return nil
}

// editFiles takes secrets and configs away and adds others.
func (o *updateOptions) editFiles(ctx context.Context, engine *client.Client, f *pflag.FlagSet, k *wire.ContainerSpec) error {
	secrets, err := resolveSecrets(ctx, engine, &o.secrets)
	if err != nil {
		return err
	}
	k.Secrets = append(slices.DeleteFunc(slices.Clone(k.Secrets), func(s *wire.TaskSecret) bool {
		return slices.Contains(o.remove.secrets.Values, s.SecretName)
	}), secrets...)

	account := credentialOf(k.Privileges)
	if f.Changed("credential-spec") {
		account = o.credential.value
	}
	kept := slices.DeleteFunc(slices.Clone(k.Configs), func(c *wire.TaskConfig) bool {
		if c.Runtime != nil { // it is there for the service account alone
			return account == nil || c.ConfigName != account.Config && c.ConfigID != account.Config
		}
		return slices.Contains(o.remove.configs.Values, c.ConfigName)
	})
	configs, err := resolveConfigs(ctx, engine, &o.configs, o.newAccount(kept))
	if err != nil {
		return err
	}
	k.Configs = append(kept, configs...)
	if f.Changed("credential-spec") {
		p := wire.Privileges{}
		if k.Privileges != nil {
			p = *k.Privileges
		}
		if p.CredentialSpec = nil; o.credential.value != nil {
			p.CredentialSpec = o.credential.value
		}
		k.Privileges = &p
	}
	return nil
}

// newAccount is the service account whose config the service has not yet. One that it has gets the config's ID.
func (o *updateOptions) newAccount(kept []*wire.TaskConfig) *credential {
	account := o.credential.value
	if account == nil {
		return nil
	}
	for _, c := range kept {
		if c.Runtime != nil && c.ConfigName == account.Config {
			account.Config = c.ConfigID
			return nil
		}
	}
	return account
}
