package service

import (
	"testing"

	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/core/client"
)

func TestLine(t *testing.T) {
	const told = "com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t"
	web := source{node: "n", service: "s", task: "t"}
	tests := []struct {
		o           logOptions
		frame, want string // "": it is refused
	}{
		{logOptions{}, told + " hello world\n", "web.1.t@vm    | hello world\n"},
		{logOptions{}, told + " \n", "web.1.t@vm    | \n"},
		{logOptions{details: true}, told + ",b=2,a=%2C1 x\n", "web.1.t@vm    | a=,1,b=2 x\n"},
		{logOptions{details: true}, told + " x\n", "web.1.t@vm    |  x\n"},
		{logOptions{LogOptions: client.LogOptions{Timestamps: true}}, "2026-01-01T00:00:00Z " + told + " x\n", "2026-01-01T00:00:00Z web.1.t@vm    | x\n"},
		{logOptions{}, "x\n", ""},
		{logOptions{}, "a=b x\n", ""},
		{logOptions{}, "a%zz=b x\n", ""},
		{logOptions{LogOptions: client.LogOptions{Timestamps: true}}, told + "\n", ""},
	}
	for _, tt := range tests {
		p := &prefixer{logOptions: &tt.o, names: task.NewNames(nil, true), known: map[source]string{web: "web.1.t@vm"}, open: map[source]bool{}}
		got, err := p.line(t.Context(), false, []byte(tt.frame))
		if string(got) != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%q: %q, %v, expected %q", tt.frame, got, err, tt.want)
		}
	}
	// A line in parts has what stands before it once.
	p := &prefixer{logOptions: &logOptions{}, known: map[source]string{web: "web"}, open: map[source]bool{}}
	all := ""
	for _, part := range []string{"a", "b\n", "c\n"} {
		text, err := p.line(t.Context(), false, []byte(told+" "+part))
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	if all != "web    | ab\nweb    | c\n" {
		t.Errorf("%q", all)
	}
}
