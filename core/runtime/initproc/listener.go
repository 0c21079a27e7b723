package initproc

import (
	"fmt"
	"os"
	"runtime"
)

// listener makes ready for a seccomp program that hands system calls to an agent (seccomp_unotify(2)),
// and returns what takes the file of the notifications to the parent, who gives it to the agent.
//
// The program may hand the agent the very calls with which the file is sent, and nobody would answer. So
// another thread sends it, which is there before the program is loaded and never has it: a program is
// loaded into one thread.
func (p *process) listener() (handOver func(fd int) error) {
	files, done, ready := make(chan int), make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(ready)
		// Not in the thread that has the program: os.NewFile calls fcntl(2), which the program may hand over.
		f := os.NewFile(uintptr(<-files), "seccomp listener")
		err := p.parent.send(kindListener, nil, f)
		f.Close()
		if err == nil {
			var kind byte
			// The agent has it before the program of the container runs.
			if kind, _, err = p.parent.receive(); err == nil && kind != kindListener {
				err = fmt.Errorf("got a message of kind %q", kind)
			}
		}
		done <- err
	}()
	<-ready
	return func(fd int) error {
		files <- fd
		if err := <-done; err != nil {
			return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
		}
		return nil
	}
}

// listen is the parent's part of it.
func (d *Dialogue) listen() error {
	f := d.c.in.Take()
	if f == nil || d.Listener == nil {
		return fmt.Errorf("the container's process sent no file of seccomp notifications, or nobody wants it")
	}
	err := d.Listener(f)
	f.Close()
	if err != nil {
		return err
	}
	return d.c.send(kindListener, nil, nil)
}
