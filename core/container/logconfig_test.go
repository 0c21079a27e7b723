package container

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/monitor"
	"github.com/sampan-project/sampan/core/monitor/journal"
	"github.com/sampan-project/sampan/core/wire"
)

type opts = map[string]string

func TestValidateLog(t *testing.T) {
	const address, tls = "syslog-address", "tcp+tls://127.0.0.1:6514"
	for _, c := range []struct {
		driver string
		opts   opts
		want   string // of the error; "" is none
	}{
		{"json-file", opts{"max-size": "1m", "max-file": "2", "compress": "true"}, ""},
		{"json-file", opts{"compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"json-file", opts{"max-size": "1m", "compress": "true"}, "compress cannot be true"},
		{"json-file", opts{"compress": "yes"}, `log opt compress "yes"`},
		{"local", opts{"max-file": "1", "compress": "true"}, "compress cannot be true"},
		{"local", opts{"max-file": "1"}, ""},
		{"journald", opts{"cache-compress": "true"}, ""},
		{"journald", opts{"compress": "true"}, "unknown log opt 'compress' for journald log driver"},
		{"syslog", opts{address: tls, "syslog-tls-ca-cert": "/ca", "syslog-tls-cert": "/c", "syslog-tls-key": "/k", "syslog-tls-skip-verify": "true"}, ""},
		{"syslog", opts{address: tls, "syslog-tls-cert": "/c"}, "expected both or none"},
		{"syslog", opts{address: tls, "syslog-tls-ca-cert": "ca.pem"}, "absolute path"},
		{"syslog", opts{address: tls, "syslog-tls-skip-verify": "1x"}, "true or false"},
		{"syslog", opts{address: "tcp://127.0.0.1", "syslog-tls-ca-cert": "/ca"}, "tcp+tls://"},
		{"json-file", opts{"mode": "blocking", "max-buffer-size": "4m"}, "only supported with mode=non-blocking"},
		{"json-file", opts{"mode": "sometimes"}, "blocking or non-blocking"},
		{"json-file", opts{"labels": "a,b", "labels-regex": "^c", "env": "E", "env-regex": "^F", "tag": "{{.Name}}"}, ""},
		{"json-file", opts{"labels-regex": "("}, "log opt labels-regex"},
		{"json-file", opts{"tag": "{{.Nothing}}"}, "log opt tag"},
		{"fluentd", opts{"fluentd-address": "127.0.0.1:24224"}, "one of journald, json-file, local, none, syslog"},
		{"none", opts{"max-size": "1m"}, "unknown log opt 'max-size' for none log driver"},
	} {
		err := ValidateLog(wire.LogConfig{Type: c.driver, Config: c.opts})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %q", c.driver, c.opts, err, c.want)
		}
	}
}

// What the monitor is told of the options.
func TestLogConfig(t *testing.T) {
	const megabyte = 1 << 20
	for _, c := range []struct {
		driver string
		opts   opts
		want   monitor.LogConfig
	}{
		{"json-file", opts{"max-size": "1m", "max-file": "3"}, monitor.LogConfig{MaxSize: megabyte, MaxFile: 3}},
		{"json-file", opts{"max-size": "1m", "max-file": "3", "compress": "true"}, monitor.LogConfig{MaxSize: megabyte, MaxFile: 3, Compress: true}},
		{"local", nil, monitor.LogConfig{MaxSize: 20 * megabyte, MaxFile: 5, Compress: true}},
		{"local", opts{"compress": "false", "mode": "non-blocking", "max-buffer-size": "2m"}, monitor.LogConfig{MaxSize: 20 * megabyte, MaxFile: 5, Buffer: 2 * megabyte}},
		{"json-file", opts{"tag": `{{upper .Name}}/{{join (split .ImageName ":") "-"}}/{{truncate .ID 3}}{{pad "x" 1 2}}`}, monitor.LogConfig{Tag: "WEB/busybox-1/abc x  ",
			Attributes: opts{"tag": "WEB/busybox-1/abc x  "}}},
		{"syslog", opts{"syslog-address": "tcp+tls://h", "syslog-tls-ca-cert": "/ca", "syslog-tls-skip-verify": "true"}, monitor.LogConfig{MaxSize: 20 * megabyte, MaxFile: 5,
			Compress: true, Address: "tcp+tls://h", Facility: journal.DefaultFacility, Tag: "abcdefabcdef", TLS: &journal.TLS{CA: "/ca", SkipVerify: true}}},
	} {
		rec := &record{ID: strings.Repeat("abcdef", 10), Name: "web"}
		rec.Config.Image, rec.Host.LogConfig = "busybox:1", wire.LogConfig{Type: c.driver, Config: c.opts}
		m := &Manager{}
		got := m.logConfig(rec)
		got.Path, c.want.Driver = "", c.driver
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s %v: %s", c.driver, c.opts, diff)
		}
	}
}
