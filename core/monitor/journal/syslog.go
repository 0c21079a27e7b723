package journal

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// Syslog says where and how entries are sent.
type Syslog struct {
	Address  string // see ParseAddress
	Facility int    // RFC 5424, section 6.2.1
	Format   string // see Formats
	Tag      string
	TLS      TLS // of a tcp+tls address
}

// Formats are the formats of a message: "" is what syslog(3) sends to /dev/log, rfc3164 has the host's
// name too, and the last has six digits of a second.
var Formats = []string{"", "rfc3164", "rfc5424", "rfc5424micro"}

// Facilities are the names of the facilities, in the order of their numbers (RFC 5424, section 6.2.1).
var Facilities = []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

// DefaultFacility is daemon, Docker's.
const DefaultFacility = 3

// OpenSyslog connects to the logger.
func OpenSyslog(o Syslog) (jsonlog.Log, error) {
	network, address, err := ParseAddress(o.Address)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	m := message{o: o, host: host, pid: strconv.Itoa(os.Getpid()), stream: network == "tcp" || network == "unix" || network == secure}
	r := &remote{network: network, address: address, tls: o.TLS, encode: m.encode, stream: m.stream}
	log, err := r.connect()
	if err != nil && o.Address == "" { // some hosts' /dev/log is a stream
		r.network, m.stream = "unix", true
		r.encode = m.encode
		if again, streamErr := r.connect(); streamErr == nil {
			return again, nil
		}
	}
	return log, err
}

// message makes messages.
type message struct {
	o         Syslog
	host, pid string
	stream    bool // a line ends each: RFC 6587, section 3.4.2
}

func (m message) encode(b, text []byte, s jsonlog.Stream, t time.Time) []byte {
	text = bytes.TrimRight(text, "\n")
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(m.o.Facility*8+priority(s)), 10)
	b = append(b, '>')
	switch m.o.Format {
	case "rfc5424", "rfc5424micro":
		layout := time.RFC3339
		if m.o.Format == "rfc5424micro" {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = append(b, "1 "...)
		b = t.AppendFormat(b, layout)
		for _, field := range []string{m.host, m.o.Tag, m.pid, m.o.Tag, "-"} { // APP-NAME, PROCID, MSGID, no structured data
			b = append(append(b, ' '), field...)
		}
		b = append(b, ' ')
	default:
		b = t.Local().AppendFormat(b, time.Stamp)
		b = append(b, ' ')
		if m.o.Format == "rfc3164" {
			b = append(append(b, m.host...), ' ')
		}
		b = append(append(append(append(b, m.o.Tag...), '['), m.pid...), "]: "...)
	}
	b = append(b, text...)
	if m.stream {
		b = append(b, '\n')
	}
	return b
}

// ParseFacility reads the name or the number of a facility.
func ParseFacility(text string) (int, error) {
	if text == "" {
		return DefaultFacility, nil
	}
	for i, name := range Facilities {
		if name == text {
			return i, nil
		}
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(Facilities) {
		return n, nil
	}
	return 0, &fault.Field{Field: "log opt syslog-facility", Given: text, Expected: "a name such as daemon or local0, or a number from 0 to 23", Nearest: fault.Nearest(text, Facilities)}
}
