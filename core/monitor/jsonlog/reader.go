package jsonlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"
)

const (
	// maxLine bounds a line of a log file. An entry has 16 KiB of text, at worst six times that when
	// every byte is escaped, and its attributes.
	maxLine = 1 << 20
	// maxFiles bounds the search for rotated files.
	maxFiles = 1000
)

// All is the Tail that takes every entry.
const All = -1

// Query says what is to be read.
type Query struct {
	Path  string
	Tail  int       // only so many entries of those written by now, or All
	Since time.Time // not what is older
	Until time.Time // not what is younger; when that is read the reading ends
	// Follow goes on with what is written later, across rotation, until Ended is closed and the rest
	// was read. The container's end must be known to be in the log by then (monitor.Client.Wait).
	Follow bool
	Ended  <-chan struct{} // nil: never
}

// Read returns the entries of a log, the oldest first. As with Docker, Tail counts before Since and
// Until choose. A line that is no entry is skipped: a crash or a full disk may have cut it. A log
// that does not exist has no entries. After an error the sequence ends; when ctx ends it ends with
// the context's error. The entry is valid until the next one.
func Read(ctx context.Context, q Query) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		r := &reader{q: q, yield: yield}
		defer r.close()
		err := r.run(ctx)
		if err != nil && !errors.Is(err, errStop) {
			yield(nil, err)
		}
	}
}

// errStop ends a reading that has got all it wanted, or whose caller has.
var errStop = errors.New("stop")

type reader struct {
	q     Query
	yield func(*Entry, error) bool
	entry Entry
	files []*part // what is to be read, the oldest first; the first is being read
	lines *bufio.Reader
	begun []byte // a line whose newline has not been written yet
	watch *watch
}

func (r *reader) close() {
	closeAll(r.files)
	if r.watch != nil {
		r.watch.close()
	}
}

func closeAll(files []*part) {
	for _, f := range files {
		f.Close()
	}
}

func (r *reader) run(ctx context.Context) (err error) {
	if r.q.Follow {
		// Before the first look at the files, so that nothing happens unseen in between.
		r.watch = newWatch(r.q.Path)
	}
	ended := r.q.Ended
	if !r.q.Follow {
		ended = closedChannel
	}
	if r.files, err = openAll(r.q.Path, nil); err != nil {
		return err
	}
	if err := r.skip(); err != nil {
		return err
	}
	waiting := ctx
	if r.q.Follow && !r.q.Until.IsZero() { // nobody may write the younger entry that would end it
		var cancel context.CancelFunc
		waiting, cancel = context.WithDeadline(ctx, r.q.Until)
		defer cancel()
	}
	for {
		over := isClosed(ended) || waiting.Err() != nil // before looking: what is found afterwards is all
		if r.q.Follow {
			if err := r.successors(); err != nil {
				return err
			}
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
		if over {
			return nil
		}
		if err := r.watch.wait(waiting, ended); err != nil && ctx.Err() != nil {
			return err
		}
	}
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// maxScans bounds how often the files are looked for again because they were rotated meanwhile.
const maxScans = 100

// openAll opens the files of the log, the oldest first, down to but not including the file that is
// known to have been read.
func openAll(path string, until *part) ([]*part, error) {
	for scans := 1; ; scans++ {
		files, whole, err := scan(path, until)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		if whole || scans == maxScans {
			slices.Reverse(files)
			return files, nil
		}
		closeAll(files)
	}
}

// scan is one look at the files, the youngest first. Rotation moves files only to higher numbers, so
// looking from low to high passes none by that was there at the beginning; one that moved meanwhile
// is seen twice, and taken once. While it rotates one number is free, that of the file that was just
// moved: two free ones in a row are the end. All this is sure only if no file was begun meanwhile.
func scan(path string, until *part) (files []*part, whole bool, err error) {
	var current *part
	missing := 0
	for i := 0; i < maxFiles && missing < 2; i++ {
		p, err := openPart(path, i)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return files, false, fmt.Errorf("read log: %w", err)
		}
		missing = 0
		if i == 0 {
			current = p
		}
		if until != nil && p.same(until) {
			p.Close()
			break
		}
		if slices.ContainsFunc(files, func(o *part) bool { return p.same(o) }) {
			p.Close()
			continue
		}
		files = append(files, p)
	}
	now, err := os.Stat(path)
	if current == nil || err != nil {
		return files, len(files) == 0 && err != nil, nil
	}
	return files, os.SameFile(current.info, now), nil
}

// skip goes to the first entry that Tail wants, and past the files that end before Since.
func (r *reader) skip() error {
	if r.q.Tail >= 0 {
		want := r.q.Tail
		i := len(r.files) - 1
		for ; i >= 0; i-- {
			err := r.files[i].unpack()
			found := 0
			if err == nil {
				found, err = seekTail(r.files[i].File, want)
			}
			if err != nil {
				return fmt.Errorf("read log: %w", err)
			}
			if want -= found; want == 0 {
				break
			}
		}
		r.dropFiles(max(i, 0))
	} else if !r.q.Since.IsZero() {
		n := 0
		for n < len(r.files)-1 {
			info, err := r.files[n].Stat()
			if err != nil || !info.ModTime().Before(r.q.Since) {
				break
			}
			n++
		}
		r.dropFiles(n)
	}
	return nil
}

func (r *reader) dropFiles(n int) {
	closeAll(r.files[:n])
	r.files = r.files[n:]
}

// seekTail places f before its last n lines and returns how many there are, at most n. It reads from
// the end, and no more than it must.
func seekTail(f *os.File, n int) (found int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return 0, err
	}
	const chunk = 64 << 10
	buf := make([]byte, min(chunk, end))
	newlines := 0
	for at := end; at > 0; {
		b := buf[:min(int64(len(buf)), at)]
		at -= int64(len(b))
		if _, err := f.ReadAt(b, at); err != nil {
			return 0, err
		}
		for i := len(b); ; {
			if i = bytes.LastIndexByte(b[:i], '\n'); i < 0 {
				break
			}
			// The newline at the very end ends the last line; the n-th before it ends the line before ours.
			if at+int64(i)+1 == end {
				continue
			}
			if newlines++; newlines == n {
				_, err := f.Seek(at+int64(i)+1, io.SeekStart)
				return n, err
			}
		}
	}
	if end > 0 {
		found = newlines + 1
	}
	_, err = f.Seek(0, io.SeekStart)
	return found, err
}

// drain reads the files to their present end and keeps the last one open.
func (r *reader) drain(ctx context.Context) error {
	for len(r.files) > 0 {
		if err := r.drainFile(ctx); err != nil {
			return err
		}
		if len(r.files) == 1 {
			return nil
		}
		r.begun = nil // a file that was rotated gets no further
		r.dropFiles(1)
		r.lines = nil
	}
	return nil
}

func (r *reader) drainFile(ctx context.Context) error {
	if r.lines == nil {
		if err := r.files[0].unpack(); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		r.lines = bufio.NewReaderSize(r.files[0], 64<<10)
	}
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line, err := r.lines.ReadSlice('\n')
		if err == nil && len(r.begun) == 0 {
			if err := r.line(line[:len(line)-1]); err != nil {
				return err
			}
			continue
		}
		r.begun = append(r.begun, line...)
		switch {
		case err == nil:
			err := r.line(r.begun[:len(r.begun)-1])
			r.begun = r.begun[:0]
			if err != nil {
				return err
			}
		case errors.Is(err, bufio.ErrBufferFull):
			if len(r.begun) > maxLine {
				r.begun = r.begun[:maxLine] // no entry is that long: its end will be found, and it is skipped
			}
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("read log: %w", err)
		}
	}
}

// line gives one line of a file to the caller, if it is an entry that is wanted.
func (r *reader) line(b []byte) error {
	if decode(b, &r.entry) != nil {
		return nil //nolint:nilerr // see Read: such a line is skipped
	}
	switch {
	case r.entry.Time.Before(r.q.Since):
		return nil
	case !r.q.Until.IsZero() && r.entry.Time.After(r.q.Until):
		return errStop
	case !r.yield(&r.entry, nil):
		return errStop
	}
	return nil
}

// successors looks whether the file that was read last has been rotated away, and if so reads its
// rest and goes on with those that came after it.
func (r *reader) successors() error {
	var last *part
	if len(r.files) > 0 {
		last = r.files[len(r.files)-1] // the youngest that is open
		if now, err := os.Stat(r.q.Path); err == nil && !last.gzip && os.SameFile(last.info, now) {
			return nil
		}
	}
	next, err := openAll(r.q.Path, last)
	if err != nil {
		return err
	}
	// The writer opens a file only when it is done with the one before.
	r.files = append(r.files, next...)
	return nil
}
