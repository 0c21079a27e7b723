package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/wire"
)

func TestRow(t *testing.T) {
	root := wire.SwarmTLSInfo{TrustRoot: "root"}
	swarm := &wire.SwarmInfo{TLSInfo: root}
	manager := func(leader bool) *wire.ManagerStatus {
		return &wire.ManagerStatus{Leader: leader, Reachability: "reachable"}
	}
	tests := []struct {
		node wire.Node
		here wire.InfoSwarm
		want row
	}{
		{wire.Node{ID: "a"}, wire.InfoSwarm{NodeID: "b"}, row{ID: "a", TLSStatus: "Unknown"}},
		{
			wire.Node{ID: "a", Spec: wire.NodeSpec{Availability: "drain"}, Status: wire.NodeStatus{State: "ready"}, ManagerStatus: manager(true), Description: wire.NodeDescription{Hostname: "h", TLSInfo: root}},
			wire.InfoSwarm{NodeID: "a", Cluster: swarm}, row{Availability: "Drain", Hostname: "h", ID: "a", ManagerStatus: "Leader", Self: true, Status: "Ready", TLSStatus: "Ready"},
		},
		{
			wire.Node{ID: "a", ManagerStatus: manager(false), Description: wire.NodeDescription{TLSInfo: wire.SwarmTLSInfo{TrustRoot: "other"}}},
			wire.InfoSwarm{Cluster: swarm}, row{ID: "a", ManagerStatus: "Reachable", TLSStatus: "Needs Rotation"},
		},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, newRow(&tt.node, &tt.here)); diff != "" {
			t.Error(diff)
		}
	}
}
