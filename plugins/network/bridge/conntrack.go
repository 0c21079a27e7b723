package main

import (
	"github.com/sampan-project/sampan/plugins/sdk"
)

func (d *driver) forgetUnpublished(e sdk.Endpoint) {}

func (d *driver) forgetEndpoint(n bridgeNetwork, e sdk.Endpoint) {
	l, err := d.host.linkByName(bridgeName(n))
	if err != nil || l == nil {
		return
	}
	var requests []request
	for _, a := range e.Addresses {
		requests = append(requests, deleteNeighbour(l.index, a.Addr()))
	}
	d.host.do(requests...)
}
