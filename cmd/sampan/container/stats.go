package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

// usage is one container as stats shows it, in the order of Docker's JSON.
type usage struct {
	BlockIO   string
	CPUPerc   string
	Container string
	ID        string
	MemPerc   string
	MemUsage  string
	Name      string
	NetIO     string
	PIDs      string
}

var usageListing = cli.Listing[usage]{
	Columns: []cli.Column[usage]{
		{Head: "CONTAINER ID", Value: func(u usage) string { return u.ID }},
		{Head: "NAME", Value: func(u usage) string { return u.Name }},
		{Head: "CPU %", Value: func(u usage) string { return u.CPUPerc }},
		{Head: "MEM USAGE / LIMIT", Value: func(u usage) string { return u.MemUsage }},
		{Head: "MEM %", Value: func(u usage) string { return u.MemPerc }},
		{Head: "NET I/O", Value: func(u usage) string { return u.NetIO }},
		{Head: "BLOCK I/O", Value: func(u usage) string { return u.BlockIO }},
		{Head: "PIDS", Value: func(u usage) string { return u.PIDs }},
	},
	Headers: cli.Headers{
		"BlockIO": "BLOCK I/O", "CPUPerc": "CPU %", "Container": "CONTAINER", "ID": "CONTAINER ID", "MemPerc": "MEM %",
		"MemUsage": "MEM USAGE / LIMIT", "Name": "NAME", "NetIO": "NET I/O", "PIDs": "PIDS",
	},
}

func newStats(c *cli.CLI) *cobra.Command {
	var all, once, full bool
	var format string
	cmd := &cobra.Command{
		Use: "stats [OPTIONS] [CONTAINER...]", Short: "Display a live stream of container(s) resource usage statistics",
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			if format == "" {
				if config, err := c.Config(); err == nil {
					format = config.StatsFormat
				}
			}
			w := watcher{cli: c, engine: engine, all: all, full: full, format: format, latest: map[string]usage{}}
			if once {
				return w.once(cmd.Context(), args)
			}
			return w.stream(cmd.Context(), args)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	f.StringVar(&format, "format", "", cli.FormatHelp)
	f.BoolVar(&once, "no-stream", false, "Disable streaming stats and only pull the first result")
	f.BoolVar(&full, "no-trunc", false, "Do not truncate output")
	return cli.Also(cmd, "sampan container stats, sampan stats")
}

// watcher collects the statistics of containers.
type watcher struct {
	cli       *cli.CLI
	engine    *client.Client
	all, full bool
	format    string

	mu     sync.Mutex
	latest map[string]usage // by the name that was asked for
}

// targets are the containers of the arguments, or all.
func (w *watcher) targets(ctx context.Context, args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	list, err := w.engine.ContainerList(ctx, client.ListOptions{All: w.all})
	var ids []string
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	return ids, err
}

func (w *watcher) once(ctx context.Context, args []string) error {
	ids, err := w.targets(ctx, args)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, len(ids))
	for i, id := range ids {
		all.Go(func() {
			errs[i] = w.engine.ContainerStats(ctx, id, false, func(s wire.Stats) error { w.put(id, s); return nil })
		})
	}
	all.Wait()
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == len(ids) && len(ids) > 0 {
		return cli.Join(errs)
	}
	return errors.Join(w.print(ids), cli.Join(errs))
}

// stream prints every second, until it is interrupted or the containers that were named are gone.
// Without names it follows what is started and stopped.
func (w *watcher) stream(ctx context.Context, args []string) error {
	following := map[string]bool{}
	ended := make(chan string, 16)
	failures := make(chan error, 1)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for first := true; ; first = false {
		ids, err := w.targets(ctx, args)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if following[id] || !first && len(args) > 0 {
				continue
			}
			following[id] = true
			go func() {
				err := w.engine.ContainerStats(ctx, id, true, func(s wire.Stats) error { w.put(id, s); return nil })
				if err != nil && len(args) > 0 && ctx.Err() == nil {
					select {
					case failures <- err:
					default:
					}
				}
				ended <- id
			}()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-failures:
			return err
		case id := <-ended:
			delete(following, id)
			if len(args) > 0 && len(following) == 0 {
				return nil
			}
			continue
		case <-ticker.C:
		}
		if w.cli.Out.IsTerminal() {
			fmt.Fprint(w.cli.Out, "\x1b[2J\x1b[H")
		}
		if err := w.print(ids); err != nil {
			return err
		}
	}
}

func (w *watcher) put(id string, s wire.Stats) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latest[id] = newUsage(id, s, w.full)
}

func (w *watcher) print(ids []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rows := make([]usage, 0, len(ids))
	for _, id := range ids {
		if u, ok := w.latest[id]; ok {
			rows = append(rows, u)
		}
	}
	return usageListing.Write(w.cli.Out, w.format, rows)
}

func newUsage(asked string, s wire.Stats, full bool) usage {
	u := usage{Container: asked, ID: s.ID, Name: strings.TrimPrefix(s.Name, "/")}
	if !full {
		u.ID = cli.Short(u.ID)
	}
	if asked == s.ID { // nobody named it: it is one of the list
		u.Container = cli.Short(s.ID)
	}
	memory := usedMemory(s.MemoryStats)
	u.CPUPerc = fmt.Sprintf("%.2f%%", cpuPercent(s))
	u.MemUsage = units.BytesSize(float64(memory)) + " / " + units.BytesSize(float64(s.MemoryStats.Limit))
	u.MemPerc = "0.00%"
	if s.MemoryStats.Limit > 0 {
		u.MemPerc = fmt.Sprintf("%.2f%%", float64(memory)/float64(s.MemoryStats.Limit)*100)
	}
	var in, out, read, written uint64
	for _, n := range s.Networks {
		in, out = in+n.RxBytes, out+n.TxBytes
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			read += e.Value
		case "write":
			written += e.Value
		}
	}
	u.NetIO, u.BlockIO = cli.Size(int64(in))+" / "+cli.Size(int64(out)), cli.Size(int64(read))+" / "+cli.Size(int64(written))
	u.PIDs = fmt.Sprint(s.PidsStats.Current)
	return u
}

// cpuPercent is the share of one processor that was used between two samples: two that are busy are 200.
func cpuPercent(s wire.Stats) float64 {
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	host := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if used <= 0 || host <= 0 || s.PreCPUStats.SystemUsage == 0 {
		return 0
	}
	return used / host * cpus * 100
}

// usedMemory leaves out the page cache that the kernel can drop at once: total_inactive_file in cgroup
// v1, inactive_file in v2.
func usedMemory(m wire.MemoryStats) uint64 {
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if cache, ok := m.Stats[name]; ok && cache < m.Usage {
			return m.Usage - cache
		}
	}
	return m.Usage
}
