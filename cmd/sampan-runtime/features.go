package main

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/runtime/initproc"
	"github.com/sampan-project/sampan/core/runtime/seccomp"
)

func featuresFlags(_ *program, _ *pflag.FlagSet) action {
	return func([]string) error { return printJSON(whatCanBe()) }
}

// whatCanBe is what this build can do (features-linux.md), whatever the kernel can.
func whatCanBe() *features.Features {
	yes := true
	version, commit := build()
	options := mount.Known()
	slices.Sort(options)
	sorted := func(list []string) []string { slices.Sort(list); return list }
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  slices.Compact(options),
		Linux: &features.Linux{
			Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities: linux.CapabilityNames(),
			Cgroup:       &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
			Seccomp: &features.Seccomp{
				Enabled: &yes, Actions: sorted(seccomp.Actions()),
				Operators: sorted(seccomp.Operators()), Archs: seccomp.SupportedArchitectures(),
				KnownFlags: sorted(seccomp.Flags()), SupportedFlags: sorted(seccomp.Flags()),
			},
			Apparmor:        &features.Apparmor{Enabled: &yes},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			Selinux:         &features.Selinux{Enabled: &yes},
			IntelRdt:        &features.IntelRdt{Enabled: &yes, Schemata: &yes, Monitoring: &yes},
			MemoryPolicy: &features.MemoryPolicy{
				Modes: words(initproc.MemoryPolicyModes),
				Flags: words([]specs.MemoryPolicyFlagType{specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes}),
			},
			NetDevices: &features.NetDevices{Enabled: &yes},
		},
		Annotations: map[string]string{
			"sh.sampan.runtime.version": version, "sh.sampan.runtime.commit": commit,
			// By this name callers know that checkpoint and restore are there.
			"org.opencontainers.runc.checkpoint.enabled": "true",
		},
		// It names a file of settings for CRIU, which may run any program.
		PotentiallyUnsafeConfigAnnotations: []string{"org.criu.config"},
	}
}

func words[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, w := range list {
		out[i] = string(w)
	}
	return out
}
