// Package monitor is the client's side of the monitor: the one process that is the parent of every
// container, and holds their pipes, terminals, logs and exit statuses, so that the daemon can be
// killed and replaced while they run. The monitor itself is core/monitor/server, and the program
// that runs it is `sampan-runtime monitor`.
//
//	client, err := monitor.Ensure(ctx, monitor.EnsureOptions{Socket: ..., Root: ..., Program: ...})
//	status, err := client.Create(ctx, monitor.Config{ID: id, Bundle: dir, Spec: spec, ...})
//	stream, err := client.Attach(ctx, id, "", monitor.AttachConfig{Stdout: true, Stderr: true})
//	err = client.Start(ctx, id)
//	exit, err := client.Wait(ctx, id, "")
//	err = client.Delete(ctx, id, false)
//
// # Lives
//
// The monitor belongs to an exec-root. Ensure finds it by its socket or starts it in a session of
// its own; it goes on when its clients die, and ends itself when it has neither containers nor
// clients for a while. A container is known from Create to Delete, also while it is stopped: its
// exit status waits for the daemon that was away. A daemon that comes back calls List and Watch.
//
// When the monitor itself is killed, its containers lose their pipes and their parent. The next
// monitor finds them by the runtime's state directory: those whose process still lives are adopted
// (kill, pause, stats, exec and Wait work; there is no stream to attach to, and what they write is
// lost), those that ended have the exit status that was written down when they ended, right after it was sent to
// those who watch, or, if they ended with the monitor, code 255 and Lost. Delete works on all of them.
//
// # Streams
//
// What the process writes goes to the log first and then to every attached client. A client that
// does not read holds the process back once the socket's buffer is full, as with Docker: a slow
// pipe behind `sampan run` must get every byte. When the process has ended nothing holds back any
// more: what is left is queued for each client, the log is closed, and only then the exit is told.
package monitor

import (
	"net/netip"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/monitor/journal"
	"github.com/sampan-project/sampan/core/mount"
)

// Config describes a container to be created. The files are needed for the call only: the monitor
// gets its own duplicates.
type Config struct {
	ID         string        `json:"id"`
	Bundle     string        `json:"bundle"`
	Spec       *specs.Spec   `json:"spec"`
	RootMounts []mount.Mount `json:"rootMounts,omitempty"`
	NetNS      *os.File      `json:"-"` // the network namespace, over the spec's; nil: as the spec says
	Hold       []*os.File    `json:"-"` // kept open until Delete: sockets that reserve published ports
	// Forward is, for each of Hold, whither the monitor carries what reaches the socket itself; zero: nowhere.
	Forward   []netip.AddrPort `json:"forward,omitempty"`
	Log       LogConfig        `json:"log"`
	OpenStdin bool             `json:"openStdin,omitempty"` // without it stdin is /dev/null
	StdinOnce bool             `json:"stdinOnce,omitempty"` // the first attached client that ends its input ends the container's

	// ConsoleHeight and ConsoleWidth are the first size of the terminal; 0: as the spec says.
	ConsoleHeight uint16 `json:"consoleHeight,omitempty"`
	ConsoleWidth  uint16 `json:"consoleWidth,omitempty"`

	// Runtime makes the container in our runtime's place; nil: ours.
	Runtime *Runtime `json:"runtime,omitempty"`

	// ClampDefaults is the runtime's: limits that the host does not permit are lowered, not refused.
	ClampDefaults bool `json:"clampDefaults,omitempty"`
	// SystemdCgroup: systemd makes the cgroup, and the spec's cgroupsPath is slice:prefix:name. It is said of
	// each container, as a monitor lives on when a daemon with another driver comes.
	SystemdCgroup bool `json:"systemdCgroup,omitempty"`
}

// Runtime is another OCI runtime: a program with runc's command line.
type Runtime struct {
	Name string   `json:"name"` // for messages
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"` // before the verb
}

// LogConfig says where the output of a container is kept.
type LogConfig struct {
	// Driver is "json-file", "local" (the same format), "syslog", "journald" or "none"; "" is none. Of the
	// two that send the output elsewhere, what has a Path is kept in it too, so that it can be read here.
	Driver     string            `json:"driver"`
	Path       string            `json:"path,omitempty"`
	MaxSize    int64             `json:"maxSize,omitempty"`  // bytes a file may have before it is rotated; 0: no bound
	MaxFile    int               `json:"maxFile,omitempty"`  // files that are kept, this one included; 0 is 1
	Compress   bool              `json:"compress,omitempty"` // pack files that are rotated
	Attributes map[string]string `json:"attributes,omitempty"`

	// Buffer is how many bytes of output may wait for a slow log before it loses entries; 0: none, the
	// container waits.
	Buffer int64 `json:"buffer,omitempty"`

	Address  string            `json:"address,omitempty"`  // syslog: as Docker's syslog-address; "" is /dev/log
	Facility int               `json:"facility,omitempty"` // syslog: RFC 5424, section 6.2.1
	TLS      *journal.TLS      `json:"tls,omitempty"`      // syslog at a tcp+tls address
	Format   string            `json:"format,omitempty"`   // syslog: rfc3164, rfc5424, rfc5424micro; "" is the one for /dev/log
	Tag      string            `json:"tag,omitempty"`
	Fields   map[string]string `json:"fields,omitempty"` // journald: of every entry
}

// ExecConfig describes a further process in a running container.
type ExecConfig struct {
	ID        string         `json:"id"` // names it from now on
	Process   *specs.Process `json:"process"`
	OpenStdin bool           `json:"openStdin,omitempty"` // without it stdin is /dev/null

	ConsoleHeight uint16 `json:"consoleHeight,omitempty"`
	ConsoleWidth  uint16 `json:"consoleWidth,omitempty"`
	ClampDefaults bool   `json:"clampDefaults,omitempty"`
}

// AttachConfig says which streams a client wants.
type AttachConfig struct {
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

// The states of a container, in the words of the OCI runtime specification.
const (
	Created = "created"
	Running = "running"
	Paused  = "paused"
	Stopped = "stopped"
)

// Status is what the monitor knows of a container, or of an exec process when ExecID is set.
type Status struct {
	ID        string    `json:"id"`
	ExecID    string    `json:"execId,omitempty"`
	Pid       int       `json:"pid"`
	State     string    `json:"state"`
	StartedAt time.Time `json:"startedAt,omitzero"` // zero: never started
	Exit      *Exit     `json:"exit,omitempty"`     // nil: has not ended
	Terminal  bool      `json:"terminal,omitempty"`
	// Netns is the path by which another process of root opens the container's network namespace,
	// from Create to Delete, also when every process in it is gone; "" when Config.NetNS was nil.
	Netns string `json:"netns,omitempty"`
	OOM   bool   `json:"oom,omitempty"` // the kernel killed a process of it for want of memory
	// Adopted: an earlier monitor made it and died, see the package comment.
	Adopted bool     `json:"adopted,omitempty"`
	Execs   []Status `json:"execs,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	Code      int       `json:"code"`             // its exit code, or 128 and the signal's number
	Signal    int       `json:"signal,omitempty"` // the signal that ended it, or 0
	At        time.Time `json:"at"`
	Pid       int       `json:"pid,omitempty"` // that it had: tells the runs of a container apart
	OOMKilled bool      `json:"oomKilled,omitempty"`
	// Lost: nobody saw the end, At is when it was noticed and Code is 255.
	Lost bool `json:"lost,omitempty"`
}

// Event tells that a process ended. Its output is complete in the log by then.
type Event struct {
	ID     string `json:"id"`
	ExecID string `json:"execId,omitempty"` // "" for the container itself
	// Started is false for a container whose program never ran: Start failed, or it was killed before.
	Started bool `json:"started"`
	Exit    Exit `json:"exit"`
}
