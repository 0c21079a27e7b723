package plugin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/sampan-project/sampan/proto"
	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

// process is one life of a plugin.
type process struct {
	client      *goplugin.Client
	cmd         *exec.Cmd
	conn        *grpc.ClientConn
	done        <-chan struct{} // closed when the process has ended and was waited for
	noticed     chan struct{}   // closed when the Plugin, too, knows that it ended: the next call is not for it
	dir         string
	pid         int
	started     time.Time
	description *pluginv1.DescribeResponse
	release     func() // lets the thread go that is the parent
	once        sync.Once
}

// launch starts the program and asks it who it is.
func launch(p *Plugin) (*process, error) {
	dir, err := os.MkdirTemp(p.host.runDir, p.Name[:min(len(p.Name), 12)]+"-")
	if err != nil {
		return nil, fmt.Errorf("directory for the socket: %w", err)
	}
	proc := &process{dir: dir, cmd: command(p, dir), started: time.Now(), noticed: make(chan struct{})}
	log := p.host.o.Logger.With("plugin", p.String())
	stderr := &lastWords{}
	proc.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: proto.Version, MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{proto.Version: {proto.Service: &service{}}},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Cmd:              proc.cmd,
		SecureConfig:     &goplugin.SecureConfig{Checksum: p.digest, Hash: sha256.New()},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     p.host.o.StartTimeout,
		Logger:           &hclogger{Logger: hclog.NewNullLogger(), log: log, program: p.Path},
		Stderr:           stderr,
		SyncStdout:       &lineLog{log: log}, // what the plugin prints: a mistake, but not to be lost
		SyncStderr:       &lineLog{log: log},
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(proto.MaxMessage), grpc.MaxCallSendMsgSize(proto.MaxMessage))},
	})
	if err := proc.connect(p); err != nil {
		proc.end()
		if errors.Is(err, goplugin.ErrChecksumsDoNotMatch) {
			err = fmt.Errorf("%s is not the file that was found at the start of the engine (%s): restart the engine if the change is meant", p.Path, p.Digest())
		}
		if words := stderr.String(); words != "" {
			err = fmt.Errorf("%w: it said %q", err, words)
		}
		return nil, err
	}
	return proc, nil
}

func command(p *Plugin, dir string) *exec.Cmd {
	cmd := exec.Command(p.Path)
	cmd.Dir = "/"
	// go-plugin adds the cookie and the certificate. Nothing of the engine's own environment, which may have
	// secrets, is given on.
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		goplugin.EnvUnixSocketDir + "=" + dir,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // an interrupt at the engine's terminal is the engine's
	}
	return cmd
}

// connect starts the process and waits until it answers.
func (proc *process) connect(p *Plugin) error {
	if err := proc.onKeeper(func() error { _, err := proc.client.Start(); return err }); err != nil {
		return oneLine(err)
	}
	proc.pid = proc.cmd.Process.Pid
	protocol, err := proc.client.Client()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	raw, err := protocol.Dispense(proto.Service)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c := raw.(*connection)
	proc.conn, proc.done = c.conn, c.done
	ctx, cancel := context.WithTimeout(context.Background(), p.host.o.StartTimeout)
	defer cancel()
	base := pluginv1.NewPluginClient(proc.conn)
	if proc.description, err = base.Describe(ctx, &pluginv1.DescribeRequest{}); err != nil {
		return fmt.Errorf("describe: %w", FromStatus(err))
	}
	if d := proc.description; d.GetKind() != p.Kind || d.GetName() != p.Name {
		return fmt.Errorf("%s says that it is %s%s-%s: the file has the wrong name", p.Path, proto.Prefix, d.GetKind(), d.GetName())
	}
	health, err := base.Health(ctx, &pluginv1.HealthRequest{})
	if err != nil {
		return fmt.Errorf("health: %w", FromStatus(err))
	}
	if !health.GetHealthy() {
		return fmt.Errorf("it cannot work: %s", health.GetReason())
	}
	return nil
}

// onKeeper runs fn on a thread that stays until release. PR_SET_PDEATHSIG sends its signal when the
// thread that made the child ends, not the process, see prctl(2); and Go ends threads on which a
// goroutine ended locked.
func (proc *process) onKeeper(fn func() error) error {
	result, released := make(chan error, 1), make(chan struct{})
	proc.release = sync.OnceFunc(func() { close(released) })
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		result <- fn()
		<-released
	}()
	return <-result
}

// grace is how long a plugin may take to end by itself.
const grace = time.Second

// end ends the process if it has not ended, and frees what belongs to this life.
func (proc *process) end() {
	proc.once.Do(func() {
		timer := time.AfterFunc(grace, proc.kill)
		proc.client.Kill()
		timer.Stop()
		if proc.release != nil {
			proc.release()
		}
		os.RemoveAll(proc.dir)
	})
}

// kill is for a process that does not answer: end's polite request would wait for it.
func (proc *process) kill() {
	// The handle of os.Process is a pidfd: it cannot mean another process.
	if proc.cmd.Process != nil {
		_ = proc.cmd.Process.Kill() // it may have ended
	}
}

// exitError says how the process ended; done must be closed.
func (proc *process) exitError() error {
	if state := proc.cmd.ProcessState; state != nil {
		return fmt.Errorf("it ended: %v", state)
	}
	return errors.New("it ended")
}

// connection is what Dispense gives.
type connection struct {
	conn *grpc.ClientConn
	done <-chan struct{}
}

// service is a plugin as go-plugin knows it.
type service struct {
	goplugin.NetRPCUnsupportedPlugin
}

// GRPCServer is not for this side.
func (*service) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the engine serves no plugin")
}

// GRPCClient keeps the connection; ctx ends when the process has ended.
func (*service) GRPCClient(ctx context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &connection{conn, ctx.Done()}, nil
}
