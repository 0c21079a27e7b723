// Command sampand is the engine: it keeps containers, images, networks and volumes, and serves Docker's
// HTTP API and its own on a socket.
//
//	options.go, value.go, file.go   what it is told: flags, daemon.json; check.go says what is wrong with it
//	foreign.go                      dockerd's settings that mean nothing here, and why
//	reload.go, metrics.go           SIGHUP; what it counts
//	rooms.go                        every room of the engine is made once, in order, and closed in reverse
//	system.go                       what it says of itself and of the host
//	cluster.go                      its part in a swarm
//	main.go                         the life of the process
//
// It may be killed at any moment: containers live on under the monitor, and the next start takes them
// over. Told to end (SIGTERM, SIGINT) it stops the containers first, unless --live-restore.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/api"
	"github.com/sampan-project/sampan/core/cgroup/systemd"
	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/wire"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "sampand: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o := newOptions()
	flags := newFlags()
	o.addFlags(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Printf("Usage:  sampand [OPTIONS]\n\nA container engine.\n\nOptions:\n%s", flags.FlagUsages())
		return nil
	case err != nil:
		return fmt.Errorf("%w (see 'sampand --help')", err)
	case flags.NArg() > 0:
		return fault.New(fault.Invalid, "unexpected argument %q: expected options only", flags.Arg(0))
	case o.version:
		fmt.Printf("Sampan version %s, build %s\n", wire.Release, wire.Commit)
		return nil
	}
	if err := o.read(flags); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.validate {
		if err := o.checkHost(); err != nil {
			return err
		}
		for _, w := range o.warnings {
			fmt.Fprintln(os.Stderr, "sampand: warning: "+w)
		}
		fmt.Println("configuration OK")
		return nil
	}
	if os.Geteuid() != 0 {
		return fault.New(fault.Forbidden, "sampand needs to be started by root, not by user %d", os.Geteuid())
	}
	linux.MoreFiles()
	return serve(o, args)
}

func newFlags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("sampand", pflag.ContinueOnError)
	flags.Usage = func() {}
	return flags
}

var levelNames = []string{"debug", "info", "warn", "error", "fatal"}

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError, "fatal": slog.LevelError + 4,
}

func (o *options) level() slog.Level {
	if o.Debug {
		return slog.LevelDebug
	}
	return levels[o.LogLevel]
}

// logger writes what the daemon has to say to its standard error, for a person or for a program.
func (o *options) logger(level *slog.LevelVar) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if o.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// serve is the life of the daemon.
func serve(o *options, args []string) (err error) {
	unix.Umask(0o022)
	if err := crash.Arm(); err != nil {
		return err
	}
	var level slog.LevelVar
	level.Set(o.level())
	log := o.logger(&level)
	for _, w := range o.warnings {
		log.Warn(w)
	}
	if err := o.Proxies.set(); err != nil {
		return err
	}

	// Before anything is made: a signal from here on is an orderly end.
	ended, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	signal.Ignore(unix.SIGPIPE)

	if o.systemdCgroup() {
		if err := systemd.Running(); err != nil {
			return fmt.Errorf("--exec-opt native.cgroupdriver=systemd: %w", err)
		}
	}
	if err := o.makeRoots(); err != nil {
		return err
	}
	if err := o.adjustOOMScore(log); err != nil {
		return err
	}
	release, err := writePidFile(o.PidFile)
	if err != nil {
		return err
	}
	defer release()

	// First, as it may be refused and open makes bridges; who calls early waits.
	certificates, err := o.certificates()
	if err != nil {
		return err
	}
	listeners, err := o.listen(certificates)
	if err != nil {
		return err
	}
	e, err := open(ended, o, log)
	if err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	e.certificates = certificates
	server := api.New(api.Options{Docker: e.docker(), Sampan: e.sampan(), TempDir: filepath.Join(o.DataRoot, "tmp"), Logger: log})
	e.cluster.Start(server)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- server.Serve(l) }()
		log.Info("API listen on " + l.Addr().String())
	}
	go e.reloadOnHangup(ended, args, &level)
	daemon.SdNotify(false, daemon.SdNotifyReady) //nolint:errcheck // without systemd there is nobody to tell
	log.Info("Daemon has completed initialization")

	select {
	case <-ended.Done():
		log.Info("Processing signal to end")
	case err = <-failed:
	}
	stop()                                          // a second signal ends the process at once
	daemon.SdNotify(false, daemon.SdNotifyStopping) //nolint:errcheck // see above
	return errors.Join(err, e.shutdown(server))
}

// shutdown refuses new requests, ends the containers, and lets requests in progress come to their end.
func (e *engine) shutdown(server *api.Server) error {
	var serving sync.WaitGroup
	var serverErr error
	ctx, cancel := context.Background(), func() {}
	if g := e.now.Load().grace(); g > 0 {
		ctx, cancel = context.WithTimeout(ctx, g+5*time.Second)
	}
	defer cancel()
	serving.Go(func() { serverErr = server.Shutdown(ctx) })
	err := e.cluster.Close() // first: that the daemon stops its containers is no news of its tasks
	err = errors.Join(err, e.containers.Shutdown(ctx))
	serving.Wait()
	if e.containers.Running() == 0 {
		err = errors.Join(err, e.networks.Down(context.WithoutCancel(ctx)))
	}
	if errors.Is(serverErr, context.DeadlineExceeded) {
		e.log.Warn("requests were broken off at the end of the daemon")
		serverErr = nil
	}
	return errors.Join(err, serverErr)
}

func (o *options) makeRoots() error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{o.DataRoot, 0o710}, {filepath.Join(o.DataRoot, "tmp"), 0o700}, {o.ExecRoot, 0o711}} {
		if err := os.MkdirAll(dir.path, dir.mode); err != nil {
			return err
		}
	}
	return nil
}

// writePidFile refuses to start beside a daemon whose file it is, and returns how to remove it.
func writePidFile(path string) (release func(), err error) {
	if text, err := os.ReadFile(path); err == nil {
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && pid != os.Getpid() && unix.Kill(pid, 0) == nil && isDaemon(pid) {
			return nil, fault.New(fault.Conflict, "process with PID %d is still running (pidfile %s)", pid, path)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return nil, fmt.Errorf("--pidfile: %w", err)
	}
	return func() { os.Remove(path) }, nil
}

// isDaemon reports whether the process is a living daemon of ours: numbers are used again after a
// crash, and one that was killed is there until its parent has looked.
func isDaemon(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != "sampand" {
		return false
	}
	_, state, err := linux.StartTime(pid)
	return err == nil && state != 'Z'
}

// certificates are those of TCP listeners; nil without TLS.
func (o *options) certificates() (*api.Certificates, error) {
	if !o.TLS && !o.TLSVerify {
		return nil, nil
	}
	return api.LoadCertificates(o.TLSCACert, o.TLSCert, o.TLSKey, o.TLSVerify)
}

func (o *options) listenOptions(certificates *api.Certificates) api.ListenOptions {
	how := api.ListenOptions{Group: o.Group, AllowPlainTCP: o.AllowPlainTCP}
	if certificates != nil {
		how.TLS = certificates.Config()
	}
	return how
}

// listen opens every socket or none.
func (o *options) listen(certificates *api.Certificates) (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	how := o.listenOptions(certificates)
	for _, host := range o.Hosts {
		list, err := api.Listen(host, how)
		if err != nil {
			return all, err
		}
		all = append(all, list...)
	}
	return all, nil
}
