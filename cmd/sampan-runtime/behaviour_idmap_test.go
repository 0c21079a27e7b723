package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sources are the files that are bound, by directory and name, with their owner and group.
var sources = map[string][2]int{
	"one/foo": {0, 0}, "two/foo": {1, 1},
	"many/foo": {100, 211}, "many/bar": {101, 222}, "others/foo": {200, 211}, "far/foo": {5000528, 6000491},
	"tree/foo": {100, 211}, "tree/bar": {200, 222},
}

func putSources(t *testing.T) string {
	t.Helper()
	needRoot(t, "files are given to others")
	dir := t.TempDir()
	for name, owner := range sources {
		name = filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(name), 0o777)
		if err == nil {
			err = os.WriteFile(name, nil, 0o644)
		}
		if err == nil {
			err = os.Chown(name, owner[0], owner[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, below := range []string{"one", "two", "tree"} {
		if err := os.Chmod(filepath.Join(dir, below), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(dir+"/tree/below", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("many", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mappings are "inside:outside:size", separated by spaces.
func mappings(text string) (list []specs.LinuxIDMapping) {
	for field := range strings.FieldsSeq(text) {
		var m specs.LinuxIDMapping
		fmt.Sscanf(field, "%d:%d:%d", &m.ContainerID, &m.HostID, &m.Size) //nolint:errcheck // constants
		list = append(list, m)
	}
	return list
}

// mapped is a bind of a source on /m with mapped ids; options are separated by commas.
func mapped(source, uids, gids, options string) specs.Mount {
	return specs.Mount{
		Source: source, Destination: "/m/" + strings.ReplaceAll(source, "/", "-"), Options: strings.Split(options, ","),
		UIDMappings: mappings(uids), GIDMappings: mappings(gids),
	}
}

func at(m specs.Mount, destination string) specs.Mount {
	m.Destination = destination
	return m
}

// In the user namespace 0 is 100000 for users and 200000 for groups.
func TestIDMappedBinds(t *testing.T) {
	const (
		host          = "65534:65534" // ids that the user namespace does not have
		users, groups = "0:100000:65534", "0:200000:65534"
		treeUsers     = "100:101000:3 200:102000:3"
		treeGroups    = "210:201100:10 220:202200:10"
	)
	plain := specs.Mount{Source: "one", Destination: "/plain", Options: []string{"bind"}}
	tree := func(option string) specs.Mount { return mapped("tree", treeUsers, treeGroups, "rbind"+option) }
	implied := func(option string) specs.Mount { return mapped("tree", "", "", "rbind,"+option) }
	const showTree = "stat -c %u:%g /m/tree/foo /m/tree/bar /m/tree/below/foo"
	one := mapped("one", users, groups, "bind")
	for _, c := range []struct {
		name, script string
		in, out      string // what is shown in a user namespace, and without one; "" is not tried
		mounts       []specs.Mount
	}{
		{"files", "stat -c %u:%g /m/one/foo", "0:0", "100000:200000", []specs.Mount{one}},
		{"written files", "touch /m/one/made && stat -c %u:%g /m/one/made", "0:0", "", []specs.Mount{one}},
		{"files that nobody could own", "touch /m/one/made2 2>&1 | grep -o 'too large'", "", "too large", []specs.Mount{one}},
		{"propagation", "grep ' /m/one ' /proc/self/mountinfo | grep -o shared", "shared", "shared", []specs.Mount{mapped("one", users, groups, "bind,shared")}},
		{"a relative destination", "stat -c %u:%g /m/rel/foo", "0:0", "100000:200000", []specs.Mount{at(one, "m/rel")}},
		{"beside a plain bind", "stat -c %u:%g /m/one/foo /plain/foo", "0:0 " + host, "100000:200000 0:0", []specs.Mount{one, plain}},
		{"two between plain ones", "stat -c %u:%g /m/one/foo /m/two/foo", "0:0 1:1", "100000:200000 100001:200001",
			[]specs.Mount{one, plain, at(plain, "/plain2"), mapped("two", users, groups, "bind")}},
		{"one source in three ways", "stat -c %u:%g /m/many/foo /m/many/bar /m/alt/foo /m/link/bar",
			"0:11 1:22 1000:2011 2001:3022", "100000:200011 100001:200022 101000:202011 102001:203022",
			[]specs.Mount{
				mapped("many", "100:100000:100", "200:200000:100", "bind"),
				at(mapped("many", "100:101000:100", "200:202000:100", "bind"), "/m/alt"),
				mapped("link", "100:102000:100", "200:203000:100", "bind"),
			}},
		{"large ids", "stat -c %u:%g /m/many/foo /m/others/foo /m/far/foo", "1100:1911 2200:2911 3528:3491", "101100:201911 102200:202911 103528:203491",
			[]specs.Mount{
				mapped("many", "100:101100:3", "200:201900:50", "bind"), mapped("others", "200:102200:3", "200:202900:100", "bind"),
				mapped("far", "5000000:103000:1000", "6000000:203000:500", "bind"),
			}},
		{"a mapping of pieces", "stat -c %u:%g /m/many/foo /m/many/bar", "1000:1101 2000:2202", "101000:201101 102000:202202",
			[]specs.Mount{mapped("many", "100:101000:1 101:102000:1", "210:201100:10 220:202200:10", "bind")}},
		// Mounts below are mapped with ridmap alone.
		{"a tree", showTree, "1000:1101 2000:2202 " + host, "101000:201101 102000:202202 100:211", []specs.Mount{tree("")}},
		{"a tree with idmap", showTree, "1000:1101 2000:2202 " + host, "101000:201101 102000:202202 100:211", []specs.Mount{tree(",idmap")}},
		{"a tree with ridmap", showTree, "1000:1101 2000:2202 1000:1101", "101000:201101 102000:202202 101000:201101", []specs.Mount{tree(",ridmap")}},
		{"a tree with idmap as the user namespace", showTree, "100:211 200:222 " + host, "", []specs.Mount{implied("idmap")}},
		{"a tree with ridmap as the user namespace", showTree, "100:211 200:222 100:211", "", []specs.Mount{implied("ridmap")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := putSources(t)
			for i, m := range c.mounts {
				c.mounts[i].Source = filepath.Join(dir, m.Source)
			}
			for _, kind := range []struct {
				want   string
				change []func(*specs.Spec)
			}{{c.in, []func(*specs.Spec){inUserNamespace}}, {c.out, nil}} {
				if kind.want == "" {
					continue
				}
				h := newScene(t)
				if kind.change != nil {
					h.own()
				}
				h.configure(c.script+" | tr '\n' ' '", append(kind.change, withMounts(c.mounts...))...)
				inOwnMounts(t, func() {
					if err := unix.Mount(dir+"/many", dir+"/tree/below", "", unix.MS_BIND, ""); err != nil {
						t.Error(err)
						return
					}
					h.shows(kind.want, "user namespace: "+strconv.FormatBool(kind.change != nil))
				})
			}
		})
	}
}

func TestIDMappedBindsAsAJoinedUserNamespace(t *testing.T) {
	dir := putSources(t)
	h := newScene(t)
	h.own()
	h.configure("sleep 1000", inUserNamespace)
	h.must("run", "-d", "target")
	pid := strconv.Itoa(h.state("target").Pid)
	h.configure("stat -c %u:%g /data/foo", func(s *specs.Spec) {
		s.Linux.CgroupsPath += "-joined"
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/" + pid + "/ns/user"})
	}, withMounts(specs.Mount{Source: dir + "/many", Destination: "/data", Options: []string{"bind", "idmap"}}))
	h.shows("100:211")
}

// The files that mounts are made from are closed one by one.
func TestManyIDMappedBinds(t *testing.T) {
	dir := putSources(t)
	h := newScene(t)
	h.own()
	var mounts []specs.Mount
	for i := range 20 {
		mounts = append(mounts, at(mapped(dir+"/one", "0:100000:65534", "0:200000:65534", "bind"), fmt.Sprintf("/m/%d", i)))
	}
	h.configure("stat -c %u:%g /m/19/foo", inUserNamespace, withMounts(mounts...), func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 20}}
	})
	h.shows("0:0")
}
