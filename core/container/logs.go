package container

import (
	"context"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// logTime is the time before a line: RFC 3339 with all nine digits, so that columns line up.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

// Logs writes what the container wrote, in frames unless it has a terminal. With Follow it goes on
// until the container has ended.
func (m *Manager) Logs(ctx context.Context, ref string, o LogOptions, w io.Writer) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	return m.writeLogs(ctx, c, o, w)
}

func (m *Manager) writeLogs(ctx context.Context, c *Container, o LogOptions, w io.Writer) error {
	rec, _ := c.snapshot()
	path := m.logPath(&rec)
	if path == "" {
		return fault.New(fault.NotImplemented, "configured logging driver does not support reading")
	}
	q := jsonlog.Query{Path: path, Tail: o.Tail, Since: o.Since, Until: o.Until}
	if ended := c.running(); o.Follow && ended != nil {
		q.Follow, q.Ended = true, ended
	}
	out := logOutput{w: w, framed: !rec.Config.Tty, o: o}
	for e, err := range jsonlog.Read(ctx, q) {
		if err == nil {
			err = out.write(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// logOutput writes entries as clients want them.
type logOutput struct {
	w      io.Writer
	framed bool
	o      LogOptions
	line   []byte
}

func (l *logOutput) write(e *jsonlog.Entry) error {
	stderr := e.Stream == jsonlog.Stderr
	if stderr && !l.o.Stderr || !stderr && !l.o.Stdout {
		return nil
	}
	l.line = append(l.line[:0], make([]byte, frameHeader)...)
	if l.o.Timestamps {
		l.line = e.Time.UTC().AppendFormat(l.line, logTime)
		l.line = append(l.line, ' ')
	}
	if l.o.Details {
		l.line = append(l.line, details(e.Attrs)...)
		l.line = append(l.line, ' ')
	}
	l.line = append(l.line, e.Log...)
	if !l.framed {
		_, err := l.w.Write(l.line[frameHeader:])
		return err
	}
	l.line[0] = 1
	if stderr {
		l.line[0] = 2
	}
	binary.BigEndian.PutUint32(l.line[4:], uint32(len(l.line)-frameHeader))
	_, err := l.w.Write(l.line)
	return err
}

func details(attributes map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(attributes)) {
		parts = append(parts, k+"="+attributes[k])
	}
	return strings.Join(parts, ",")
}
