package journal

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// Socket is where systemd's journal listens (systemd-journald.service(8)).
const Socket = "/run/systemd/journal/socket"

// OpenJournal connects to the journal. Every entry has the fields, whose names are upper case letters,
// digits and underscores; tag is the identifier by which `journalctl -t` finds it.
func OpenJournal(socket, tag string, fields map[string]string) (jsonlog.Log, error) {
	var common []byte
	all := maps.Clone(fields)
	if all == nil {
		all = map[string]string{}
	}
	all["SYSLOG_IDENTIFIER"] = tag
	for _, name := range slices.Sorted(maps.Keys(all)) {
		common = appendField(common, name, []byte(all[name]))
	}
	encode := func(b, text []byte, s jsonlog.Stream, t time.Time) []byte {
		b = append(b, common...)
		b = appendField(b, "PRIORITY", strconv.AppendInt(nil, int64(priority(s)), 10))
		b = appendField(b, "SYSLOG_TIMESTAMP", t.UTC().AppendFormat(nil, time.RFC3339Nano))
		line, whole := bytes.CutSuffix(text, []byte("\n"))
		if !whole {
			b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
		}
		return appendField(b, "MESSAGE", line)
	}
	return (&remote{network: "unixgram", address: socket, encode: encode}).connect()
}

// appendField appends a field as the journal's native protocol has it: NAME=value, or with the length
// of a value that has a line end (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(append(b, '='), value...)
		return append(b, '\n')
	}
	b = append(b, '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	return append(append(b, value...), '\n')
}

// FieldName makes a field's name of what a user calls it: upper case, "_" for what the journal does not
// take. A leading "_" is the journal's own.
func FieldName(text string) string {
	b := bytes.TrimLeft(bytes.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		}
		return '_'
	}, []byte(text)), "_")
	return string(b[:min(len(b), 64)])
}
