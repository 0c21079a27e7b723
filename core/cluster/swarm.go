package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/sampan-project/sampan/core/cluster/identity"
	"github.com/sampan-project/sampan/core/cluster/store"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

var errAutolock = fault.New(fault.NotImplemented, "AutoLockManagers: locking of managers is not supported by this daemon")

// What a swarm has whose makers say nothing else. Ticks are seconds, as package store has them.
const (
	defaultHistory    = 5
	defaultCertExpiry = 90 * 24 * time.Hour
	minCertExpiry     = time.Hour
	minHeartbeat      = 100 * time.Millisecond
	heartbeatTick     = 1
	electionTick      = 3
	snapshotInterval  = 10000
	slowFollowers     = 500
)

// completeSpec fills in what a spec leaves open.
func completeSpec(s *wire.SwarmSpec) {
	if s.Name == "" {
		s.Name = "default"
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if s.Orchestration.TaskHistoryRetentionLimit == nil {
		limit := int64(defaultHistory)
		s.Orchestration.TaskHistoryRetentionLimit = &limit
	}
	if s.Dispatcher.HeartbeatPeriod == 0 {
		s.Dispatcher.HeartbeatPeriod = defaultHeartbeat
	}
	if s.CAConfig.NodeCertExpiry == 0 {
		s.CAConfig.NodeCertExpiry = defaultCertExpiry
	}
	r := &s.Raft
	for _, d := range []struct {
		field *uint64
		value uint64
	}{{&r.SnapshotInterval, snapshotInterval}, {&r.LogEntriesForSlowFollowers, slowFollowers}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if r.KeepOldSnapshots == nil {
		r.KeepOldSnapshots = new(uint64)
	}
	if r.HeartbeatTick == 0 {
		r.HeartbeatTick = heartbeatTick
	}
	if r.ElectionTick == 0 {
		r.ElectionTick = electionTick
	}
}

// checkSpec refuses what is wrong, and what is not there: nothing is taken and not done.
func checkSpec(s wire.SwarmSpec) error {
	if s.Name != "default" {
		return fault.New(fault.Invalid, `swarm spec must be named "default"`)
	}
	if s.CAConfig.NodeCertExpiry < minCertExpiry {
		return fault.New(fault.Invalid, "minimum certificate expiry time is: %s", "1h0m0s")
	}
	if s.Dispatcher.HeartbeatPeriod < minHeartbeat {
		return &fault.Field{Field: "Dispatcher.HeartbeatPeriod", Given: s.Dispatcher.HeartbeatPeriod.String(), Expected: "at least " + minHeartbeat.String()}
	}
	if *s.Orchestration.TaskHistoryRetentionLimit < 0 {
		return &fault.Field{Field: "Orchestration.TaskHistoryRetentionLimit", Given: fmt.Sprint(*s.Orchestration.TaskHistoryRetentionLimit), Expected: "0 or more"}
	}
	switch {
	case s.EncryptionConfig.AutoLockManagers:
		return errAutolock
	case len(s.CAConfig.ExternalCAs) > 0:
		return fault.New(fault.NotImplemented, "CAConfig.ExternalCAs: external certificate authorities are not supported by this daemon")
	case s.CAConfig.SigningCACert != "" || s.CAConfig.SigningCAKey != "":
		return fault.New(fault.NotImplemented, "CAConfig.SigningCACert: a swarm's root certificate cannot be exchanged in this daemon")
	case s.CAConfig.ForceRotate != 0:
		return fault.New(fault.NotImplemented, "CAConfig.ForceRotate: a swarm's root certificate cannot be exchanged in this daemon")
	}
	return checkRaft(s.Raft)
}

// checkRaft refuses settings of the log that are not the ones it has.
func checkRaft(r wire.SwarmRaft) error {
	for _, f := range []struct {
		field    string
		given    uint64
		expected uint64
	}{
		{"Raft.KeepOldSnapshots", *r.KeepOldSnapshots, 0}, {"Raft.HeartbeatTick", uint64(r.HeartbeatTick), heartbeatTick}, {"Raft.ElectionTick", uint64(r.ElectionTick), electionTick},
	} {
		if f.given != f.expected {
			return fault.New(fault.NotImplemented, "%s %d: the log of a swarm's managers has %d and nothing else in this daemon", f.field, f.given, f.expected)
		}
	}
	return nil
}

// InspectSwarm is the swarm with its join tokens.
func (m *Manager) InspectSwarm(context.Context) (wire.Swarm, error) {
	s, err := m.leading()
	if err != nil {
		return wire.Swarm{}, err
	}
	c := s.store.Reader().Cluster()
	if c == nil {
		return wire.Swarm{}, errPreparing
	}
	return wire.Swarm{SwarmInfo: c.SwarmInfo, JoinTokens: wire.SwarmTokens{Worker: c.WorkerToken, Manager: c.ManagerToken}}, nil
}

// UpdateSwarm changes what users decide of the swarm, and makes join tokens anew.
func (m *Manager) UpdateSwarm(ctx context.Context, version uint64, spec wire.SwarmSpec, rotate wire.SwarmRotation) error {
	s, err := m.leading()
	if err != nil {
		return err
	}
	completeSpec(&spec)
	if err := checkSpec(spec); err != nil {
		return err
	}
	if rotate.ManagerUnlockKey {
		return errAutolock
	}
	return s.update(ctx, func(w store.Writer) error {
		c := w.Cluster()
		if c == nil {
			return errPreparing
		}
		if err := outOfSequence(version, c.Version.Index); err != nil {
			return err
		}
		changed := *c
		changed.Spec, changed.LongestCert = spec, longestCert(c)
		authority := identity.Authority{Cert: c.RootCert, Key: c.RootKey}
		if rotate.WorkerToken {
			if changed.WorkerToken, err = identity.NewToken(authority); err != nil {
				return err
			}
		}
		if rotate.ManagerToken {
			if changed.ManagerToken, err = identity.NewToken(authority); err != nil {
				return err
			}
		}
		w.PutCluster(&changed)
		return nil
	})
}
