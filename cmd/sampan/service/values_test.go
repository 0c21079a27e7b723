package service

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		in   string
		want []string
		open bool
	}{
		{"", nil, false},
		{"  \t ", nil, false},
		{"a b\tc\nd", []string{"a", "b", "c", "d"}, false},
		{`'a b' "c d" e\ f`, []string{"a b", "c d", "e f"}, false},
		{`a'b'"c"d`, []string{"abcd"}, false},
		{`'' "" x`, []string{"", "", "x"}, false},
		{`"a \" b" 'c \'`, []string{`a " b`, `c \`}, false},
		{"a # b\nc d#e", []string{"a", "c", "d#e"}, false},
		{"# all", nil, false},
		{`a 'b`, nil, true},
		{`a "b\"`, nil, true},
		{`a \`, nil, true},
	}
	for _, tt := range tests {
		got, closed := split(tt.in)
		if diff := cmp.Diff(tt.want, got); diff != "" || closed == tt.open {
			t.Errorf("%q: closed %t %s", tt.in, closed, diff)
		}
	}
}

func tcp(published, target uint32) wire.ServicePort {
	return wire.ServicePort{Protocol: "tcp", TargetPort: target, PublishedPort: published, PublishMode: wire.PublishIngress}
}

func TestPorts(t *testing.T) {
	tests := []struct {
		in   string
		want []wire.ServicePort // nil: an error
	}{
		{"80", []wire.ServicePort{tcp(0, 80)}},
		{"8080:80", []wire.ServicePort{tcp(8080, 80)}},
		{"8080:80/udp", []wire.ServicePort{{Protocol: "udp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress"}}},
		{"8000-8001:80-81", []wire.ServicePort{tcp(8000, 80), tcp(8001, 81)}},
		{"8000-8001:80", []wire.ServicePort{tcp(8000, 80), tcp(8001, 80)}},
		{"target=80", []wire.ServicePort{tcp(0, 80)}},
		{"Target=80,published=81,protocol=SCTP,mode=host", []wire.ServicePort{{Protocol: "sctp", TargetPort: 80, PublishedPort: 81, PublishMode: "host"}}},
		{"", nil},
		{"127.0.0.1:80:80", nil},
		{"a:80", nil},
		{"70000:80", nil},
		{"1-3:5-6", nil},
		{"80/icmp", nil},
		{"published=80", nil},
		{"target=0", nil},
		{"target=70000", nil},
		{"target=80,published=x", nil},
		{"target=80,mode=other", nil},
		{"target=80,protocol=icmp", nil},
		{"target=80,nothing=1", nil},
	}
	for _, tt := range tests {
		var p ports
		err := p.Set(tt.in)
		if diff := cmp.Diff(tt.want, p.values); diff != "" || (err != nil) != (tt.want == nil) {
			t.Errorf("%q: %v %s", tt.in, err, diff)
		}
		if err != nil && strings.ContainsRune(err.Error(), '\n') {
			t.Errorf("%q: %v", tt.in, err)
		}
	}
}

func TestPortText(t *testing.T) {
	udp := func(published, target uint32) wire.ServicePort {
		p := tcp(published, target)
		p.Protocol = "udp"
		return p
	}
	host := tcp(1, 1)
	host.PublishMode = wire.PublishHost
	tests := []struct {
		want  string
		ports []wire.ServicePort
	}{
		{"", nil},
		{"", []wire.ServicePort{host}},
		{"*:8080->80/tcp", []wire.ServicePort{tcp(8080, 80), host}},
		{"*:80-81->80-81/tcp, *:80->80/udp", []wire.ServicePort{udp(80, 80), tcp(81, 81), tcp(80, 80)}},
		{"*:80-82->80/tcp", []wire.ServicePort{tcp(80, 80), tcp(81, 80), tcp(82, 80)}},
		{"*:80-81->80/tcp, *:82->81/tcp", []wire.ServicePort{tcp(80, 80), tcp(81, 80), tcp(82, 81)}},
		{"*:80-81->80-81/tcp, *:82->81/tcp", []wire.ServicePort{tcp(80, 80), tcp(81, 81), tcp(82, 81)}},
		{"*:80->80/tcp, *:82->82/tcp", []wire.ServicePort{tcp(82, 82), tcp(80, 80)}},
	}
	for _, tt := range tests {
		if got := portText(tt.ports); got != tt.want {
			t.Errorf("%q, expected %q", got, tt.want)
		}
	}
}

func TestEditPorts(t *testing.T) {
	udp := wire.ServicePort{Protocol: "udp", TargetPort: 53, PublishedPort: 53, PublishMode: "ingress"}
	got := editPorts([]wire.ServicePort{tcp(8080, 80), tcp(8081, 81), udp}, []wire.ServicePort{tcp(0, 80), tcp(0, 53)}, []wire.ServicePort{tcp(8081, 81), tcp(90, 90)})
	if diff := cmp.Diff([]wire.ServicePort{udp, tcp(8081, 81), tcp(90, 90)}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFiles(t *testing.T) {
	f := files{kind: "secret"}
	for _, s := range []string{"a", "source=b,target=t,uid=1,gid=2,mode=0400", "src=c"} {
		if err := f.Set(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	want := []file{
		{"a", wire.FileTarget{Name: "a", UID: "0", GID: "0", Mode: 0o444}}, {"b", wire.FileTarget{Name: "t", UID: "1", GID: "2", Mode: 0o400}},
		{"c", wire.FileTarget{Name: "c", UID: "0", GID: "0", Mode: 0o444}},
	}
	if diff := cmp.Diff(want, f.values, cmp.AllowUnexported(file{})); diff != "" {
		t.Error(diff)
	}
	for _, s := range []string{"", "target=x", "source=a,mode=x", "source=a,x=y", "source=a,uid", `"`} {
		if err := f.Set(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
	if err := f.Set("source=d,target=a"); err != nil {
		t.Error(err)
	}
	if _, err := f.names(); err == nil || err.Error() != "duplicate secret target for d not allowed" {
		t.Error(err)
	}
}

func TestDomain(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a"
	for given, want := range map[string]string{
		".": ".", "example.com": "example.com", " Example.com. ": "Example.com", "a-b.c1": "a-b.c1", long: long,
		"": "", "1.2": "", "-a": "", "a-.b": "", "a..b": "", "a_b": "", "a b": "", long + ".b": "",
	} {
		if got, err := checkDomain(given); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v, expected %q", given, got, err, want)
		}
	}
}
