package network

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/wire"
)

func TestPools(t *testing.T) {
	tests := []struct {
		subnets, ranges, gateways string
		auxiliary                 map[string]string
		want                      []wire.IPAMConfig
		fails                     string
	}{
		{"", "", "", nil, []wire.IPAMConfig{}, ""},
		{"10.1.0.0/16 fd00::/64", "10.1.5.0/24", "fd00::1 10.1.0.1", map[string]string{"h": "10.1.0.9"}, []wire.IPAMConfig{
			{Subnet: "10.1.0.0/16", IPRange: "10.1.5.0/24", Gateway: "10.1.0.1", AuxiliaryAddresses: map[string]string{"h": "10.1.0.9"}},
			{Subnet: "fd00::/64", Gateway: "fd00::1"},
		}, ""},
		{"10.300.0.0/16", "", "", nil, nil, "10.300.0.0/16"},
		{"10.1.0.0/16 10.1.2.0/24", "", "", nil, nil, "do not overlap"},
		{"10.1.0.0/16", "", "10.2.0.1", nil, nil, "10.2.0.1"},
		{"10.1.0.0/16", "10.1.5.0", "", nil, nil, "--ip-range"},
		{"", "", "10.1.0.1", nil, nil, "must have a corresponding subnet"},
		{"10.1.0.0/16 10.2.0.0/16", "", "10.1.0.1 10.1.0.2", nil, nil, "multiple gateways"},
	}
	for _, tt := range tests {
		o := createOptions{subnets: words(tt.subnets), ranges: words(tt.ranges), gateways: words(tt.gateways), auxiliary: cli.Map{Values: tt.auxiliary}}
		got, err := o.pools()
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: %v", tt.subnets, err)
			}
		} else if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", tt.subnets, err, diff)
		}
	}
}

func words(s string) cli.List { return cli.List{Values: strings.Fields(s)} }

// A driver's option without "=" is its driver's to judge; an address or an IPAM option has a value.
func TestBareOptions(t *testing.T) {
	for line, wrong := range map[string]bool{"--opt key": false, "--opt =v": true, "--aux-address key": true, "--ipam-opt key": true} {
		if err := newCreate(&cli.CLI{}).ParseFlags(strings.Fields(line)); (err != nil) != wrong {
			t.Errorf("%s: %v", line, err)
		}
	}
}
