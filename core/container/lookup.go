package container

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/sampan-project/sampan/core/container/name"
	"github.com/sampan-project/sampan/core/fault"
)

// noSuch is the error for a reference that no container answers to; clients match on its words.
func noSuch(ref string) error { return fault.New(fault.NotFound, "No such container: %s", ref) }

// find returns the container that ref means: its id, its name, or a prefix of its id that no other has.
func (m *Manager) find(ref string) (*Container, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c, err := m.lookup(ref)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// lookup is find for callers that have the lock.
func (m *Manager) lookup(ref string) (*Container, error) {
	ref = strings.TrimPrefix(ref, "/")
	if ref == "" {
		return nil, fault.New(fault.Invalid, `invalid name or ID supplied: ""`)
	}
	if c, ok := m.byID[ref]; ok {
		return m.visible(c, ref)
	}
	if c, ok := m.names[ref]; ok {
		return m.visible(c, ref)
	}
	if !hexPattern.MatchString(ref) {
		return nil, noSuch(ref)
	}
	var found *Container
	for id, c := range m.byID {
		if !strings.HasPrefix(id, ref) {
			continue
		}
		if found != nil {
			return nil, fault.New(fault.Invalid, "multiple IDs found with provided prefix: %s", ref)
		}
		found = c
	}
	if found == nil {
		return nil, noSuch(ref)
	}
	return m.visible(found, ref)
}

// visible hides a container whose Create has not ended.
func (m *Manager) visible(c *Container, ref string) (*Container, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reserved {
		return nil, noSuch(ref)
	}
	return c, nil
}

var hexPattern = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// namePattern is Docker's: one letter is not enough.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// maxName keeps a name usable as a host name in other containers' hosts files, and bounds it.
const maxName = 255

func validName(given string) error {
	if len(given) > maxName || !namePattern.MatchString(given) {
		return fault.New(fault.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", shortened(given))
	}
	return nil
}

// shortened bounds what of hostile input is repeated in an error.
func shortened(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}

// newID returns 64 hex digits. One that is a decimal number when cut to 12 digits is refused, as a
// host name that is a number confuses programs.
func newID() string {
	for {
		var b [32]byte
		rand.Read(b[:]) // never fails
		id := hex.EncodeToString(b[:])
		if strings.Trim(id[:12], "0123456789") != "" {
			return id
		}
	}
}

// reserve puts the container under its name, or a generated one when it has none, into the maps. It
// stays hidden until its Create ends.
func (m *Manager) reserve(c *Container) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.rec.Name == "" {
		c.rec.Name = name.Generate(func(n string) bool { return m.names[n] != nil })
	}
	if other := m.names[c.rec.Name]; other != nil {
		return nameConflict(c.rec.Name, other)
	}
	c.reserved = true
	m.names[c.rec.Name] = c
	m.byID[c.rec.ID] = c
	return nil
}

func nameConflict(n string, other *Container) error {
	return fault.New(fault.Conflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+n, other.id)
}

// release takes the container out of the maps.
func (m *Manager) release(c *Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[c.rec.Name] == c {
		delete(m.names, c.rec.Name)
	}
	delete(m.byID, c.id)
	for id, e := range m.execs {
		if e.container == c {
			delete(m.execs, id)
		}
	}
}

// all returns the containers that are there, in no order.
func (m *Manager) all() []*Container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*Container, 0, len(m.byID))
	for _, c := range m.byID {
		list = append(list, c)
	}
	return list
}
