package service

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// editContainer changes what the containers of the tasks are.
func (o *updateOptions) editContainer(f *pflag.FlagSet, k *wire.ContainerSpec) error {
	k.Labels = editMap(k.Labels, o.remove.containerLabels.Values, o.containerLabels.Values)
	set(f, "image", &k.Image, o.image)
	set(f, "args", &k.Args, o.args.words)
	set(f, "entrypoint", &k.Command, o.entrypoint.words)
	set(f, "workdir", &k.Dir, o.workdir)
	set(f, "user", &k.User, o.user)
	set(f, "hostname", &k.Hostname, o.hostname)
	set(f, "init", &k.Init, &o.init)
	set(f, "isolation", &k.Isolation, o.isolation)
	set(f, "oom-score-adj", &k.OomScoreAdj, o.oomScoreAdj)
	set(f, "stop-grace-period", &k.StopGracePeriod, &o.stopGrace)
	set(f, "stop-signal", &k.StopSignal, o.stopSignal)
	set(f, "tty", &k.TTY, o.tty)
	set(f, "read-only", &k.ReadOnly, o.readOnly)

	added, err := container.Environment(nil, o.env.Values)
	if err != nil {
		return err
	}
	k.Env = editPairs(k.Env, o.remove.env.Values, added)
	if k.Mounts, err = editMounts(k.Mounts, o.remove.mounts.Values, o.mounts.Values); err != nil {
		return err
	}
	k.Sysctls = editMap(k.Sysctls, keys(o.remove.sysctls.Values), o.sysctls.Values)
	k.Ulimits = editUlimits(k.Ulimits, keys(o.remove.ulimits.Values), o.ulimits.Values)
	if changed(f, "group-add", "group-rm") {
		k.Groups = editList(k.Groups, o.remove.groups.Values, o.groups.Values)
	}
	if changed(f, "dns-add", "dns-rm", "dns-option-add", "dns-option-rm", "dns-search-add", "dns-search-rm") {
		d := wire.TaskDNS{}
		if k.DNSConfig != nil {
			d = *k.DNSConfig
		}
		d.Nameservers = editList(d.Nameservers, o.remove.dns.Values, o.dns.Values)
		d.Search = editList(d.Search, o.remove.dnsSearch.Values, o.dnsSearch.Values)
		d.Options = editList(d.Options, o.remove.dnsOptions.Values, o.dnsOptions.Values)
		k.DNSConfig = &d
	}
	if changed(f, "host-add", "host-rm") {
		k.Hosts = editHosts(k.Hosts, o.remove.hosts.Values, o.hosts.Values)
	}
	if changed(f, "cap-add", "cap-drop") {
		k.CapabilityAdd, k.CapabilityDrop = editCapabilities(k.CapabilityAdd, k.CapabilityDrop, o.capAdd.Values, o.capDrop.Values)
	}
	return o.health.apply(f, &k.Healthcheck)
}

// editTask changes where tasks run and what they may use there.
func (o *updateOptions) editTask(f *pflag.FlagSet, t *wire.TaskSpec) error {
	if changed(f, "limit-cpu", "limit-memory", "limit-pids", "reserve-cpu", "reserve-memory", "generic-resource-add", "generic-resource-rm") {
		if err := o.editResources(f, t); err != nil {
			return err
		}
	}
	o.restart.apply(f, &t.RestartPolicy)
	if changed(f, "constraint-add", "constraint-rm", "placement-pref-add", "placement-pref-rm", "replicas-max-per-node") {
		p := wire.Placement{}
		if t.Placement != nil {
			p = *t.Placement
		}
		if changed(f, "constraint-add", "constraint-rm") {
			p.Constraints = editList(p.Constraints, o.remove.constraints.Values, o.constraints.Values)
		}
		p.Preferences = slices.DeleteFunc(slices.Clone(p.Preferences), func(have wire.PlacementPreference) bool {
			return have.Spread != nil && slices.ContainsFunc(o.remove.preferences.values, func(r wire.PlacementPreference) bool { return *r.Spread == *have.Spread })
		})
		p.Preferences = append(p.Preferences, o.preferences.values...)
		set(f, "replicas-max-per-node", &p.MaxReplicas, o.maxReplicas)
		t.Placement = &p
	}
	if o.logDriver != "" {
		t.LogDriver = &wire.NamedDriver{Name: o.logDriver, Options: cli.ToMap(o.logOptions.Values)}
	}
	if o.force {
		t.ForceUpdate++
	}
	return nil
}

func (o *updateOptions) editResources(f *pflag.FlagSet, t *wire.TaskSpec) error {
	limits, reserved := wire.TaskLimit{}, wire.NodeResources{}
	if r := t.Resources; r != nil && r.Limits != nil {
		limits = *r.Limits
	}
	if r := t.Resources; r != nil && r.Reservations != nil {
		reserved = *r.Reservations
	}
	set(f, "limit-cpu", &limits.NanoCPUs, o.limitCPU.Nano)
	set(f, "limit-memory", &limits.MemoryBytes, o.limitMemory.Value)
	set(f, "limit-pids", &limits.Pids, o.limitPids)
	set(f, "reserve-cpu", &reserved.NanoCPUs, o.reserveCPU.Nano)
	set(f, "reserve-memory", &reserved.MemoryBytes, o.reserveMemory.Value)
	var err error
	if reserved.GenericResources, err = editGeneric(reserved.GenericResources, o.remove.generic.Values, o.generic.Values); err != nil {
		return err
	}
	t.Resources = &wire.TaskResources{Limits: &limits, Reservations: &reserved}
	return nil
}

// editGeneric changes resources that the user has named. Those that are there came from the daemon.
func editGeneric(have []any, remove, add []string) ([]any, error) {
	list := slices.Clone(have)
	without := func(kind string) bool {
		n := len(list)
		list = slices.DeleteFunc(list, func(r any) bool { return genericKind(r) == kind })
		return len(list) < n
	}
	added, err := parseGenerics(add)
	if err != nil {
		return nil, err
	}
	for _, g := range added {
		without(g.Discrete.Kind)
		list = append(list, g)
	}
	for _, kind := range remove {
		if !without(kind) {
			return nil, fault.New(fault.NotFound, "could not find generic-resource `%s` to remove it", kind)
		}
	}
	return list, nil
}

func genericKind(r any) string {
	switch r := r.(type) {
	case generic:
		return r.Discrete.Kind
	case map[string]any:
		if d, ok := r["DiscreteResourceSpec"].(map[string]any); ok {
			kind, _ := d["Kind"].(string)
			return kind
		}
	}
	return ""
}

// keys are the names of NAME=VALUE, or of a name alone.
func keys(pairs []string) []string {
	names := make([]string, len(pairs))
	for i, p := range pairs {
		names[i] = key(p)
	}
	return names
}

// editMap takes names away and puts pairs in.
func editMap(have map[string]string, remove, add []string) map[string]string {
	if len(remove) == 0 && len(add) == 0 {
		return have
	}
	m := maps.Clone(have)
	if m == nil {
		m = map[string]string{}
	}
	for _, name := range remove {
		delete(m, name)
	}
	maps.Copy(m, cli.ToMap(add))
	return m
}

// editList takes words away and adds others; each is there once, and they are in order, so that the tasks are the
// same for the same words.
func editList(have, remove, add []string) []string {
	list := slices.Concat(have, add)
	list = slices.DeleteFunc(list, func(s string) bool { return slices.Contains(remove, s) })
	slices.Sort(list)
	return slices.Compact(list)
}

// editPairs takes variables away by their names, and sets others, in the place of those of their names.
func editPairs(have, remove, add []string) []string {
	list := slices.DeleteFunc(slices.Clone(have), func(v string) bool { return slices.Contains(remove, key(v)) })
	for _, v := range add {
		if i := slices.IndexFunc(list, func(there string) bool { return key(there) == key(v) }); i >= 0 {
			list[i] = v
		} else {
			list = append(list, v)
		}
	}
	return list
}

// editMounts takes mounts away by their targets, and sets others.
func editMounts(have []wire.MountSpec, remove []string, add []wire.MountSpec) ([]wire.MountSpec, error) {
	if len(remove) == 0 && len(add) == 0 {
		return have, nil
	}
	list := slices.Clone(add)
	for i, m := range add {
		if slices.ContainsFunc(add[:i], func(other wire.MountSpec) bool { return other.Target == m.Target }) {
			return nil, fault.New(fault.Invalid, "duplicate mount target")
		}
	}
	for _, m := range have {
		if !slices.ContainsFunc(add, func(other wire.MountSpec) bool { return other.Target == m.Target }) {
			list = append(list, m)
		}
	}
	list = slices.DeleteFunc(list, func(m wire.MountSpec) bool { return slices.Contains(remove, m.Target) })
	slices.SortFunc(list, func(a, b wire.MountSpec) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Target, b.Target))
	})
	return list, nil
}

// editUlimits takes limits away by their names, and sets others.
func editUlimits(have []wire.Ulimit, remove []string, add []wire.Ulimit) []wire.Ulimit {
	if len(remove) == 0 && len(add) == 0 {
		return have
	}
	byName := map[string]wire.Ulimit{}
	for _, l := range have {
		byName[l.Name] = l
	}
	for _, name := range remove {
		delete(byName, name)
	}
	for _, l := range add {
		byName[l.Name] = l
	}
	var list []wire.Ulimit
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, byName[name])
	}
	return list
}

// editHosts takes names out of lines of hosts(5), those of one address if one is given, and adds lines. Their order
// stays: of more than one address for a name the first counts.
func editHosts(have, remove, add []string) []string {
	var lines []string
	for _, line := range have {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		names := slices.DeleteFunc(fields[1:], func(name string) bool {
			return slices.ContainsFunc(remove, func(r string) bool {
				host, address, _ := strings.Cut(r, ":")
				return host == name && (address == "" || address == fields[0])
			})
		})
		if len(names) > 0 {
			lines = append(lines, fmt.Sprintf("%s %s", fields[0], strings.Join(names, " ")))
		}
	}
	var list []string
	for _, line := range append(lines, hostLines(add)...) {
		if !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	return list
}

// editCapabilities takes a capability out of the other list, if it is there, and else puts it into its own; adding
// goes before dropping. RESET empties a list first.
func editCapabilities(added, dropped, add, drop []string) (newAdded, newDropped []string) {
	a, d := container.Capabilities(added), container.Capabilities(dropped)
	take := func(given []string, own *[]string) []string {
		given = container.Capabilities(given)
		if i := slices.Index(given, resetCapabilities); i >= 0 {
			*own, given = nil, slices.Delete(given, i, i+1)
		}
		return given
	}
	toAdd := take(add, &a)
	toDrop := slices.DeleteFunc(take(drop, &d), func(name string) bool { return slices.Contains(toAdd, name) })
	put := func(names []string, own, other *[]string) {
		for _, name := range names {
			if i := slices.Index(*other, name); i >= 0 {
				*other = slices.Delete(*other, i, i+1)
			} else {
				*own = append(*own, name)
			}
		}
	}
	put(toDrop, &d, &a)
	put(toAdd, &a, &d)
	whole := func(list []string) []string {
		if slices.Contains(list, allCapabilities) {
			return []string{allCapabilities}
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	return whole(a), whole(d)
}
