package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// A node is one of several daemons of a scenario, each as if on a machine of its own: with its root in $ROOT/NAME, and
// with a network namespace and a host name that outlive the daemon. Their machines are joined by a switch.
type node struct {
	name    string
	machine *exec.Cmd // holds the namespaces
	daemon  *exec.Cmd
}

// nodes are a scenario's nodes, and the switch between them.
type nodes struct {
	lan      *exec.Cmd
	list     []*node
	machines []*exec.Cmd // all that hold namespaces, the switch's too
}

// nodeCommand is the command node; see the package comment.
func nodeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: node start|kill|stop NAME [flag...]")
	}
	s := of(ts)
	switch verb, name := args[0], args[1]; verb {
	case "start":
		ts.Check(s.startNode(ts, name, args[2:]))
	case "kill":
		ts.Check(s.nodes.end(name, syscall.SIGKILL))
	case "stop":
		ts.Check(s.nodes.end(name, syscall.SIGTERM))
	default:
		ts.Fatalf("node %s: expected start, kill or stop", verb)
	}
}

// hold starts a process that does nothing in new namespaces, after a command that prepares them.
func (s *state) hold(flags uintptr, script string) (*exec.Cmd, error) {
	cmd := exec.Command("sh", "-c", "ip link set lo up && "+script+" && echo && exec sleep infinity")
	cmd.Env = append(os.Environ(), "HOME="+s.root) // by which it is known as ours
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.nodes.machines = append(s.nodes.machines, cmd)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("%s: %w", script, err)
	}
	return cmd, nil
}

// nodeAddress is the address of the nth node, from 1 on, on the switch.
func nodeAddress(n int) string { return fmt.Sprintf("10.213.9.%d", n) }

func (s *state) startNode(ts *testscript.TestScript, name string, flags []string) error {
	n, err := s.nodeNamed(ts, name)
	if err != nil {
		return err
	}
	if n.daemon != nil {
		return fmt.Errorf("node %s runs already", name)
	}
	root := filepath.Join(s.root, name)
	log, err := os.OpenFile(filepath.Join(root, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{
		"-t", strconv.Itoa(n.machine.Process.Pid), "--net", "--uts", filepath.Join(s.bin, "sampand"),
		"-H", "unix://" + filepath.Join(root, "s.sock"), "--data-root", filepath.Join(root, "data"), "--exec-root", filepath.Join(root, "run"),
		"--pidfile", filepath.Join(root, "pid"), "--config-file", filepath.Join(root, "daemon.json"), "--bridge", "docker0",
		"--cgroup-parent", cgroupParent(s.root) + "-" + name, "--debug",
	}, flags...)
	cmd := exec.Command("nsenter", args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "HOME="+s.root)
	if err := cmd.Start(); err != nil {
		return err
	}
	n.daemon = cmd
	client := socketClient(filepath.Join(root, "s.sock"))
	return poll(func() error {
		resp, err := client.Get("http://sampan/_ping")
		if err != nil {
			return fmt.Errorf("node %s does not answer: %w\n%s", name, err, tail(log.Name()))
		}
		return resp.Body.Close()
	})
}

// nodeNamed finds a node, or makes its machine and connects it.
func (s *state) nodeNamed(ts *testscript.TestScript, name string) (*node, error) {
	for _, n := range s.nodes.list {
		if n.name == name {
			return n, nil
		}
	}
	if s.nodes.lan == nil {
		s.ends = append(s.ends, s.nodes.close)
		lan, err := s.hold(unix.CLONE_NEWNET, "ip link add lan type bridge && ip link set lan up")
		if err != nil {
			return nil, err
		}
		s.nodes.lan = lan
		ts.Check(s.writeOn())
		ts.Setenv("PATH", filepath.Join(s.root, "bin")+":"+ts.Getenv("PATH"))
	}
	if err := os.MkdirAll(filepath.Join(s.root, name), 0o711); err != nil {
		return nil, err
	}
	machine, err := s.hold(unix.CLONE_NEWNET|unix.CLONE_NEWUTS, "hostname "+name)
	if err != nil {
		return nil, err
	}
	n := &node{name: name, machine: machine}
	s.nodes.list = append(s.nodes.list, n)
	number, pid := len(s.nodes.list), strconv.Itoa(machine.Process.Pid)
	port := "port" + strconv.Itoa(number)
	for _, step := range [][]string{
		{strconv.Itoa(s.nodes.lan.Process.Pid), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pid},
		{strconv.Itoa(s.nodes.lan.Process.Pid), "link", "set", port, "master", "lan", "up"},
		{pid, "addr", "add", nodeAddress(number) + "/24", "dev", "eth0"},
		{pid, "link", "set", "eth0", "up"},
	} {
		if out, err := exec.Command("nsenter", append([]string{"-t", step[0], "--net", "ip"}, step[1:]...)...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %v: %w\n%s", step[1:], err, out)
		}
	}
	ts.Setenv(name, nodeAddress(number))
	return n, os.WriteFile(filepath.Join(s.root, name, "machine"), []byte(pid), 0o600)
}

// writeOn makes the program on: "on NAME CMD..." runs a command on a node's machine, with its daemon for the clients.
func (s *state) writeOn() error {
	_, err := peer{state: s}.write("bin/on", fmt.Sprintf(`#!/bin/sh
root=%s/$1
shift
export SAMPAN_HOST=unix://$root/s.sock DOCKER_HOST=unix://$root/s.sock
exec nsenter -t $(cat $root/machine) --net --uts "$@"
`, s.root), 0o755)
	return err
}

// end ends a node's daemon, and waits until it is gone.
func (n *nodes) end(name string, sig syscall.Signal) error {
	for _, node := range n.list {
		if node.name != name {
			continue
		}
		if node.daemon == nil {
			return fmt.Errorf("node %s does not run", name)
		}
		daemon := node.daemon
		node.daemon = nil
		if err := daemon.Process.Signal(sig); err != nil {
			return err
		}
		late := time.AfterFunc(2*patience, func() { _ = daemon.Process.Kill() })
		err := daemon.Wait()
		if !late.Stop() {
			return fmt.Errorf("node %s did not end within %s", name, 2*patience)
		}
		var exit *exec.ExitError
		if sig == syscall.SIGKILL && errors.As(err, &exit) {
			return nil
		}
		return err
	}
	return fmt.Errorf("no node %s", name)
}

// close ends all daemons, all at once as they may wait for each other, and then what they ran on.
func (n *nodes) close() error {
	errs := make(chan error, len(n.list))
	ended := 0
	for _, node := range n.list {
		if node.daemon != nil {
			ended++
			go func() { errs <- n.end(node.name, syscall.SIGTERM) }()
		}
	}
	var all error
	for range ended {
		all = errors.Join(all, <-errs)
	}
	for _, m := range n.machines {
		_ = m.Process.Kill()
		_ = m.Wait() // it was killed
	}
	return all
}
