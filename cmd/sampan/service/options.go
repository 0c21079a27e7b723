package service

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/container"
	"github.com/sampan-project/sampan/core/wire"
)

// options are the flags that create and update share: either says by them what is to be otherwise than it was, which
// for create is what a service is of which nothing is said. A flag that adds to a list is called --label of the one
// and --label-add of the other.
type options struct {
	detach, quiet bool

	args                    []string
	entrypoint              command
	hostname, workdir, user string
	env, envFiles           cli.List
	labels, containerLabels cli.List
	groups                  cli.List
	init, tty, readOnly     bool
	stopSignal, isolation   string
	stopGrace               time.Duration
	mounts                  container.Mounts
	dns, dnsSearch          cli.List
	dnsOptions, hosts       cli.List
	sysctls                 cli.List
	capAdd, capDrop         cli.List
	ulimits                 container.Ulimits
	oomScoreAdj             int64
	credential              credentialSpec
	secrets, configs        files

	limitCPU, reserveCPU       cli.CPUs
	limitMemory, reserveMemory cli.Bytes
	limitPids                  int64
	generic                    cli.List

	replicas, maxConcurrent count
	maxReplicas             uint64
	constraints             cli.List
	preferences             preferences
	networks                networks
	endpointMode            string
	ports                   ports
	restart                 restart
	update, rollback        rollout
	logDriver               string
	logOptions              cli.List
	health                  health

	withAuth, noResolve bool
}

// newOptions returns options of which every value is checked.
func newOptions() *options {
	o := &options{secrets: files{kind: "secret"}, configs: files{kind: "config"}}
	o.env.Check, o.hosts.Check, o.dns.Check = container.CheckVariable, container.CheckHost, container.CheckIP
	o.dnsSearch.Check = checkDomain
	o.labels.Check, o.containerLabels.Check, o.logOptions.Check = checkLabel, checkLabel, container.CheckVariable
	o.generic.Check = checkGeneric
	return o
}

// addFlags adds the flags that both have. Only create's help tells the defaults: update leaves what is not given.
func (o *options) addFlags(f *pflag.FlagSet, create bool) {
	about := func(text string, what any) string {
		if create {
			return fmt.Sprintf("%s (default %v)", text, what)
		}
		return text
	}
	o.addWait(f)
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output")
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	f.StringVarP(&o.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.Var(&o.credential, "credential-spec", "Credential spec for managed service account (Windows only)")
	f.StringVar(&o.hostname, "hostname", "", "Container hostname")
	f.Var(&o.entrypoint, "entrypoint", "Overwrite the default ENTRYPOINT of the image")
	f.Var(&o.capAdd, "cap-add", "Add Linux capabilities")
	f.Var(&o.capDrop, "cap-drop", "Drop Linux capabilities")
	f.BoolVar(&o.init, "init", false, "Use an init inside each service container to forward signals and reap processes")
	f.Int64Var(&o.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000) ")
	f.DurationVar(&o.stopGrace, "stop-grace-period", 0, about("Time to wait before force killing a container (ns|us|ms|s|m|h)", defaultStopGrace))
	f.StringVar(&o.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.BoolVar(&o.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	f.StringVar(&o.isolation, "isolation", "", "Service container isolation mode")
	f.StringVar(&o.logDriver, "log-driver", "", "Logging driver for service")
	f.Var(&o.logOptions, "log-opt", "Logging driver options")
	o.addResourceFlags(f)

	f.Var(&o.replicas, "replicas", "Number of tasks")
	f.Var(&o.maxConcurrent, "max-concurrent", "Number of job tasks to run concurrently (default equal to --replicas)")
	f.Uint64Var(&o.maxReplicas, "replicas-max-per-node", 0, "Maximum number of tasks per node (default 0 = unlimited)")
	mode := ""
	if create {
		mode = "vip"
	}
	f.StringVar(&o.endpointMode, "endpoint-mode", mode, "Endpoint mode (vip or dnsrr)")
	o.restart.addFlags(f, about)
	o.update.addFlags(f, "update", `Action on update failure ("pause", "continue", "rollback")`, create, about)
	o.rollback.addFlags(f, "rollback", `Action on rollback failure ("pause", "continue")`, create, about)
	o.health.addFlags(f)

	f.BoolVar(&o.withAuth, "with-registry-auth", false, "Send registry authentication details to swarm agents")
	f.BoolVar(&o.noResolve, "no-resolve-image", false, "Do not query the registry to resolve image digest and supported platforms")
}

// addWait adds the flag that every command has after which tasks change.
func (o *options) addWait(f *pflag.FlagSet) {
	f.BoolVarP(&o.detach, "detach", "d", false, "Exit immediately instead of waiting for the service to converge")
}

func (o *options) addResourceFlags(f *pflag.FlagSet) {
	f.Var(&o.limitCPU, "limit-cpu", "Limit CPUs")
	f.Var(&o.limitMemory, "limit-memory", "Limit Memory")
	f.Int64Var(&o.limitPids, "limit-pids", 0, "Limit maximum number of processes (default 0 = unlimited)")
	f.Var(&o.reserveCPU, "reserve-cpu", "Reserve CPUs")
	f.Var(&o.reserveMemory, "reserve-memory", "Reserve Memory")
}

// addListFlags adds the flags of what there may be more of; plus stands behind their names.
func (o *options) addListFlags(f *pflag.FlagSet, plus string) {
	short := func(letter string) string {
		if plus != "" {
			return ""
		}
		return letter
	}
	word := func(add, create string) string {
		if plus != "" {
			return add
		}
		return create
	}
	f.VarP(&o.labels, "label"+plus, short("l"), word("Add or update a service label", "Service labels"))
	f.Var(&o.containerLabels, "container-label"+plus, word("Add or update a container label", "Container labels"))
	f.VarP(&o.env, "env"+plus, short("e"), word("Add or update an environment variable", "Set environment variables"))
	f.Var(&o.mounts, "mount"+plus, word("Add or update a mount on a service", "Attach a filesystem mount to the service"))
	f.Var(&o.constraints, "constraint"+plus, word("Add or update a placement constraint", "Placement constraints"))
	f.Var(&o.preferences, "placement-pref"+plus, "Add a placement preference")
	f.Var(&o.networks, "network"+plus, word("Add a network", "Network attachments"))
	f.Var(&o.secrets, "secret"+plus, word("Add or update a secret on a service", "Specify secrets to expose to the service"))
	f.Var(&o.configs, "config"+plus, word("Add or update a config file on a service", "Specify configurations to expose to the service"))
	f.VarP(&o.ports, "publish"+plus, short("p"), word("Add or update a published port", "Publish a port as a node port"))
	f.Var(&o.groups, "group"+plus, word("Add an additional supplementary user group to the container", "Set one or more supplementary user groups for the container"))
	f.Var(&o.dns, "dns"+plus, word("Add or update a custom DNS server", "Set custom DNS servers"))
	f.Var(&o.dnsOptions, "dns-option"+plus, word("Add or update a DNS option", "Set DNS options"))
	f.Var(&o.dnsSearch, "dns-search"+plus, word("Add or update a custom DNS search domain", "Set custom DNS search domains"))
	f.Var(&o.hosts, "host"+plus, word(`Add a custom host-to-IP mapping ("host:ip")`, "Set one or more custom host-to-IP mappings (host:ip)"))
	f.Var(&o.sysctls, "sysctl"+plus, word("Add or update a Sysctl option", "Sysctl options"))
	f.Var(&o.ulimits, "ulimit"+plus, word("Add or update a ulimit option", "Ulimit options"))
	f.Var(&o.generic, "generic-resource"+plus, word("Add a Generic resource", "User defined resources"))
}

// defaultStopGrace is how long a container has to end when nothing is said (swarmkit's defaults of a service).
const defaultStopGrace = 10 * time.Second

// changed reports whether one of the flags is given.
func changed(f *pflag.FlagSet, names ...string) bool {
	for _, name := range names {
		if f.Changed(name) {
			return true
		}
	}
	return false
}

// set puts a flag's value into a field, if the flag is given.
func set[T any](f *pflag.FlagSet, name string, field *T, value T) {
	if f.Changed(name) {
		*field = value
	}
}

// rollout is the flags of how tasks are exchanged, in an update or in its taking back.
type rollout struct {
	parallelism    uint64
	delay, monitor time.Duration
	onFailure      string
	ratio          ratio
	order          string
}

// defaultRollout is how tasks are exchanged when nothing is said (swarmkit's defaults of a service).
var defaultRollout = wire.UpdateConfig{Parallelism: 1, FailureAction: "pause", Monitor: 5 * time.Second, Order: "stop-first"}

func (r *rollout) addFlags(f *pflag.FlagSet, verb, onFailure string, create bool, about func(string, any) string) {
	rolled, name, during, tasks, several := "updated", "Update", "an update", "updates", "update all at once"
	if verb == "rollback" {
		rolled, name, during, tasks, several = "rolled back", "Rollback", "a rollback", "task rollbacks", "roll back all at once"
	}
	d := defaultRollout
	if !create {
		d.Parallelism = 0
	}
	f.Uint64Var(&r.parallelism, verb+"-parallelism", d.Parallelism, fmt.Sprintf("Maximum number of tasks %s simultaneously (0 to %s)", rolled, several))
	f.DurationVar(&r.delay, verb+"-delay", 0, about("Delay between "+tasks+" (ns|us|ms|s|m|h)", d.Delay))
	f.DurationVar(&r.monitor, verb+"-monitor", 0, about("Duration after each task "+verb+" to monitor for failure (ns|us|ms|s|m|h)", d.Monitor))
	f.StringVar(&r.onFailure, verb+"-failure-action", "", about(onFailure, `"`+d.FailureAction+`"`))
	f.Var(&r.ratio, verb+"-max-failure-ratio", about("Failure rate to tolerate during "+during, d.MaxFailureRatio))
	f.StringVar(&r.order, verb+"-order", "", about(name+` order ("start-first", "stop-first")`, `"`+d.Order+`"`))
}

// apply puts what is given into a configuration; there is none yet if it is nil.
func (r *rollout) apply(f *pflag.FlagSet, verb string, config **wire.UpdateConfig) {
	if !changed(f, verb+"-parallelism", verb+"-delay", verb+"-monitor", verb+"-failure-action", verb+"-max-failure-ratio", verb+"-order") {
		return
	}
	c := defaultRollout
	if *config != nil {
		c = **config
	}
	set(f, verb+"-parallelism", &c.Parallelism, r.parallelism)
	set(f, verb+"-delay", &c.Delay, r.delay)
	set(f, verb+"-monitor", &c.Monitor, r.monitor)
	set(f, verb+"-failure-action", &c.FailureAction, r.onFailure)
	set(f, verb+"-max-failure-ratio", &c.MaxFailureRatio, r.ratio.value)
	set(f, verb+"-order", &c.Order, r.order)
	*config = &c
}
