package mount

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
)

func TestParseOptions(t *testing.T) {
	const ro, suid, exec = unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NOEXEC
	for _, c := range []struct {
		name    string
		typ     string
		options string
		want    Options
	}{
		{"sorts attributes from data", "tmpfs", "nosuid,noexec,size=64k,mode=1777,ro", Options{Set: ro | suid | exec, Data: []string{"size=64k", "mode=1777"}}},
		{"lets the last of a pair win", "tmpfs", "ro,rw,suid,nosuid", Options{Set: suid, Clear: ro}},
		{"clears the field of atime", "tmpfs", "noatime", Options{Set: unix.MOUNT_ATTR_NOATIME, Clear: unix.MOUNT_ATTR__ATIME}},
		{"takes the last atime", "tmpfs", "noatime,strictatime", Options{Set: unix.MOUNT_ATTR_STRICTATIME, Clear: unix.MOUNT_ATTR__ATIME}},
		{"knows recursive attributes", "bind", "rbind,rro,rnosuid", Options{Bind: true, Recursive: true, SetTree: ro | suid}},
		{"knows relatime is not recursive elatime", "tmpfs", "relatime", Options{Clear: unix.MOUNT_ATTR__ATIME}},
		{"knows propagation", "bind", "bind,rprivate,slave", Options{Bind: true, Propagation: []Propagation{{unix.MS_PRIVATE, true}, {unix.MS_SLAVE, false}}}},
		{"takes bind from the options", "none", "rbind", Options{Bind: true, Recursive: true}},
		{"keeps flags of the filesystem", "ext4", "sync,data=ordered,defaults", Options{Superblock: []string{"sync"}, Data: []string{"data=ordered"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Mount{Type: c.typ, Options: strings.Split(c.options, ",")}.ParseOptions()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for options, want := range map[string]fault.Class{"bind,noexe": fault.Invalid, "remount": fault.NotImplemented} {
		_, err := Mount{Type: "bind", Target: "/x", Options: strings.Split(options, ",")}.ParseOptions()
		if !fault.Is(err, want) {
			t.Errorf("%s: got %v, want class %v", options, err, want)
		}
	}
	_, err := Mount{Type: "bind", Target: "/x", Options: []string{"noexe"}}.ParseOptions()
	if err == nil || !strings.Contains(err.Error(), `did you mean "noexec"`) {
		t.Errorf("no nearest word in %v", err)
	}
}

func TestSplitLayers(t *testing.T) {
	if diff := cmp.Diff([]string{"/a", "/b:c", `/d\`}, splitLayers(`/a:/b\:c:/d\\`)); diff != "" {
		t.Error(diff)
	}
}
