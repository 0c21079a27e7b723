package initproc

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/initproc/wire"
)

// A message is a kind, the length of its payload (4 bytes, big endian) and the payload. Files may
// come along.
const (
	kindConfig   = 'c' // with the socket for Start and the files of Config.Joins
	kindConsole  = 't' // with the terminal's master
	kindWarning  = 'w'
	kindTree     = 'm' // with the number of a mount, a question; the parent answers with its tree
	kindHooks    = 'h' // the parent answers with one of the same kind when it has run them
	kindReady    = 'r' // Create is done
	kindGo       = 'g' // execve comes next
	kindListener = 'l' // with the file of seccomp notifications; the parent answers with one of the same kind
	kindError    = 'e'
)

// maxMessage bounds a message. The largest is the configuration, whose spec the caller has bounded.
const maxMessage = 16 << 20

// Failure is an error of a process inside a container. It unwraps to the system's error number,
// when there is one.
type Failure struct {
	Message string      `json:"message"`
	Errno   unix.Errno  `json:"errno,omitempty"`
	Class   fault.Class `json:"class,omitempty"`
}

func (f *Failure) Error() string { return f.Message }

// Unwrap returns the error number.
func (f *Failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// channel sends and receives messages.
type channel struct {
	socket *os.File
	in     *linux.Receiver
}

func newChannel(socket *os.File) channel {
	return channel{socket, &linux.Receiver{Socket: socket}}
}

// send sends a message and a file, or none.
func (c channel) send(kind byte, payload []byte, file *os.File) error {
	if file == nil {
		return c.sendFiles(kind, payload)
	}
	return c.sendFiles(kind, payload, file)
}

func (c channel) sendFiles(kind byte, payload []byte, files ...*os.File) error {
	message := make([]byte, 5, 5+len(payload))
	message[0] = kind
	binary.BigEndian.PutUint32(message[1:], uint32(len(payload)))
	return linux.SendFiles(c.socket, append(message, payload...), files...)
}

// receive reads one message; io.EOF when the other side is gone.
func (c channel) receive() (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxMessage {
		return 0, nil, fmt.Errorf("message of %d bytes, expected at most %d", size, maxMessage)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(c.in, payload)
	return head[0], payload, err
}

func (c channel) config(to *Config) error {
	kind, payload, err := c.receive()
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if kind != kindConfig {
		return fmt.Errorf("read the configuration: got a message of kind %q", kind)
	}
	if err := wire.Decode(payload, to); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	return nil
}

// fail tells the other side why this process ends.
func (c channel) fail(err error) {
	f := Failure{Message: err.Error(), Class: fault.ClassOf(err)}
	errors.As(err, &f.Errno)
	payload, _ := json.Marshal(f)                   //nolint:errcheck,errchkjson // plain fields
	c.send(kindError, payload, nil)                 //nolint:errcheck // there is nobody else to tell
	unix.Shutdown(int(c.socket.Fd()), unix.SHUT_WR) //nolint:errcheck // the end of the process does it too
}

// warn tells of something that was not done as asked.
func (c channel) warn(format string, args ...any) {
	c.send(kindWarning, fmt.Appendf(nil, format, args...), nil) //nolint:errcheck // it is only a warning
}

// ask waits until the parent has run its hooks.
func (c channel) ask() error {
	if err := c.send(kindHooks, nil, nil); err != nil {
		return err
	}
	kind, _, err := c.receive()
	if err == nil && kind != kindHooks {
		err = fmt.Errorf("got a message of kind %q", kind)
	}
	if err != nil {
		return fmt.Errorf("wait for hooks: %w", err)
	}
	return nil
}

// Dialogue is the parent's side of the channel.
type Dialogue struct {
	c channel
	// Warn is called for every warning.
	Warn func(text string)
	// Hooks is called when the namespaces are there and nothing in them was changed yet.
	Hooks func() error
	// Tree is called for a mount that the parent must make. nil: there is none.
	Tree Tree
	// Listener is given the file of seccomp notifications.
	Listener func(*os.File) error
	// Console is the master of the terminal, once it has come.
	Console *os.File
}

// NewDialogue speaks through the socket, which stays the caller's.
func NewDialogue(socket *os.File) *Dialogue { return &Dialogue{c: newChannel(socket)} }

// Send sends the configuration, without the parts of other systems than Linux, and for Create the listening socket
// and the files of cgroups that the process is to join.
func (d *Dialogue) Send(config *Config, files ...*os.File) error {
	sent, spec := *config, *config.Spec
	sent.Joins = max(0, len(files)-1)
	spec.Solaris, spec.Windows, spec.VM, spec.ZOS, spec.FreeBSD = nil, nil, nil, nil, nil
	sent.Spec = &spec
	payload, err := wire.Append(make([]byte, 0, 8<<10), &sent)
	if err != nil {
		return fmt.Errorf("encode the configuration: %w", err)
	}
	return d.c.sendFiles(kindConfig, payload, files...)
}

// ErrEnded is the error of a process that ended without a word: it was killed.
var ErrEnded = errors.New("the container's process was killed before it could start")

// Created waits until Create's process waits for its start.
func (d *Dialogue) Created() error { return d.wait(kindReady) }

// Executed waits until the process executes the program of the container. called says that the
// process has got as far as having heard of it.
func (d *Dialogue) Executed() error {
	if err := d.wait(kindGo); err != nil {
		return err
	}
	// The end of file is that of the close-on-exec socket.
	err := d.wait(0)
	if errors.Is(err, ErrEnded) {
		return nil
	}
	return err
}

func (d *Dialogue) wait(until byte) error {
	defer d.c.in.Close()
	for {
		kind, payload, err := d.c.receive()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ErrEnded
		}
		if err != nil {
			return err
		}
		switch kind {
		case until:
			return nil
		case kindWarning:
			if d.Warn != nil {
				d.Warn(string(payload))
			}
		case kindConsole:
			if d.Console != nil {
				d.Console.Close()
			}
			d.Console = d.c.in.Take()
		case kindListener:
			if err := d.listen(); err != nil {
				return err
			}
		case kindHooks:
			if d.Hooks != nil {
				if err := d.Hooks(); err != nil {
					return err
				}
			}
			if err := d.c.send(kindHooks, nil, nil); err != nil {
				return err
			}
		case kindTree:
			if err := d.tree(payload); err != nil {
				return err
			}
		case kindError:
			f := new(Failure)
			if err := json.Unmarshal(payload, f); err != nil {
				return fmt.Errorf("the container's process failed: %q", payload)
			}
			return fault.As(f.Class, f)
		default:
			return fmt.Errorf("the container's process sent a message of kind %q", kind)
		}
	}
}
