package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// registry is a program that is tested.
type registry struct {
	name    string
	version func(ctx context.Context) string
	start   func(ctx context.Context, dir string) (address string, stop func(), err error)
}

func registries(bin string) []registry {
	ours := filepath.Join(bin, "sampan-registry")
	return []registry{
		{name: "sampan-registry", version: func(ctx context.Context) string {
			return firstLine(exec.CommandContext(ctx, filepath.Join(bin, "sampan"), "--version"))
		}, start: func(ctx context.Context, dir string) (string, func(), error) { return startOurs(ctx, ours, dir) }},
		{name: "docker-registry", version: func(ctx context.Context) string {
			return firstLine(exec.CommandContext(ctx, "docker-registry", "--version"))
		}, start: startDocker},
	}
}

func firstLine(cmd *exec.Cmd) string {
	out, _ := cmd.Output() //nolint:errcheck // then it has no version
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// startOurs returns when the registry has said where it listens.
func startOurs(ctx context.Context, program, dir string) (string, func(), error) {
	cmd := exec.CommandContext(ctx, program, "serve", "--root", dir, "--listen", "127.0.0.1:0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	stop, err := launch(cmd)
	if err != nil {
		return "", nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("%s: %w", program, err)
	}
	return strings.TrimPrefix(strings.TrimSpace(line), "http://"), stop, nil
}

func startDocker(ctx context.Context, dir string) (string, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address := l.Addr().String()
	l.Close()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n", dir, address)
	if err := os.WriteFile(dir+".yml", []byte(config), 0o600); err != nil {
		return "", nil, err
	}
	stop, err := launch(exec.CommandContext(ctx, "docker-registry", "serve", dir+".yml"))
	if err != nil {
		return "", nil, err
	}
	for range 200 {
		if resp, err := http.Get("http://" + address + "/v2/"); err == nil { //nolint:noctx // it is bounded
			resp.Body.Close()
			return address, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return "", nil, fmt.Errorf("docker-registry does not answer at %s", address)
}

// launch starts a program that ends with us.
func launch(cmd *exec.Cmd) (stop func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its status is not what is tested
	}, nil
}
