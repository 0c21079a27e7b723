package jsonlog

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is how often a log is looked at when inotify cannot be had: a user may have 128
// instances only (fs.inotify.max_user_instances), and follow more logs than that.
const pollInterval = 200 * time.Millisecond

// watch wakes a reader when something in the log's directory was written, made or moved.
type watch struct {
	file *os.File // inotify(7); nil: poll
	buf  [4096]byte
}

// newWatch watches the directory and not the file, because rotation replaces the file.
func newWatch(path string) *watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &watch{}
	}
	const events = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), events); err != nil {
		unix.Close(fd)
		return &watch{}
	}
	return &watch{file: os.NewFile(uintptr(fd), "inotify")}
}

func (w *watch) close() {
	if w.file != nil {
		w.file.Close()
	}
}

// wait returns when something happened, or ended is closed; or with the context's error. It may return
// for nothing.
func (w *watch) wait(ctx context.Context, ended <-chan struct{}) error {
	if w.file == nil {
		select {
		case <-time.After(pollInterval):
		case <-ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return nil
	}
	// Whatever ends the waiting moves the deadline of the read into the past.
	past := time.Unix(1, 0)
	done := make(chan struct{})
	woken := make(chan struct{})
	go func() {
		defer close(woken)
		select {
		case <-ended:
		case <-ctx.Done():
		case <-done:
			return
		}
		w.file.SetReadDeadline(past) //nolint:errcheck // an inotify file has deadlines
	}()
	// What happened does not matter, the files say it.
	_, err := w.file.Read(w.buf[:])
	close(done)
	<-woken
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && !os.IsTimeout(err):
		w.file.Close()
		w.file = nil
	}
	return nil
}
