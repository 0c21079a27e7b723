package network

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Remove removes a network that no container is in.
func (m *Manager) Remove(ctx context.Context, ref string) error {
	e, err := m.condemn(ctx, ref)
	if err != nil {
		return err
	}
	if err := m.destroy(ctx, e); err != nil {
		return fmt.Errorf("error while removing network: %w", err)
	}
	m.o.Events("destroy", e.ID, map[string]string{"name": e.Name, "type": e.Driver})
	return nil
}

// destroy ends a network that was condemned, or pardons it with its error.
func (m *Manager) destroy(ctx context.Context, e *entry) (err error) {
	if e.ConfigOnly {
		err = m.networks.Delete(e.ID)
		m.destroyed(e, err == nil)
		return err
	}
	driver, err := m.use(ctx, e.Driver)
	if err != nil {
		m.destroyed(e, false)
		return err
	}
	leave := m.pass(e.Driver)
	// The driver first: were the row gone and this failed, nobody could ask again. A crash between
	// the two leaves the row, and Reconcile makes the network again: it was not said to be removed.
	if err = driver.DeleteNetwork(ctx, e.forDriver()); err == nil {
		err = m.networks.Delete(e.ID)
	}
	// Before a Reconcile: one that leaves the network out has the driver remove what now stays.
	m.destroyed(e, err == nil)
	leave()
	if err != nil {
		m.again(e.Driver)
	}
	return err
}

// destroyed ends what condemn began. How much a driver has removed that failed nobody knows: whoever joins a
// network that stays has it made again.
func (m *Manager) destroyed(e *entry, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if gone {
		delete(m.entries, e.ID)
	} else {
		e.removing, e.made = false, false
	}
}

// condemn marks the network so that nobody joins it any more.
func (m *Manager) condemn(ctx context.Context, ref string) (*entry, error) {
	for {
		m.mu.Lock()
		e, err := m.find(ref)
		switch {
		case err != nil:
		case e.Default:
			err = fault.New(fault.Forbidden, "%s is a pre-defined network and cannot be removed", e.Name)
		case e.ConfigOnly && len(m.copies(e.Name)) > 0:
			err = fault.New(fault.Forbidden, "configuration network %q is in use by %s", e.Name, strings.Join(m.copies(e.Name), ", "))
		case e.removing:
			err = fault.New(fault.Conflict, "network %s is being removed already", e.Name)
		default:
			if users := m.inUse(e.ID); users != nil {
				err = fault.New(fault.Forbidden, "error while removing network: network %s has active endpoints (%s)", e.Name, strings.Join(users, ", "))
			}
		}
		if err != nil {
			m.mu.Unlock()
			return nil, err
		}
		if l := m.detaching(e.ID); l != nil {
			m.mu.Unlock()
			if err := l.wait(ctx); err != nil {
				return nil, err
			}
			continue
		}
		e.removing = true
		m.mu.Unlock()
		return e, nil
	}
}

// inUse names the containers on a network; nil is none. The caller holds mu.
func (m *Manager) inUse(networkID string) (users []string) {
	for id, sb := range m.joined {
		for _, ep := range sb.Endpoints {
			if ep.NetworkID == networkID {
				users = append(users, fmt.Sprintf("name:%q id:%q", sb.Name, id[:min(12, len(id))]))
			}
		}
	}
	slices.Sort(users)
	return users
}

// detaching returns a leave by which a driver still detaches an endpoint from the network, or nil. The caller holds mu.
func (m *Manager) detaching(networkID string) *departure {
	for _, sb := range m.leaving {
		for _, ep := range sb.Endpoints {
			if ep.NetworkID == networkID {
				return sb.leave
			}
		}
	}
	return nil
}

// pruneFilters are those of POST /networks/prune.
var pruneFilters = []string{"label", "label!", "until"}

// Prune removes the networks that users made and no container is in.
func (m *Manager) Prune(ctx context.Context, filters map[string][]string) (wire.NetworksPrune, error) {
	var answer wire.NetworksPrune
	before := time.Now()
	for _, key := range slices.Sorted(maps.Keys(filters)) {
		if !slices.Contains(pruneFilters, key) {
			return answer, unknownFilter(key, pruneFilters)
		}
	}
	if values := filters["until"]; len(values) > 1 {
		return answer, fault.New(fault.Invalid, "more than one until filter specified")
	} else if len(values) == 1 {
		var err error
		if before, err = parseUntil(values[0], before); err != nil {
			return answer, err
		}
	}
	var candidates []Network
	m.mu.RLock()
	for _, e := range m.entries {
		if !e.Default && !e.removing && m.inUse(e.ID) == nil && len(m.copies(e.Name)) == 0 && e.Created.Before(before) && prunable(e.Labels, filters) {
			candidates = append(candidates, e.Network)
		}
	}
	m.mu.RUnlock()
	slices.SortFunc(candidates, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range candidates {
		if err := m.Remove(ctx, n.ID); err != nil {
			if ctx.Err() != nil {
				return answer, ctx.Err()
			}
			// One that somebody joined in the meantime, or that its driver does not let go: the
			// others are pruned all the same, as Docker does it.
			m.log.Warn("prune network", "network", n.Name, "error", err)
			continue
		}
		answer.NetworksDeleted = append(answer.NetworksDeleted, n.Name)
	}
	m.o.Events("prune", "", map[string]string{"reclaimed": "0"}) // the words of the other nouns' prune
	return answer, nil
}

func prunable(labels map[string]string, filters map[string][]string) bool {
	for _, want := range filters["label"] {
		if !labelled(labels, want) {
			return false
		}
	}
	for _, unwanted := range filters["label!"] {
		if labelled(labels, unwanted) {
			return false
		}
	}
	return true
}

// parseUntil reads a Unix time, an RFC 3339 time or a duration before now.
func parseUntil(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < 1<<40 {
		whole := int64(seconds)
		return time.Unix(whole, int64((seconds-float64(whole))*1e9)), nil
	}
	return now, &fault.Field{Field: "until", Given: shortened(text), Expected: "a time such as 2026-01-02T15:04:05, or a duration such as 24h"}
}
