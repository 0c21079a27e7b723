package complete

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
)

// kinds are the flags whose value is a thing of the engine.
var kinds = map[string]string{
	"network": "network", "net": "network", "network-add": "network", "network-rm": "network", "image": "image", "config-from": "network", "volumes-from": "container", "link": "container",
	"context": "context",
}

// paths are the flags whose value is a file or a directory.
var paths = []string{
	"ca-cert", "ca-key", "cidfile", "config", "device", "dir", "env-file", "file", "input", "key", "label-file", "output", "proxy-password-file", "root",
	"tls-cert", "tls-key", "tlscacert", "tlscert", "tlskey", "users", "volume",
}

// choices are the flags with few values.
var choices = map[string][]string{
	"attach":                  {"stdin", "stdout", "stderr"},
	"availability":            {"active", "drain", "pause"},
	"cgroupns":                {"host", "private"},
	"endpoint-mode":           {"dnsrr", "vip"},
	"ipc":                     {"container:", "host", "none", "private", "shareable"},
	"log-driver":              {"journald", "json-file", "local", "none", "syslog"},
	"log-level":               {"debug", "error", "fatal", "info", "warn"},
	"mode":                    {"global", "global-job", "replicated", "replicated-job"},
	"pid":                     {"container:", "host"},
	"platform":                {"linux/amd64", "linux/arm64"},
	"pull":                    {"always", "missing", "never"},
	"restart":                 {"always", "no", "on-failure", "unless-stopped"},
	"restart-condition":       {"any", "none", "on-failure"},
	"role":                    {"manager", "worker"},
	"rollback-failure-action": {"continue", "pause"},
	"rollback-order":          {"start-first", "stop-first"},
	"security-opt":            {"apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined"},
	"signal":                  {"HUP", "INT", "KILL", "QUIT", "STOP", "TERM", "USR1", "USR2"},
	"stop-signal":             {"SIGHUP", "SIGINT", "SIGKILL", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"},
	"update-failure-action":   {"continue", "pause", "rollback"},
	"update-order":            {"start-first", "stop-first"},
	"userns":                  {"host"},
	"uts":                     {"host"},
	"volume-driver":           {"local"},
}

// inspectTypes are those of inspect --type.
var inspectTypes = []string{"container", "image", "network", "node", "service", "task", "volume"}

// flag completes the value of a flag; nil leaves it to the shell.
func (e engine) flag(cmd *cobra.Command, f *pflag.Flag) completion {
	if filters, ok := f.Value.(*cli.Filters); ok {
		return fixed(withEquals(filters.Keys), cobra.ShellCompDirectiveNoSpace)
	}
	switch kind := kinds[f.Name]; {
	case kind != "":
		return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
			return e.names(cmd.Context(), kind, nil, typed)
		}
	case f.Name == "type" && cmd.Name() == "inspect":
		return fixed(inspectTypes, 0)
	case choices[f.Name] != nil && f.Value.Type() != "bool":
		return fixed(choices[f.Name], 0)
	case f.Name == "format":
		return fixed([]string{"json", "table"}, 0)
	case slices.Contains(paths, f.Name) || f.Value.Type() == "bool":
		return nil
	}
	return fixed(nil, 0) // a word that only the user knows, and no file
}

func fixed(values []string, directive cobra.ShellCompDirective) completion {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return matching(values, typed), directive | cobra.ShellCompDirectiveNoFileComp
	}
}

func withEquals(keys []string) []string {
	list := make([]string, len(keys))
	for i, key := range keys {
		list[i] = key + "="
	}
	return list
}
