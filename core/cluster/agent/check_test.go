package agent

import (
	"strings"
	"testing"

	"github.com/sampan-project/sampan/core/wire"
)

func TestCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		spec wire.ContainerSpec
		err  string
	}{
		"right":          {wire.ContainerSpec{Image: "busybox", Hostname: "{{.Node.Hostname}}-{{.Task.Slot}}", Env: []string{`ZONE={{index .Service.Labels "zone"}}`}}, ""},
		"unknown name":   {wire.ContainerSpec{Image: "busybox", Env: []string{"a={{.Foo}}"}}, `expanding env failed: expanding env "a={{.Foo}}": template: expansion:1:2: executing "expansion" at <.Foo>: can't evaluate field Foo`},
		"not a template": {wire.ContainerSpec{Image: "busybox", Hostname: "{{.Node.ID"}, "expanding hostname failed: template: expansion:1: unclosed action"},
		"not supported":  {wire.ContainerSpec{Image: "busybox", Secrets: []*wire.TaskSecret{{}}}, "ContainerSpec.Secrets: secrets are not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := wire.ServiceSpec{Annotations: wire.Annotations{Labels: map[string]string{"zone": "north"}}}
			spec.TaskTemplate.ContainerSpec = &tt.spec
			err := Check(&spec)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, tt.err) || (tt.err == "") != (got == "") {
				t.Errorf("%q, want %q", got, tt.err)
			}
		})
	}
}
