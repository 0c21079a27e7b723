package container

import (
	"cmp"
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Top lists the processes of the container, as ps of the host prints them with the arguments; none is
// -ef. The output must have a column PID.
func (m *Manager) Top(ctx context.Context, ref, psArgs string) (wire.TopResponse, error) {
	c, err := m.find(ref)
	if err != nil {
		return wire.TopResponse{}, err
	}
	rec, st := c.snapshot()
	if !st.live() {
		return wire.TopResponse{}, notRunningError(&rec)
	}
	pids, err := m.o.Monitor.Pids(ctx, rec.ID)
	if err != nil {
		return wire.TopResponse{}, err
	}
	args := strings.Fields(psArgs)
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", args...).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok { // the first line says what is wrong
		said, _, _ := strings.Cut(strings.TrimSpace(string(failed.Stderr)), "\n")
		return wire.TopResponse{}, fault.New(fault.Invalid, "ps: %s", shortened(cmp.Or(said, failed.Error())))
	}
	if err != nil {
		return wire.TopResponse{}, fault.New(fault.Invalid, "ps %s on the host: %w", shortened(strings.Join(args, " ")), err)
	}
	table, err := processTable(string(out), pids)
	if err == nil {
		m.emit(&rec, "top")
	}
	return table, err
}

// processTable takes the rows of the processes out of the output of ps. The last column may have spaces.
func processTable(out string, pids []int) (wire.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	t := wire.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	at := slices.Index(t.Titles, "PID")
	if at < 0 {
		return t, fault.New(fault.Invalid, "Couldn't find PID field in ps output")
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= at {
			continue
		}
		pid, err := strconv.Atoi(fields[at])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if last := len(t.Titles) - 1; len(fields) > last {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		t.Processes = append(t.Processes, fields)
	}
	return t, nil
}
