package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/network"
)

// engineFiles are the files that the engine keeps in the container's directory and binds into it.
var engineFiles = []struct{ name, target string }{
	{"resolv.conf", "/etc/resolv.conf"},
	{"hostname", "/etc/hostname"},
	{"hosts", "/etc/hosts"},
}

// filePath is the host's path of an engine file. Containers that share a network namespace share the
// files of its owner.
func (m *Manager) filePath(rec *record, name string) string {
	id := rec.ID
	if ref, ok := spec.Joined(rec.Host.NetworkMode); ok {
		if other, err := m.find(ref); err == nil {
			id = other.id
		}
	}
	return filepath.Join(m.directory(id), name)
}

// writeFiles writes the files of a container that is about to start. They are written in place: what
// bound the old ones sees the new contents.
func (m *Manager) writeFiles(rec *record, s *network.Sandbox) error {
	if _, joined := spec.Joined(rec.Host.NetworkMode); joined {
		return nil
	}
	if err := m.writeFile(rec.ID, "hostname", []byte(rec.Config.Hostname+"\n")); err != nil {
		return err
	}
	if err := m.writeNetworkFiles(rec.ID, s); err != nil {
		return err
	}
	for _, f := range engineFiles {
		if err := giveToRoot(filepath.Join(m.directory(rec.ID), f.name), m.remap(&rec.Host)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) writeNetworkFiles(id string, s *network.Sandbox) error {
	hosts := s.Hosts
	if c, err := m.find(id); err == nil {
		rec, _ := c.snapshot()
		if list, err := m.links(&rec, false); err == nil && len(list) > 0 {
			hosts = withLinks(hosts, list)
		}
	}
	if err := m.writeFile(id, "hosts", hosts); err != nil {
		return err
	}
	return m.writeFile(id, "resolv.conf", s.ResolvConf)
}

// 0644: the container's processes read them as whatever user they are.
func (m *Manager) writeFile(id, name string, data []byte) error {
	path := filepath.Join(m.directory(id), name)
	crash.Point("before writing", name)
	defer crash.Point("after writing", name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("container %s: %w", id[:12], err)
	}
	return os.Chmod(path, 0o644) // whatever the daemon's umask is
}

// fileMounts binds the engine's files where the user has put nothing.
func (m *Manager) fileMounts(rec *record) (mounts []specs.Mount) {
	for _, f := range engineFiles {
		if slices.ContainsFunc(rec.Mounts, func(p mountPoint) bool { return p.Destination == f.target }) {
			continue
		}
		mounts = append(mounts, specs.Mount{Destination: f.target, Type: "bind", Source: m.filePath(rec, f.name), Options: []string{"rbind", "rprivate"}})
	}
	return mounts
}
