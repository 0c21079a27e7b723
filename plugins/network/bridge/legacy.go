package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What iptables-legacy has set is not in nf_tables: it is asked by options of a raw socket, with
// the structures of linux/netfilter_ipv4/ip_tables.h. We only read it, to be able to say why nothing
// is forwarded: its tables can be replaced only as a whole, which would race with every other program
// that does so.
const (
	iptSoGetInfo    = 64
	iptSoGetEntries = 65

	iptInfoSize    = 84 // struct ipt_getinfo
	iptHeaderSize  = 40 // struct ipt_get_entries, before the entries
	iptUnderflow   = 56 // offset in ipt_getinfo of underflow[5]: the entries that are the policies
	iptTotalSize   = 80 // offset in ipt_getinfo of size
	iptTarget      = 88 // offset in struct ipt_entry of target_offset
	iptTargetSize  = 32 // struct xt_entry_target, before the verdict
	iptVerdictDrop = -1 // -NF_DROP - 1
	iptMaxSize     = 64 << 20
)

// legacyPolicyDrops reports whether the FORWARD policy of iptables-legacy's filter table is drop. The
// table is not asked for when it is not in use: asking would make the kernel create it.
func legacyPolicyDrops() (bool, error) {
	// Not /proc/net: that is the main thread's, which may be in a container's namespace just now.
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil || !bytes.Contains(append([]byte("\n"), names...), []byte("\nfilter\n")) {
		return false, nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return false, fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(fd)
	info := make([]byte, iptInfoSize)
	copy(info, "filter")
	if err := getOption(fd, iptSoGetInfo, info); err != nil {
		return false, err
	}
	size := binary.NativeEndian.Uint32(info[iptTotalSize:])
	if size > iptMaxSize {
		return false, fmt.Errorf("a table of %d bytes", size)
	}
	entries := make([]byte, iptHeaderSize+size)
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[32:], size)
	if err := getOption(fd, iptSoGetEntries, entries); err != nil {
		return false, err
	}
	policy := binary.NativeEndian.Uint32(info[iptUnderflow+4*unix.NF_INET_FORWARD:])
	verdict, err := legacyVerdict(entries[iptHeaderSize:], policy)
	return verdict == iptVerdictDrop, err
}

// legacyVerdict is the verdict of the entry at the offset.
func legacyVerdict(entries []byte, offset uint32) (int32, error) {
	short := fmt.Errorf("no entry at %d of %d bytes", offset, len(entries))
	if uint64(offset)+iptTarget+2 > uint64(len(entries)) {
		return 0, short
	}
	at := uint64(offset) + uint64(binary.NativeEndian.Uint16(entries[offset+iptTarget:])) + iptTargetSize
	if at+4 > uint64(len(entries)) {
		return 0, short
	}
	return int32(binary.NativeEndian.Uint32(entries[at:])), nil
}

func getOption(fd, option int, buffer []byte) error {
	length := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return fmt.Errorf("read the filter table of iptables-legacy: %w", errno)
	}
	return nil
}

// warnLegacy says once that iptables-legacy keeps our containers off the network, and what helps.
func (d *driver) warnLegacy(bridge string) {
	drops, err := legacyPolicyDrops()
	if err != nil {
		slog.Debug("iptables-legacy", "error", err)
	}
	if !drops {
		return
	}
	if _, before := d.warned.LoadOrStore(bridge, true); before {
		return
	}
	slog.Warn("the FORWARD policy of iptables-legacy is DROP, which this driver cannot change: containers have no way out "+
		"until its rules accept the bridge", "bridge", bridge,
		"help", fmt.Sprintf("iptables-legacy -A FORWARD -i %[1]s -j ACCEPT; iptables-legacy -A FORWARD -o %[1]s -j ACCEPT", bridge))
}
