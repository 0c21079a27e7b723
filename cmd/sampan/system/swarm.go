package system

import (
	"slices"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/core/wire"
)

// writeSwarm tells the daemon's part in a swarm, and of the swarm itself what a manager knows.
func writeSwarm(line func(format string, args ...any), s *wire.InfoSwarm) {
	line("Swarm: %s", s.LocalNodeState)
	if s.LocalNodeState == "" || s.LocalNodeState == wire.SwarmInactive || s.LocalNodeState == wire.SwarmLocked {
		return
	}
	line(" NodeID: %s", s.NodeID)
	if s.Error != "" {
		line(" Error: %s", s.Error)
	}
	line(" Is Manager: %t", s.ControlAvailable)
	if s.Cluster != nil && s.ControlAvailable && s.Error == "" && s.LocalNodeState != wire.SwarmError {
		writeCluster(line, s)
	}
	line(" Node Address: %s", s.NodeAddr)
	var managers []string
	for _, m := range s.RemoteManagers {
		managers = append(managers, m.Addr)
	}
	if len(managers) > 0 {
		line(" Manager Addresses:")
	}
	slices.Sort(managers)
	for _, address := range managers {
		line("  %s", address)
	}
}

func writeCluster(line func(format string, args ...any), s *wire.InfoSwarm) {
	c := s.Cluster
	line(" ClusterID: %s", c.ID)
	line(" Managers: %d", s.Managers)
	line(" Nodes: %d", s.Nodes)
	if c.DefaultAddrPool != nil {
		pools := ""
		for _, p := range c.DefaultAddrPool {
			pools += p + "  "
		}
		line(" Default Address Pool: %s", pools)
		line(" SubnetSize: %d", c.SubnetSize)
	}
	if c.DataPathPort > 0 {
		line(" Data Path Port: %d", c.DataPathPort)
	}
	history := int64(0)
	if n := c.Spec.Orchestration.TaskHistoryRetentionLimit; n != nil {
		history = *n
	}
	line(" Orchestration:")
	line("  Task History Retention Limit: %d", history)
	line(" Raft:")
	line("  Snapshot Interval: %d", c.Spec.Raft.SnapshotInterval)
	if n := c.Spec.Raft.KeepOldSnapshots; n != nil {
		line("  Number of Old Snapshots to Retain: %d", *n)
	}
	line("  Heartbeat Tick: %d", c.Spec.Raft.HeartbeatTick)
	line("  Election Tick: %d", c.Spec.Raft.ElectionTick)
	line(" Dispatcher:")
	line("  Heartbeat Period: %s", units.HumanDuration(c.Spec.Dispatcher.HeartbeatPeriod))
	line(" CA Configuration:")
	line("  Expiry Duration: %s", units.HumanDuration(c.Spec.CAConfig.NodeCertExpiry))
	line("  Force Rotate: %d", c.Spec.CAConfig.ForceRotate)
	if cert := strings.TrimSpace(c.Spec.CAConfig.SigningCACert); cert != "" {
		line("  Signing CA Certificate: \n%s\n", cert)
	}
	if len(c.Spec.CAConfig.ExternalCAs) > 0 {
		line("  External CAs:")
	}
	for _, ca := range c.Spec.CAConfig.ExternalCAs {
		if fields, ok := ca.(map[string]any); ok {
			line("    %v: %v", fields["Protocol"], fields["URL"])
		}
	}
	line(" Autolock Managers: %t", c.Spec.EncryptionConfig.AutoLockManagers)
	line(" Root Rotation In Progress: %t", c.RootRotationInProgress)
}
