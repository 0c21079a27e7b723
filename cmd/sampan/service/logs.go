package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

// logOptions are the flags of logs.
type logOptions struct {
	client.LogOptions
	noResolve, noTaskIDs, full, raw, details bool
}

func newLogs(c *cli.CLI) *cobra.Command {
	var o logOptions
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] SERVICE|TASK", Short: "Fetch the logs of a service or task", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Since, err = cli.Timestamp("--since", o.Since, time.Now()); err != nil {
				return err
			}
			err = o.run(cmd.Context(), c, args[0])
			if cmd.Context().Err() != nil {
				return context.Cause(cmd.Context())
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.details, "details", false, "Show extra details provided to logs")
	f.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	f.BoolVar(&o.noResolve, "no-resolve", false, "Do not map IDs to Names in output")
	f.BoolVar(&o.noTaskIDs, "no-task-ids", false, "Do not include task IDs in output")
	f.BoolVar(&o.full, "no-trunc", false, "Do not truncate output")
	f.BoolVar(&o.raw, "raw", false, "Do not neatly format logs")
	f.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	return cmd
}

func (o *logOptions) run(ctx context.Context, c *cli.CLI, name string) error {
	engine, err := c.Client()
	if err != nil {
		return err
	}
	tty, width, open, err := o.target(ctx, engine, name)
	if err != nil {
		return err
	}
	if tty && !o.raw {
		return fault.New(fault.Invalid, "tty service logs only supported with --raw")
	}
	o.Stdout, o.Stderr = true, true
	o.Details = o.details || !o.raw // they say which task a line is of
	stream, err := open(ctx, name, o.LogOptions)
	if err != nil {
		return err
	}
	defer stream.Close()
	switch {
	case tty:
		_, err = io.Copy(c.Out, stream)
		return err
	case o.raw:
		_, err = client.StdCopy(c.Out, c.Err, stream)
		return err
	}
	p := &prefixer{logOptions: o, engine: engine, names: task.NewNames(engine, o.noResolve), width: width, known: map[source]string{}, open: map[source]bool{}}
	return client.EachFrame(stream, func(isError bool, frame []byte) error {
		text, err := p.line(ctx, isError, frame)
		if err != nil {
			return err
		}
		out := c.Out
		if isError {
			out = c.Err
		}
		_, err = out.Write(text)
		return err
	})
}

// target finds the service or the task whose logs are asked for, how wide the numbers of its slots are, and how its
// logs are opened.
func (o *logOptions) target(ctx context.Context, engine *client.Client, name string) (tty bool, width int, open func(context.Context, string, client.LogOptions) (io.ReadCloser, error), err error) {
	service, err := engine.ServiceInspect(ctx, name)
	if err == nil {
		width = 1
		if r := service.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
			width = len(strconv.FormatUint(*r.Replicas, 10))
		}
		k := service.Spec.TaskTemplate.ContainerSpec
		return k != nil && k.TTY, width, engine.ServiceLogs, nil
	}
	if !fault.Is(err, fault.NotFound) {
		return false, 0, nil, err
	}
	t, err := engine.TaskInspect(ctx, name)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "no such task or service: %s", name)
	}
	if err != nil {
		return false, 0, nil, err
	}
	return t.Spec.ContainerSpec != nil && t.Spec.ContainerSpec.TTY, digits(t.Slot), engine.TaskLogs, nil
}

// prefixer puts before each line which task said it.
type prefixer struct {
	*logOptions
	engine *client.Client
	names  *task.Names
	width  int               // of the numbers of slots
	known  map[source]string // what stands before the lines of a task
	open   map[source]bool   // its last line has not ended yet
}

// source is one stream of a task.
type source struct {
	node, service, task string
	isError             bool
}

// The details of a line that tell its task.
const (
	detailNode    = "com.docker.swarm.node.id"
	detailService = "com.docker.swarm.service.id"
	detailTask    = "com.docker.swarm.task.id"
)

// line is a frame as it is printed. It is "[TIME ]DETAILS TEXT", where the details are NAME=VALUE between commas,
// escaped as in a URL's query.
func (p *prefixer) line(ctx context.Context, isError bool, frame []byte) ([]byte, error) {
	var when []byte
	rest, ok := frame, true
	if p.Timestamps {
		when, rest, ok = bytes.Cut(rest, []byte(" "))
	}
	told, text, cut := bytes.Cut(rest, []byte(" "))
	if !ok || !cut {
		return nil, fmt.Errorf("invalid context in log message: %q", frame)
	}
	details, err := parseDetails(string(told))
	if err != nil {
		return nil, err
	}
	from := source{details[detailNode], details[detailService], details[detailTask], isError}
	if from.node == "" || from.service == "" || from.task == "" {
		return nil, fmt.Errorf("the log's line does not tell its node, service and task: %q", told)
	}
	continued := p.open[from]
	p.open[from] = !bytes.HasSuffix(text, []byte("\n"))
	if continued {
		return text, nil
	}
	prefix, err := p.prefix(ctx, from)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if p.Timestamps {
		b.Write(when)
		b.WriteByte(' ')
	}
	b.WriteString(prefix + "    | ")
	if p.details {
		for _, own := range []string{detailNode, detailService, detailTask} {
			delete(details, own)
		}
		var pairs []string
		for _, name := range slices.Sorted(maps.Keys(details)) {
			pairs = append(pairs, name+"="+details[name])
		}
		b.WriteString(strings.Join(pairs, ",") + " ")
	}
	b.Write(text)
	return b.Bytes(), nil
}

func parseDetails(s string) (map[string]string, error) {
	details := map[string]string{}
	if s == "" {
		return details, nil
	}
	for pair := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		if !ok || nameErr != nil || valueErr != nil {
			return nil, fmt.Errorf("invalid details in log message: %q", s)
		}
		details[name] = value
	}
	return details, nil
}

// prefix is SERVICE.SLOT.TASK@NODE, padded so that the lines of all slots begin at one place.
func (p *prefixer) prefix(ctx context.Context, from source) (string, error) {
	if text, ok := p.known[from]; ok {
		return text, nil
	}
	t, err := p.engine.TaskInspect(ctx, from.task)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%s.%d", p.names.Service(ctx, from.service), t.Slot)
	switch {
	case p.noTaskIDs:
	case p.full:
		text += "." + t.ID
	default:
		text += "." + cli.Short(t.ID)
	}
	text += "@" + p.names.Node(ctx, from.node) + strings.Repeat(" ", max(p.width-digits(t.Slot), 0))
	p.known[from] = text
	return text, nil
}
