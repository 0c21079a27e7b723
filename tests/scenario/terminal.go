package scenario

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// terminal runs a program on a pseudo-terminal as a person would: terminal DIALOGUE CMD [ARG...].
// The lines of the dialogue are
//
//	expect TEXT    wait until TEXT has been shown, after what was expected before
//	send "KEYS"    type a Go string: "exit\r", "\x10\x11"
//	size H W       make the window so large
//
// and then the program must end by itself, with a status other than 0 after "!". What it showed is the command's standard output; testscript's
// own ttyin types everything before the program has begun to read.
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: terminal DIALOGUE CMD [ARG...]")
	}
	dialogue := ts.ReadFile(args[0])
	master, slave, err := openPTY()
	ts.Check(err)
	defer master.Close()
	s := of(ts)
	program := args[1]                                                  // the host's, as a shell
	for _, bin := range []string{s.bin, filepath.Join(s.root, "bin")} { // ours, and before it a peer's
		if beside := filepath.Join(bin, args[1]); unix.Access(beside, unix.X_OK) == nil {
			program = beside
		}
	}
	cmd := exec.Command(program, args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "SAMPAN_HOST="+ts.Getenv("SAMPAN_HOST"), "HOME="+ts.Getenv("HOME"), "PATH="+ts.Getenv("PATH"), "TERM=xterm")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	slave.Close()
	screen := newScreen(master)
	err = converse(dialogue, master, screen)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err != nil {
		_ = cmd.Process.Kill()
	}
	select {
	case werr := <-ended:
		if err == nil && (werr != nil) != neg {
			err = fmt.Errorf("%s: it ended with %w", args[1], fmt.Errorf("%v", cmd.ProcessState))
		}
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-ended //nolint:errcheck // killed
		err = fmt.Errorf("%s did not end", args[1])
	}
	<-screen.over
	fmt.Fprint(ts.Stdout(), screen.text())
	ts.Check(err)
}

// openPTY opens a pair of 24 lines of 80 characters.
func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = resize(master, 24, 80)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
	}
	return master, slave, err
}

func resize(master *os.File, height, width uint16) error {
	return unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
}

// screen collects what a terminal shows.
type screen struct {
	over chan struct{} // closed when the program has let go of the terminal

	mu    sync.Mutex
	shown bytes.Buffer
	seen  int // up to here it was expected
}

func newScreen(master io.Reader) *screen {
	s := &screen{over: make(chan struct{})}
	go func() {
		defer close(s.over)
		b := make([]byte, 4096)
		for ended := 0; ended < 2; { // EIO: nobody has the other side open. The first may come before the last output.
			n, err := master.Read(b)
			s.mu.Lock()
			s.shown.Write(b[:n])
			s.mu.Unlock()
			if err != nil {
				ended++
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

func (s *screen) expect(text string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		at := bytes.Index(s.shown.Bytes()[s.seen:], []byte(text))
		if at >= 0 {
			s.seen += at + len(text)
		}
		s.mu.Unlock()
		if at >= 0 {
			return nil
		}
	}
	return fmt.Errorf("the terminal does not show %q", text)
}

func converse(dialogue string, master *os.File, s *screen) error {
	for line := range strings.Lines(dialogue) {
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		var err error
		switch verb {
		case "":
		case "expect":
			err = s.expect(rest)
		case "send":
			var keys string
			if keys, err = strconv.Unquote(rest); err == nil {
				_, err = io.WriteString(master, keys)
			}
		case "size":
			var height, width uint16
			if _, err = fmt.Sscan(rest, &height, &width); err == nil {
				err = resize(master, height, width)
			}
		default:
			err = fmt.Errorf("expected expect, send or size")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(line), err)
		}
	}
	return nil
}
