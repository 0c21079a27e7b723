package server

import (
	"errors"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/journal"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// openLog opens the log, or returns nil when none is wanted.
func openLog(o monitor.LogConfig) (log jsonlog.Log, err error) {
	switch o.Driver {
	case "", "none":
		return nil, nil
	case "json-file", "local":
		log, err = openFile(o)
	case "syslog":
		s := journal.Syslog{Address: o.Address, Facility: o.Facility, Format: o.Format, Tag: o.Tag}
		if o.TLS != nil {
			s.TLS = *o.TLS
		}
		log, err = journal.OpenSyslog(s)
		log, err = withCopy(log, err, o)
	case "journald":
		log, err = journal.OpenJournal(journal.Socket, o.Tag, o.Fields)
		log, err = withCopy(log, err, o)
	default:
		return nil, fault.New(fault.Invalid, "log driver %q: expected json-file, local, syslog, journald or none", o.Driver)
	}
	if err != nil {
		return nil, err
	}
	if o.Buffer > 0 {
		log = jsonlog.NewRing(log, o.Buffer)
	}
	return log, nil
}

func openFile(o monitor.LogConfig) (jsonlog.Log, error) {
	w, err := jsonlog.Open(jsonlog.Options{Path: o.Path, MaxSize: o.MaxSize, MaxFile: o.MaxFile, Attrs: o.Attributes, Compress: o.Compress})
	if err != nil {
		return nil, err // not a nil *Writer in the interface
	}
	return w, nil
}

// withCopy keeps what is sent elsewhere in a file too, where one is wanted.
func withCopy(log jsonlog.Log, err error, o monitor.LogConfig) (jsonlog.Log, error) {
	if err != nil || o.Path == "" {
		return log, err
	}
	file, err := openFile(o)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return jsonlog.Tee{file, log}, nil
}
