package runtime

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
)

// validateNetDevices checks linux.netDevices (config-linux.md, Network Devices). own: the container gets a
// network namespace from the caller.
func validateNetDevices(s *specs.Spec, own bool) error {
	if len(s.Linux.NetDevices) == 0 {
		return nil
	}
	if !own && namespaceSet(s)&unix.CLONE_NEWNET == 0 {
		return fault.New(fault.Invalid, "linux.netDevices: expected a container with its own network namespace")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Linux.NetDevices)) {
		field := fmt.Sprintf("linux.netDevices[%s]", name)
		if !deviceName(name, false) {
			return &fault.Field{Field: field, Given: name, Expected: "the name of a network device: 1 to 15 bytes without space, '/' and ':'"}
		}
		if inside := s.Linux.NetDevices[name].Name; inside != "" && !deviceName(inside, true) {
			return &fault.Field{Field: field + ".name", Given: inside, Expected: "1 to 15 bytes without space, '/' and ':', and %d at most once"}
		}
	}
	return nil
}

// deviceName reports whether the kernel takes the name (dev_valid_name in net/core/dev.c).
func deviceName(name string, template bool) bool {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
		return false
	}
	return !strings.Contains(name, "%") || template && strings.Count(name, "%") == 1 && strings.Contains(name, "%d")
}

// netDevices are the devices that were moved into a container.
type netDevices struct {
	host, inside netSide
	moved        []netDevice
}

type netDevice struct {
	before, after string // its name on the host, and in the container
	up            bool   // on the host
}

// moveNetDevices moves the spec's devices into the network namespace of a process. After an error they are
// all where they were.
func moveNetDevices(pid int, devices map[string]specs.LinuxNetDevice) (d *netDevices, err error) {
	if len(devices) == 0 {
		return nil, nil
	}
	d = &netDevices{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Back())
		}
	}()
	if d.host, err = openNetSide("/proc/thread-self/ns/net"); err != nil {
		return d, err
	}
	if d.inside, err = openNetSide(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
		return d, err
	}
	if same, err := linux.Same(d.host.ns, d.inside.ns); err != nil || same {
		return d, errors.Join(err, fault.New(fault.Invalid, "linux.netDevices: expected another network namespace than the runtime's own"))
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		inside := devices[name].Name
		if inside == "" {
			inside = name
		}
		device, err := shift(d.host, d.inside, name, inside, true)
		if device != nil {
			d.moved = append(d.moved, *device)
		}
		if err != nil {
			return d, fmt.Errorf("linux.netDevices[%s]: %w", name, err)
		}
	}
	return d, nil
}

// Close forgets where the devices were.
func (d *netDevices) Close() {
	if d != nil {
		d.host.close()
		d.inside.close()
	}
}

// Back takes the devices out of the container, with the names and addresses that they had, and closes d.
// The container's processes may have ended.
func (d *netDevices) Back() error {
	if d == nil {
		return nil
	}
	defer d.Close()
	var errs []error
	for _, device := range slices.Backward(d.moved) {
		if _, err := shift(d.inside, d.host, device.after, device.before, device.up); err != nil {
			errs = append(errs, fmt.Errorf("take back network device %s: %w", device.before, err))
		}
	}
	return errors.Join(errs...)
}

// netSide is one of the two network namespaces.
type netSide struct {
	ns     *os.File
	handle *netlink.Handle
	socket *nl.SocketHandle
}

func openNetSide(path string) (s netSide, err error) {
	if s.ns, err = linux.OpenAt(nil, path, unix.O_RDONLY, 0); err != nil {
		return s, err
	}
	at := netns.NsHandle(s.ns.Fd())
	if s.handle, err = netlink.NewHandleAt(at, unix.NETLINK_ROUTE); err != nil {
		s.close()
		return netSide{}, fmt.Errorf("linux.netDevices: %w", err)
	}
	socket, err := nl.GetNetlinkSocketAt(at, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		s.close()
		return netSide{}, fmt.Errorf("linux.netDevices: %w", err)
	}
	s.socket = &nl.SocketHandle{Socket: socket}
	return s, nil
}

func (s netSide) close() {
	if s.socket != nil {
		s.socket.Close()
	}
	if s.handle != nil {
		s.handle.Close()
	}
	if s.ns != nil {
		s.ns.Close()
	}
}

// shift moves a device from one namespace to the other, with its addresses, and sets it up if it is to be.
// With an error, device is not nil when it has arrived.
func shift(from, to netSide, name, as string, up bool) (device *netDevice, err error) {
	link, err := from.handle.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fault.New(fault.NotFound, "there is no network device of this name")
	}
	if err != nil {
		return nil, err
	}
	if link.Attrs().Flags&net.FlagLoopback != 0 {
		return nil, fault.New(fault.Invalid, "a loopback device belongs to its namespace and cannot be moved")
	}
	addresses, err := permanent(from.handle, link)
	if err != nil {
		return nil, err
	}
	before, err := to.handle.LinkList()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(before, func(l netlink.Link) bool { return l.Attrs().Name == as }) {
		return nil, fault.New(fault.Exists, "there is a network device %s already", as)
	}
	passed := from.pass(link, to, as)
	// Also after an error: the kernel moves first, and names then.
	after, err := to.handle.LinkList()
	if err != nil {
		return nil, errors.Join(passed, err)
	}
	arrived := slices.IndexFunc(after, func(l netlink.Link) bool {
		return !slices.ContainsFunc(before, func(b netlink.Link) bool { return b.Attrs().Index == l.Attrs().Index })
	})
	if arrived >= 0 {
		device = &netDevice{name, after[arrived].Attrs().Name, link.Attrs().Flags&net.FlagUp != 0}
	}
	switch {
	case passed != nil:
		return device, fmt.Errorf("move it as %s: %w", as, passed)
	case arrived < 0:
		return nil, errors.New("it was moved, and somebody has taken it away")
	}
	return device, furnish(to.handle, after[arrived], addresses, up)
}

// permanent are the addresses that a device takes along: permanent ones of global scope.
func permanent(h *netlink.Handle, link netlink.Link) ([]netlink.Addr, error) {
	all, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list its addresses: %w", err)
	}
	return slices.DeleteFunc(all, func(a netlink.Addr) bool {
		return a.Flags&unix.IFA_F_PERMANENT == 0 || a.Scope != unix.RT_SCOPE_UNIVERSE
	}), nil
}

// furnish gives a device that has arrived its addresses, and sets it up.
func furnish(h *netlink.Handle, link netlink.Link, addresses []netlink.Addr, up bool) error {
	for _, a := range addresses {
		a.LinkIndex, a.Label = link.Attrs().Index, "" // a label begins with the device's name, which may be new
		if err := h.AddrAdd(link, &a); err != nil {
			return fmt.Errorf("give it the address %s again: %w", a.IPNet, err)
		}
	}
	if !up {
		return nil
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// pass moves a device and names it; in a template the kernel puts a number (rtnetlink(7), RTM_SETLINK).
func (s netSide) pass(link netlink.Link, to netSide, name string) error {
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.socket}
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(link.Attrs().Index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(to.ns.Fd()))))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
