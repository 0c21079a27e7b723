package initproc

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

// What is set here belongs to a thread and is kept by execve(2), so the thread that executes the program
// sets it for itself, while it still has the rights that some of it needs (CAP_SYS_NICE).

// attributes sets the execution domain, the scheduling and the memory policy of the program.
func (p *process) attributes(spec *specs.Process) error {
	if p.Spec.Linux != nil {
		if err := setPersonality(p.Spec.Linux.Personality); err != nil {
			return err
		}
		if err := setMemoryPolicy(p.Spec.Linux.MemoryPolicy); err != nil {
			return err
		}
	}
	if err := p.affinity(spec.ExecCPUAffinity); err != nil {
		return err
	}
	if s := spec.Scheduler; s != nil {
		attr, err := SchedAttr(s)
		if err != nil {
			return err
		}
		if err := unix.SchedSetAttr(0, attr, 0); err != nil {
			return fault.New(fault.ClassOf(denied(err)), "process.scheduler: %s: %w", s.Policy, err)
		}
	}
	if io := spec.IOPriority; io != nil {
		value, err := IOPriority(io)
		if err != nil {
			return err
		}
		const thisThread = 1 // IOPRIO_WHO_PROCESS, which means a thread
		if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, thisThread, 0, uintptr(value)); e != 0 {
			return fault.New(fault.ClassOf(denied(e)), "process.ioPriority: %s %d: %w", io.Class, io.Priority, e)
		}
	}
	return nil
}

// affinity sets the CPUs of execCPUAffinity.final. Where nothing is said the program may use all that its cgroup
// has: those of whoever called the runtime, as with taskset(1), are none of its business.
func (p *process) affinity(wanted *specs.CPUAffinity) error {
	if !p.Exec || wanted == nil || wanted.Initial == "" && wanted.Final == "" {
		var all unix.CPUSet
		all.Fill()
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			p.parent.warn("reset the CPU affinity: %v", err)
		}
		return nil
	}
	if wanted.Final == "" {
		return nil
	}
	set, err := CPUSet("process.execCPUAffinity.final", wanted.Final)
	if err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, set); err != nil {
		return fault.New(fault.Invalid, "process.execCPUAffinity.final %q: %w", wanted.Final, err)
	}
	return nil
}

// denied gives a refusal of the host its class.
func denied(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fault.As(fault.Forbidden, err)
	}
	return fault.As(fault.Invalid, err)
}

func setPersonality(of *specs.LinuxPersonality) error {
	if of == nil {
		return nil
	}
	domain, err := Personality(of)
	if err != nil {
		return err
	}
	if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(domain), 0, 0); e != 0 {
		return fmt.Errorf("linux.personality %s: %w", of.Domain, e)
	}
	return nil
}

// Personality is the argument of personality(2). The specification has two domains, and no flags yet.
func Personality(of *specs.LinuxPersonality) (uint32, error) {
	const perLinux, perLinux32 = 0, 8 // linux/personality.h
	if len(of.Flags) > 0 {
		return 0, &fault.Field{Field: "linux.personality.flags", Given: string(of.Flags[0]), Expected: "none: the specification has no flags"}
	}
	switch of.Domain {
	case specs.PerLinux:
		return perLinux, nil
	case specs.PerLinux32:
		return perLinux32, nil
	}
	return 0, &fault.Field{Field: "linux.personality.domain", Given: string(of.Domain), Expected: "LINUX or LINUX32"}
}

// SchedAttr is the argument of sched_setattr(2).
func SchedAttr(s *specs.Scheduler) (*unix.SchedAttr, error) {
	// In the order of their numbers in linux/sched.h.
	policies := []specs.LinuxSchedulerPolicy{
		specs.SchedOther, specs.SchedFIFO, specs.SchedRR, specs.SchedBatch, specs.SchedISO, specs.SchedIdle, specs.SchedDeadline,
	}
	// In the order of their bits there.
	flags := []specs.LinuxSchedulerFlag{
		specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy,
		specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax,
	}
	policy := slices.Index(policies, s.Policy)
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	field := func(name string, given any, expected string) error {
		return &fault.Field{Field: "process.scheduler." + name, Given: fmt.Sprint(given), Expected: expected}
	}
	switch {
	case policy < 0:
		return nil, field("policy", s.Policy, "a policy of sched(7), such as SCHED_OTHER")
	case s.Nice < -20 || s.Nice > 19:
		return nil, field("nice", s.Nice, "a number from -20 to 19")
	case s.Priority != 0 && !realtime:
		return nil, field("priority", s.Priority, "none with "+string(s.Policy)+": it is for SCHED_FIFO and SCHED_RR")
	case realtime && (s.Priority < 1 || s.Priority > 99):
		return nil, field("priority", s.Priority, "a number from 1 to 99")
	case s.Runtime|s.Deadline|s.Period != 0 && s.Policy != specs.SchedDeadline:
		return nil, field("policy", s.Policy, "SCHED_DEADLINE, where runtime, deadline or period is given")
	}
	attr := &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: uint32(policy), Nice: s.Nice, Priority: uint32(s.Priority),
		Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for i, f := range s.Flags {
		bit := slices.Index(flags, f)
		if bit < 0 {
			return nil, field(fmt.Sprintf("flags[%d]", i), f, "a flag of sched_setattr(2), such as SCHED_FLAG_RESET_ON_FORK")
		}
		attr.Flags |= 1 << bit
	}
	return attr, nil
}

// IOPriority is the argument of ioprio_set(2): the class above thirteen bits of priority.
func IOPriority(p *specs.LinuxIOPriority) (int, error) {
	classes := []specs.IOPriorityClass{"", specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE}
	class := slices.Index(classes, p.Class)
	switch {
	case class < 1:
		return 0, &fault.Field{Field: "process.ioPriority.class", Given: string(p.Class), Expected: "IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE"}
	case p.Priority < 0 || p.Priority > 7:
		return 0, &fault.Field{Field: "process.ioPriority.priority", Given: strconv.Itoa(p.Priority), Expected: "a number from 0 to 7"}
	}
	return class<<13 | p.Priority, nil
}

// CPUSet reads a list of CPUs, such as 0-3,7.
func CPUSet(field, list string) (*unix.CPUSet, error) {
	set := &unix.CPUSet{}
	last := len(set)*strconv.IntSize - 1
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err != nil || err2 != nil || from > to || int(to) > last {
			return nil, &fault.Field{Field: field, Given: list, Expected: fmt.Sprintf("numbers and ranges of CPUs up to %d, such as 0-3,7", last)}
		}
		for cpu := from; cpu <= to; cpu++ {
			set.Set(int(cpu))
		}
	}
	return set, nil
}

// mountLabel are the options that give a mount of the spec the SELinux context of linux.mountLabel: new
// filesystems that keep no labels of their own.
func (p *process) mountLabel(kind string, bind bool) []string {
	if p.Spec.Linux.MountLabel == "" || bind || kind != "tmpfs" && kind != "devpts" {
		return nil
	}
	return []string{"context=" + p.Spec.Linux.MountLabel}
}
