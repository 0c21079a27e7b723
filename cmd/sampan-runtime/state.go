package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/runtime"
)

// state is the specification's, with the fields that runc adds.
type state struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

func (p *program) stateOf(c *runtime.Container) (state, error) {
	s, err := c.State()
	if err != nil {
		return state{}, err
	}
	out := state{
		Version: s.Version, ID: s.ID, Pid: s.Pid, Status: string(s.Status), Bundle: s.Bundle,
		Created: c.Created().UTC(), Annotations: s.Annotations, Owner: p.owner(s.ID),
	}
	if root := c.Spec().Root; root != nil {
		out.Rootfs = root.Path
		if !filepath.IsAbs(out.Rootfs) {
			out.Rootfs = filepath.Join(s.Bundle, out.Rootfs)
		}
	}
	return out, nil
}

// owner is the name of the user whose directory the container's is.
func (p *program) owner(id string) string {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(p.root, id), &st); err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "#" + uid
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func stateFlags(p *program, _ *pflag.FlagSet) action {
	return func(args []string) error {
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		s, err := p.stateOf(c)
		if err != nil {
			return err
		}
		return printJSON(s)
	}
}

func listFlags(p *program, f *pflag.FlagSet) action {
	format := f.StringP("format", "f", "table", "table or json")
	quiet := f.BoolP("quiet", "q", false, "print IDs only")
	return func([]string) error {
		r, err := p.runtime(false)
		if err != nil {
			return err
		}
		if p.rootGiven {
			if _, err := os.Stat(p.root); err != nil {
				return fmt.Errorf("--root: %w", err) // a slip of the pen would be an empty list
			}
		}
		containers, err := r.List()
		if err != nil {
			return err
		}
		list := []state{}
		for _, c := range containers {
			s, err := p.stateOf(c)
			if fault.Is(err, fault.NotFound) {
				continue // deleted meanwhile
			}
			if err != nil {
				return err
			}
			list = append(list, s)
		}
		switch {
		case *quiet:
			for _, s := range list {
				fmt.Println(s.ID)
			}
			return nil
		case *format == "json":
			return json.NewEncoder(os.Stdout).Encode(list)
		case *format == "table":
			return printTable(list)
		}
		return &fault.Field{Field: "--format", Given: *format, Expected: "table or json"}
	}
}

func printTable(list []state) error {
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
	}
	return w.Flush()
}

func psFlags(p *program, f *pflag.FlagSet) action {
	format := f.StringP("format", "f", "table", "table or json")
	return func(args []string) error {
		c, err := p.load(args[0])
		if err != nil {
			return err
		}
		pids, err := c.Pids()
		if err != nil {
			return err
		}
		switch *format {
		case "json":
			if pids == nil {
				pids = []int{}
			}
			return json.NewEncoder(os.Stdout).Encode(pids)
		case "table":
			return printProcesses(pids, args[1:])
		}
		return &fault.Field{Field: "--format", Given: *format, Expected: "table or json"}
	}
}

// printProcesses prints the lines of the host's ps(1) that are about the processes.
func printProcesses(pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ps: %w: %s", err, strings.TrimSpace(string(out)))
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fault.New(fault.Invalid, "couldn't find PID field in ps output")
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if column >= len(fields) {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}
