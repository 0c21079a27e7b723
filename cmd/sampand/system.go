package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/container/spec"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/wire"
)

// system says what the engine and its host are.
type system struct{ *engine }

// Version answers GET /version.
func (s system) Version(context.Context) wire.Version {
	kernel, _ := uname()
	v := wire.Version{
		Version: wire.Release, APIVersion: wire.APIVersion, MinAPIVersion: wire.MinAPIVersion, GitCommit: wire.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, KernelVersion: kernel,
		Components: []wire.Component{{Name: "Engine", Version: wire.Release, Details: map[string]string{
			"ApiVersion": wire.APIVersion, "MinAPIVersion": wire.MinAPIVersion, "GitCommit": wire.Commit, "GoVersion": runtime.Version(),
			"Os": runtime.GOOS, "Arch": runtime.GOARCH, "KernelVersion": kernel, "Experimental": "false", "BuildTime": "",
		}}},
	}
	v.Platform.Name = "Sampan Engine"
	return v
}

// Info answers GET /info.
func (s system) Info(ctx context.Context) (wire.Info, error) {
	images, err := s.images.List(ctx, image.ListOptions{All: true})
	if err != nil {
		return wire.Info{}, err
	}
	all, running, paused, stopped := s.containers.Counts()
	now := s.now.Load()
	kernel, machine := uname()
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return wire.Info{}, fmt.Errorf("sysinfo: %w", err)
	}
	host, _ := os.Hostname() //nolint:errcheck // an empty name is what there is
	name, version := release()
	cgroups := "1"
	if spec.CgroupV2() {
		cgroups = "2"
	}
	return wire.Info{
		ID: s.id, Containers: all, ContainersRunning: running, ContainersPaused: paused, ContainersStopped: stopped, Images: len(images),
		Driver: "overlay2", DriverStatus: storageStatus(s.o.DataRoot),
		Plugins:     wire.InfoPlugins{Volume: []string{"local"}, Network: append([]string{"host", "null"}, s.drivers.NetworkNames()...), Log: container.LogDrivers()},
		MemoryLimit: true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true,
		OomKillDisable: cgroups == "1", IPv4Forwarding: forwarding(), Debug: s.log.Enabled(ctx, slog.LevelDebug), NFd: openFiles(), NGoroutines: runtime.NumGoroutine(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: s.o.LogDriver, CgroupDriver: s.o.cgroupDriver(), CgroupVersion: cgroups,
		NEventsListener: s.events.Subscribers(), KernelVersion: kernel, OperatingSystem: name, OSVersion: version, OSType: runtime.GOOS,
		Architecture: machine, IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: s.registries(), NCPU: runtime.NumCPU(),
		MemTotal: int64(memory.Totalram) * int64(memory.Unit), GenericResources: nil, DockerRootDir: s.o.DataRoot,
		HTTPProxy: os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		Name: host, Labels: append([]string{}, now.Labels...), ServerVersion: wire.Release,
		Runtimes: now.Runtimes.info(), DefaultRuntime: now.defaultRuntime(),
		Swarm: s.cluster.Info(ctx), LiveRestoreEnabled: now.LiveRestore,
		SecurityOptions: s.security(), Warnings: []string{},
	}, nil
}

// security are what confines containers here, as dockerd names it.
func (s system) security() []string {
	var list []string
	if s.profile != "" {
		list = append(list, "name=apparmor")
	}
	list = append(list, "name=seccomp,profile=builtin")
	if s.remap != nil {
		list = append(list, "name=userns")
	}
	if spec.DefaultCgroupns(s.o.CgroupnsMode, false, spec.CgroupV2()) == "private" {
		list = append(list, "name=cgroupns")
	}
	return list
}

func (s system) registries() *wire.RegistryConfig {
	now := s.now.Load()
	hub := wire.RegistryIndex{Name: "docker.io", Mirrors: append([]string{}, now.Mirrors...), Secure: true, Official: true}
	c := &wire.RegistryConfig{
		InsecureRegistryCIDRs: []string{"::1/128", "127.0.0.0/8"}, IndexConfigs: map[string]wire.RegistryIndex{"docker.io": hub},
		Mirrors: append([]string{}, now.Mirrors...),
	}
	for _, host := range now.Insecure {
		if strings.Contains(host, "/") {
			c.InsecureRegistryCIDRs = append(c.InsecureRegistryCIDRs, host)
			continue
		}
		c.IndexConfigs[host] = wire.RegistryIndex{Name: host, Mirrors: []string{}}
	}
	return c
}

// uname is the kernel's release and the machine's name for its architecture.
func uname() (kernel, machine string) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
}

// release reads os-release(5).
func release() (name, version string) {
	name = "Linux"
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return name, ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "PRETTY_NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version
}

// filesystems are the magic numbers of statfs(2) on which overlay is common.
var filesystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "extfs", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.F2FS_SUPER_MAGIC: "f2fs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
}

func filesystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "<unknown>"
	}
	if name, ok := filesystems[int64(st.Type)]; ok { //nolint:unconvert // its type differs between architectures
		return name
	}
	return "<unknown>"
}

func forwarding() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// engineID is the name of this data-root for ever: 36 characters as a UUID (RFC 9562, version 4).
func engineID(path string) (string, error) {
	text, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	id := strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
	return id, os.WriteFile(path, []byte(id), 0o600)
}
