package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// place is a machine and a user, and what became of the programs there.
type place struct {
	Kernel   string // with major and minor version
	Unified  bool   // it has cgroup v2 alone
	Rootless bool
	Sides    []string // names of the runtimes
	Versions []string // what they say of themselves
	Rows     []row
}

// row is what became of one program, with each of the runtimes.
type row struct {
	Program string
	Results []result
}

// The runtimes that the verdict is about. A third one is shown and no more.
const runc, ours = "runc", "ours"

// labelVar names the place in what is printed.
const labelVar = "CONFORMANCE_PLACE"

// runAll runs programs with each of the runtimes where we are.
func (s *suite) runAll(ctx context.Context, sides []side, programs []string, timeout time.Duration) (place, error) {
	p := place{Rootless: os.Geteuid() != 0}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return p, err
	}
	version := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	p.Kernel = "Linux " + strings.Join(version[:min(2, len(version))], ".")
	var fs unix.Statfs_t
	p.Unified = unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
	for _, side := range sides {
		p.Sides, p.Versions = append(p.Sides, side.name), append(p.Versions, versionOf(ctx, side.program))
	}
	p.Rows = make([]row, len(programs))
	// The programs about cgroups share one, so they run one after the other, beside the rest.
	errs := [2]error{}
	var wait sync.WaitGroup
	for i, group := range []bool{true, false} {
		wait.Go(func() {
			for at, program := range programs {
				if usesCgroup(program) == group && errs[i] == nil {
					p.Rows[at], errs[i] = s.runRow(ctx, sides, program, timeout)
				}
			}
		})
	}
	wait.Wait()
	return p, errors.Join(errs[:]...)
}

// usesCgroup reports whether a program makes its containers in the path that all such programs use.
func usesCgroup(program string) bool {
	return strings.HasPrefix(program, "linux_cgroups_") || strings.HasPrefix(program, "delete")
}

// attempts is how often a program is run at most.
const attempts = 3

// runRow runs one program with each of the runtimes, and with those that it fails with again as long as
// it passes with another: some programs are races, which a busy machine decides.
func (s *suite) runRow(ctx context.Context, sides []side, program string, timeout time.Duration) (row, error) {
	r := row{Program: program}
	line := fmt.Sprintf("%s %-32s", os.Getenv(labelVar), program)
	r.Results = make([]result, len(sides))
	for attempt := range attempts {
		for i, side := range sides {
			if attempt > 0 && (r.Results[i].passed() || !slices.ContainsFunc(r.Results, result.passed)) {
				continue
			}
			var err error
			if r.Results[i], err = s.run(ctx, program, side.name, side.program, timeout); err != nil {
				return r, fmt.Errorf("%s with %s: %w", program, side.name, err)
			}
		}
	}
	for i, side := range sides {
		line += fmt.Sprintf(" %s %-24s", side.name, r.Results[i])
	}
	fmt.Println(strings.TrimSpace(line))
	return r, nil
}

// guest is what runs in the virtual machine: the suite is built, and what comes out is written as JSON.
func guest(ctx context.Context, o options) error {
	sides, err := o.sides()
	if err != nil {
		return err
	}
	s := &suite{dir: o.dir, outputs: strings.TrimSuffix(o.outcome, ".json")}
	if err := os.MkdirAll(s.outputs, 0o755); err != nil { //nolint:gosec // to be read
		return err
	}
	p, err := s.runAll(ctx, sides, o.only, o.timeout)
	if err != nil {
		return err
	}
	return p.save(o.outcome)
}

func (p place) save(name string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o644) //nolint:gosec // another user reads it
}

// of is the result with a runtime: none that passed when it was not run.
func (p place) of(r row, name string) result {
	for i, side := range p.Sides {
		if side == name {
			return r.Results[i]
		}
	}
	return result{Status: 1}
}

func (p place) count(name string) (n int) {
	for _, r := range p.Rows {
		if p.of(r, name).passed() {
			n++
		}
	}
	return n
}

// title names the place in the document.
func (p place) title() string {
	cgroups, user := "cgroup v1", "root"
	if p.Unified {
		cgroups = "cgroup v2"
	}
	if p.Rootless {
		user = "an ordinary user"
	}
	return fmt.Sprintf("%s, %s, as %s", p.Kernel, cgroups, user)
}

func (p place) summary() string {
	var list []string
	for _, name := range p.Sides {
		list = append(list, fmt.Sprintf("%d with %s", p.count(name), name))
	}
	return fmt.Sprintf("%s: of %d programs pass %s", p.title(), len(p.Rows), strings.Join(list, ", "))
}

// verdict is an error that names what is not as it must be.
func (p place) verdict(causes causes, whole bool) error {
	var behind, unexplained []string
	for _, r := range p.Rows {
		switch {
		case p.of(r, ours).passed():
		case p.of(r, runc).passed():
			behind = append(behind, r.Program)
		case causes.of(p, r.Program) == "":
			unexplained = append(unexplained, r.Program)
		}
	}
	var errs []error
	if len(behind) > 0 {
		errs = append(errs, fmt.Errorf("%s: passed with runc and not with ours: %s", p.title(), strings.Join(behind, " ")))
	}
	if len(unexplained) > 0 {
		errs = append(errs, fmt.Errorf("%s: causes.tsv does not explain why ours fails: %s", p.title(), strings.Join(unexplained, " ")))
	}
	if whole && p.count(ours) <= p.count(runc) {
		errs = append(errs, fmt.Errorf("%s: no more programs pass with ours than with runc", p.title()))
	}
	return errors.Join(errs...)
}
