package service

import (
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// restart is the flags of when a task that ended is replaced.
type restart struct {
	condition     string
	delay, window time.Duration
	maxAttempts   count
}

// defaultRestartDelay is how long a task's replacement waits when nothing is said (swarmkit's defaults of a service).
const defaultRestartDelay = 5 * time.Second

func (r *restart) addFlags(f *pflag.FlagSet, about func(string, any) string) {
	f.StringVar(&r.condition, "restart-condition", "", about(`Restart when condition is met ("none", "on-failure", "any")`, `"`+wire.RestartAny+`"`))
	f.DurationVar(&r.delay, "restart-delay", 0, about("Delay between restart attempts (ns|us|ms|s|m|h)", defaultRestartDelay))
	f.Var(&r.maxAttempts, "restart-max-attempts", "Maximum number of restarts before giving up")
	f.DurationVar(&r.window, "restart-window", 0, "Window used to evaluate the restart policy (ns|us|ms|s|m|h)")
}

// apply puts what is given into a policy; there is none yet if it is nil.
func (r *restart) apply(f *pflag.FlagSet, policy **wire.TaskRestart) {
	if !changed(f, "restart-condition", "restart-delay", "restart-max-attempts", "restart-window") {
		return
	}
	delay, attempts := defaultRestartDelay, uint64(0)
	p := wire.TaskRestart{Condition: wire.RestartAny, Delay: &delay, MaxAttempts: &attempts}
	if *policy != nil {
		p = **policy
	}
	set(f, "restart-condition", &p.Condition, r.condition)
	set(f, "restart-delay", &p.Delay, &r.delay)
	set(f, "restart-max-attempts", &p.MaxAttempts, r.maxAttempts.value)
	set(f, "restart-window", &p.Window, &r.window)
	*policy = &p
}

// health is the flags of how a task's health is checked.
type health struct {
	command                                       string
	interval, timeout, startPeriod, startInterval positive
	retries                                       int
	none                                          bool
}

func (h *health) addFlags(f *pflag.FlagSet) {
	f.StringVar(&h.command, "health-cmd", "", "Command to run to check health")
	f.Var(&h.interval, "health-interval", "Time between running the check (ms|s|m|h)")
	f.Var(&h.timeout, "health-timeout", "Maximum time to allow one check to run (ms|s|m|h)")
	f.IntVar(&h.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.Var(&h.startPeriod, "health-start-period", "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)")
	f.Var(&h.startInterval, "health-start-interval", "Time between running the check during the start period (ms|s|m|h)")
	f.BoolVar(&h.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

// apply puts what is given into a check; there is none yet if it is nil.
func (h *health) apply(f *pflag.FlagSet, check **wire.Healthcheck) error {
	given := changed(f, "health-cmd", "health-interval", "health-timeout", "health-retries", "health-start-period", "health-start-interval")
	switch {
	case h.none && given:
		return fault.New(fault.Invalid, "--no-healthcheck conflicts with --health-* options")
	case h.none:
		*check = &wire.Healthcheck{Test: []string{"NONE"}}
		return nil
	case !given && !f.Changed("no-healthcheck"):
		return nil
	}
	var c wire.Healthcheck
	if *check != nil {
		c = **check
	}
	if len(c.Test) > 0 && c.Test[0] == "NONE" {
		c.Test = nil
	}
	set(f, "health-interval", &c.Interval, int64(h.interval.value))
	set(f, "health-timeout", &c.Timeout, int64(h.timeout.value))
	set(f, "health-start-period", &c.StartPeriod, int64(h.startPeriod.value))
	set(f, "health-start-interval", &c.StartInterval, int64(h.startInterval.value))
	set(f, "health-retries", &c.Retries, h.retries)
	if f.Changed("health-cmd") {
		if c.Test = nil; h.command != "" {
			c.Test = []string{"CMD-SHELL", h.command}
		}
	}
	*check = &c
	return nil
}

// checkLabel is the check of labels: NAME[=VALUE], where the name has no blanks.
func checkLabel(s string) (string, error) {
	name, _, _ := strings.Cut(s, "=")
	if name = strings.TrimLeft(name, " \t"); name == "" || strings.ContainsAny(name, " \t") {
		return "", &fault.Field{Given: s, Expected: "NAME=VALUE, with a name without spaces"}
	}
	return s, nil
}

// checkDomain is the check of search domains, of letters, digits and hyphens between dots (RFC 1035, 2.3.1); "." is
// none.
func checkDomain(s string) (string, error) {
	s = strings.Trim(s, " ")
	if s == "." {
		return s, nil
	}
	domain := strings.TrimSuffix(s, ".")
	letter := false
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			return "", &fault.Field{Given: s, Expected: "a domain such as example.com"}
		}
		letter = letter || strings.Trim(label, "-0123456789") != ""
	}
	if !letter || len(domain) > 254 {
		return "", &fault.Field{Given: s, Expected: "a domain such as example.com"}
	}
	return domain, nil
}
