package container

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// link is one of Docker's legacy links: a container's name in the hosts file of another, and, on the
// default network, what it exposes in the other's environment.
type link struct{ source, alias string }

// parseLink reads "name", "name:alias", or "/name:/owner/alias" as inspect shows it.
func parseLink(text string) (link, error) {
	source, alias, has := strings.Cut(text, ":")
	source = strings.TrimPrefix(source, "/")
	if !has {
		alias = source
	}
	alias = alias[strings.LastIndexByte(alias, '/')+1:]
	if source == "" || alias == "" || strings.Contains(alias, ":") || strings.ContainsAny(alias, " \t\r\n=\x00") {
		return link{}, &fault.Field{Field: "--link", Given: shortened(text), Expected: "NAME or NAME:ALIAS"}
	}
	return link{source, alias}, nil
}

// validateLinks finds the containers, and writes the links as Docker shows them.
func (m *Manager) validateLinks(rec *record) error {
	h := &rec.Host
	if e := rec.Wanted[h.NetworkMode]; e != nil && len(e.Links) > 0 { // where clients put them for a network of the user's
		for _, text := range e.Links {
			if !slices.Contains(h.Links, text) {
				h.Links = append(h.Links, text)
			}
		}
		own := *e
		own.Links = nil
		rec.Wanted[h.NetworkMode] = &own
	}
	if len(h.Links) == 0 {
		return nil
	}
	if !ownNetworks(h.NetworkMode) {
		return fault.New(fault.Invalid, "conflicting options: %s type networking can't be used with links. This would result in undefined behavior", strings.SplitN(h.NetworkMode, ":", 2)[0])
	}
	for _, text := range h.Links {
		l, err := parseLink(text)
		if err != nil {
			return err
		}
		source, err := m.find(l.source)
		if err != nil {
			return fault.New(fault.Invalid, "could not get container for %s: %w", shortened(l.source), err)
		}
		if other, _ := source.snapshot(); other.Host.NetworkMode == "host" {
			return fault.New(fault.Invalid, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
	}
	return nil
}

// linked is a link that holds: to a container that runs, at its address.
type linked struct {
	link
	rec     record
	address string
}

// links are those of the container whose other ends run. With must one that does not is an error, as
// at a start with Docker.
func (m *Manager) links(rec *record, must bool) ([]linked, error) {
	var list []linked
	for _, text := range rec.Host.Links {
		l, err := parseLink(text)
		if err != nil {
			return nil, err
		}
		source, err := m.find(l.source)
		if err != nil {
			if must {
				return nil, fault.As(fault.Conflict, err)
			}
			continue
		}
		other, st := source.snapshot()
		end := m.o.Network.Settings(other.ID).Networks[rec.Host.NetworkMode]
		switch {
		case st.live() && end != nil && end.IPAddress != "":
			list = append(list, linked{l, other, end.IPAddress})
		case must && !st.live():
			return nil, fault.New(fault.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", other.Name, rec.Name, l.alias)
		case must:
			return nil, fault.New(fault.Conflict, "Cannot link to /%s, as it does not belong to the network %s", other.Name, rec.Host.NetworkMode)
		}
	}
	return list, nil
}

// withLinks adds the lines of the links to the contents of a hosts file, and takes out older ones of
// their names.
func withLinks(hosts []byte, list []linked) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(string(hosts)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && slices.ContainsFunc(list, func(l linked) bool { return l.alias == fields[1] }) {
			continue
		}
		b.WriteString(line)
	}
	for _, l := range list {
		names := []string{l.alias}
		for _, n := range []string{l.rec.Config.Hostname, l.rec.Name} {
			if n != "" && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		fmt.Fprintf(&b, "%s\t%s\n", l.address, strings.Join(names, " "))
	}
	return b.Bytes()
}

// relink tells the containers that are linked to one that has just started its address.
func (m *Manager) relink(rec *record) {
	for _, c := range m.all() {
		other, st := c.snapshot()
		if !st.live() || len(other.Host.Links) == 0 || other.ID == rec.ID {
			continue
		}
		list, err := m.links(&other, false)
		list = slices.DeleteFunc(list, func(l linked) bool { return l.rec.ID != rec.ID })
		if err != nil || len(list) == 0 {
			continue
		}
		hosts, err := os.ReadFile(filepath.Join(m.directory(other.ID), "hosts"))
		if err == nil {
			err = m.writeFile(other.ID, "hosts", withLinks(hosts, list))
		}
		if err != nil {
			m.log.Warn("link a container", "container", other.ID, "to", rec.ID, "error", err)
		}
	}
}

// linkEnvironment are the variables of the links of a container on the default network: its name, its
// exposed ports, and its own variables.
func linkEnvironment(rec *record, list []linked) (env []string) {
	if rec.Host.NetworkMode != "bridge" {
		return nil
	}
	for _, l := range list {
		prefix := strings.ToUpper(strings.ReplaceAll(l.alias, "-", "_"))
		add := func(name, value string) { env = append(env, prefix+"_"+name+"="+value) }
		add("NAME", "/"+rec.Name+"/"+l.alias)
		for i, p := range sortedPorts(l.rec.Config.ExposedPorts) {
			text := strconv.Itoa(int(p.number))
			url := p.protocol + "://" + l.address + ":" + text
			if i == 0 {
				add("PORT", url)
			}
			one := "PORT_" + text + "_" + strings.ToUpper(p.protocol)
			add(one, url)
			add(one+"_ADDR", l.address)
			add(one+"_PORT", text)
			add(one+"_PROTO", p.protocol)
		}
		for _, e := range l.rec.Config.Env {
			name, value, ok := strings.Cut(e, "=")
			if ok && name != "HOME" && name != "PATH" {
				add("ENV_"+name, value)
			}
		}
	}
	return env
}

type exposed struct {
	number   uint16
	protocol string
}

// sortedPorts: by number, and of one number TCP first.
func sortedPorts(ports map[string]struct{}) (list []exposed) {
	for text := range maps.Keys(ports) {
		if n, protocol, err := parsePort(text); err == nil {
			list = append(list, exposed{n, protocol})
		}
	}
	slices.SortFunc(list, func(a, b exposed) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.protocol, b.protocol))
	})
	return list
}

// shownLinks are the links as inspect shows them.
func shownLinks(rec *record) (list []string) {
	for _, text := range rec.Host.Links {
		if l, err := parseLink(text); err == nil {
			list = append(list, "/"+l.source+":/"+rec.Name+"/"+l.alias)
		}
	}
	return list
}

// removeLink is `rm --link OWNER/ALIAS`: it takes the link of a container away, for its next start.
func (m *Manager) removeLink(ctx context.Context, ref string) error {
	owner, alias, ok := strings.Cut(strings.TrimPrefix(ref, "/"), "/")
	if !ok {
		return fault.New(fault.Invalid, "Conflict, cannot remove the default link name of the container")
	}
	c, err := m.find(owner)
	if err != nil {
		return err
	}
	if err := c.op.lock(ctx); err != nil {
		return err
	}
	defer c.op.unlock()
	rec, _ := c.snapshot()
	before := len(rec.Host.Links)
	rec.Host.Links = slices.DeleteFunc(slices.Clone(rec.Host.Links), func(text string) bool {
		l, err := parseLink(text)
		return err == nil && l.alias == alias
	})
	if len(rec.Host.Links) == before {
		return fault.New(fault.NotFound, "No such link: %s", shortened(ref))
	}
	return m.putRecord(c, rec)
}
