package task

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

// LabelOwner names the process that runs the script, so that the next script can tell whether it is
// still there: BOOT:PID NAMESPACE:PID:START TIME. No other process ever has the same four.
const LabelOwner = "sh.sampan.script.owner"

// sweepTimeout bounds the sweep: a script does not wait long for what others left.
const sweepTimeout = 20 * time.Second

// place is where process numbers mean something: this boot of this machine, and the PID namespace.
func place() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + ":" + strings.Trim(strings.TrimPrefix(namespace, "pid:"), "[]")
}

// startTime is when the process began, in ticks of this boot (proc_pid_stat(5), field 22).
func startTime(pid string) (string, error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("process %s: expected 52 fields in its stat, got %d", pid, len(fields)+2)
	}
	return fields[19], nil
}

// owner is LabelOwner's value for this process; "" where there is no /proc, and then nothing is swept.
func owner() string {
	here, pid := place(), fmt.Sprint(os.Getpid())
	start, err := startTime(pid)
	if here == "" || err != nil {
		return ""
	}
	return here + ":" + pid + ":" + start
}

// gone reports that the owner ran here and has ended. Of another machine, another boot or another
// container nothing can be said.
func gone(owner string) bool {
	here := place()
	process, ok := strings.CutPrefix(owner, here+":")
	if here == "" || !ok {
		return false
	}
	pid, start, ok := strings.Cut(process, ":")
	if !ok || strings.Trim(pid, "0123456789") != "" || pid == "" {
		return false
	}
	now, err := startTime(pid)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return now != start
}

// sweep removes what scripts left that were killed on this machine. What cannot be removed is left
// to the next one: it is not this script's failure.
func (r *runner) sweep(ctx context.Context) {
	if r.owner == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	labelled := client.Filters{"label": {LabelOwner}}
	containers, networks := 0, 0
	list, _ := r.engine.ContainerList(ctx, client.ListOptions{All: true, Filters: labelled}) // without it there is nothing to sweep
	for _, c := range list {
		if gone(c.Labels[LabelOwner]) && r.engine.ContainerRemove(ctx, c.ID, client.RemoveOptions{Force: true, Volumes: true}) == nil {
			containers++
		}
	}
	nets, _ := r.engine.NetworkList(ctx, labelled)
	for _, n := range nets {
		if !gone(n.Labels[LabelOwner]) {
			continue
		}
		if err := r.engine.NetworkRemove(ctx, n.ID); err == nil || fault.Is(err, fault.NotFound) {
			networks++
		}
	}
	if containers+networks > 0 && r.o.Stderr != nil {
		fmt.Fprintf(r.o.Stderr, "removed what killed scripts left: %d containers, %d networks\n", containers, networks)
	}
}
