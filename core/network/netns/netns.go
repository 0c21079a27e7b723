// Package netns makes network namespaces, keeps some of them ready, and runs code inside of them.
//
// A namespace is an open file: it lives as long as somebody has it open or a process is in it. See
// network_namespaces(7). Nothing is mounted, so that a crash leaves nothing behind.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux"
)

// Create makes a network namespace with its loopback interface up, and with the two settings that
// a container without privileges needs for ping and for ports below 1024, as Docker has them.
func Create() (*os.File, error) {
	var made *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		f, err := current()
		if err != nil {
			return err
		}
		if err := prepare(); err != nil {
			f.Close()
			return err
		}
		made = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return made, nil
}

// CreateIn is Create of a namespace that belongs to a user namespace: root of that one rules it
// (user_namespaces(7)).
func CreateIn(user *os.File) (*os.File, error) {
	made, err := linux.NetworkIn(user)
	if err == nil {
		if err = Do(made, prepare); err != nil {
			made.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return made, nil
}

// Do runs fn on a thread that is in the namespace. Sockets that fn opens stay in it; goroutines
// that fn starts do not run in it.
func Do(ns *os.File, fn func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
		}
		return fn()
	})
}

// onThread runs fn on a thread of its own that returns to its namespace, or is thrown away.
func onThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := current()
		if err != nil {
			runtime.UnlockOSThread()
			result <- err
			return
		}
		defer home.Close()
		done := false
		// The answer is sent from here so that a panic of fn does not leave the caller waiting
		// for ever; and a thread that cannot go home stays locked, which makes the Go runtime end it.
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			if !done {
				err = fmt.Errorf("panic in network namespace: %v", recover())
			}
			result <- err
		}()
		err = fn()
		done = true
	}()
	return <-result
}

// current opens the network namespace of the calling thread.
func current() (*os.File, error) {
	// Not /proc/self: that is the main thread's.
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return f, nil
}

// prepare sets up the namespace of the calling thread.
func prepare() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	for path, value := range map[string]string{
		// A process with no capability may serve on port 80 and send pings.
		"/proc/sys/net/ipv4/ip_unprivileged_port_start": "0",
		"/proc/sys/net/ipv4/ping_group_range":           "0 2147483647",
		// As with Docker an interface has IPv6 when its network has. A driver that turned it off for each one would
		// wait for the kernel's lock of all interfaces, and that wait is a busy one (addrconf_disable_ipv6 in the
		// kernel's addrconf.c); the value for those to come needs no lock.
		"/proc/sys/net/ipv6/conf/default/disable_ipv6": "1",
	} {
		// A kernel without the setting, or a /proc that is read-only, is no reason to fail.
		_ = os.WriteFile(path, []byte(value), 0)
	}
	return nil
}

// loopbackUp sets IFF_UP on lo; see netdevice(7).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	return nil
}
