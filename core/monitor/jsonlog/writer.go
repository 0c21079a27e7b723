package jsonlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	// batch is how much is encoded before it is written: large enough that the system call does not
	// count, small enough that the buffers stay in the processor's cache.
	batch = 64 << 10
	// roomy is the size of the buffers: a batch and the largest entry, whose text may grow sixfold.
	roomy = batch + 6*maxEntry + 4096
)

// Options say where a log goes.
type Options struct {
	Path    string
	MaxSize int64 // bytes after which the file is rotated; 0: never
	MaxFile int   // files that are kept, the current one included; less than 1 is 1
	Attrs   map[string]string
	// Compress packs each file with gzip when it was rotated.
	Compress bool
}

// Writer appends to a log. Its methods may be called in parallel.
type Writer struct {
	options Options
	attrs   []byte

	mu      sync.Mutex
	file    *os.File
	size    int64
	dropped int64

	packing sync.WaitGroup // of the file that was rotated last
}

// Open opens the log for appending. An entry that a crash cut off in its middle is ended, so that
// it spoils only itself.
func Open(o Options) (*Writer, error) {
	w := &Writer{options: o, attrs: encodeAttrs(o.Attrs)}
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.options.Path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.file, w.size = f, info.Size()
	if w.size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, w.size-1); err == nil && last[0] != '\n' {
			n, _ := f.WriteString("\n") // a full disk is met again at the first entry
			w.size += int64(n)
		}
	}
	return nil
}

// Close closes the file, and waits until the one before it is packed. What is written afterwards is
// dropped.
func (w *Writer) Close() error {
	defer w.packing.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// Dropped returns how many bytes of the log were lost because the disk did not take them.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, roomy); return &b }}

// entries is a run of entries that are being added. The writer is locked for so long, so that the
// two streams do not mix inside a batch.
type entries struct {
	w      *Writer
	pooled *[]byte
	b      []byte

	tail     []byte // of the entries of tailTime
	tailTime time.Time
}

// Begin locks the log for a run of entries.
func (w *Writer) Begin() Batch {
	p := buffers.Get().(*[]byte)
	w.mu.Lock()
	return &entries{w: w, pooled: p, b: (*p)[:0]}
}

// Add adds one.
func (e *entries) Add(text []byte, s Stream, t time.Time) {
	w := e.w
	if w.options.MaxSize > 0 && w.size+int64(len(e.b)) >= w.options.MaxSize {
		e.flush()
		w.rotate()
	}
	if e.tail == nil || !t.Equal(e.tailTime) { // a run is of one stream
		e.tail, e.tailTime = appendTail(e.tail[:0], s, t, w.attrs), t
	}
	e.b = appendEntry(e.b, text, e.tail)
	if len(e.b) >= batch {
		e.flush()
	}
}

// End writes what is left and unlocks the log.
func (e *entries) End() {
	e.flush()
	e.w.mu.Unlock()
	if cap(e.b) <= roomy {
		*e.pooled = e.b[:0]
		buffers.Put(e.pooled)
	}
}

// flush writes the entries. Those that the disk does not take are dropped as a whole: an entry
// that was written in part is taken back, so that the file stays one object a line.
func (e *entries) flush() {
	w := e.w
	if len(e.b) == 0 {
		return
	}
	lost := len(e.b)
	if w.file != nil {
		n, err := w.file.Write(e.b)
		if err == nil {
			lost = 0
			w.size += int64(n)
		} else if n > 0 && w.file.Truncate(w.size) != nil {
			w.size += int64(n)
		}
	}
	w.dropped += int64(lost)
	e.b = e.b[:0]
}

// rotate moves the current file to path.1, that to path.2 and so on, and begins another. A reader
// that has a file open goes on reading it. When that cannot be done the current file goes on.
func (w *Writer) rotate() {
	w.packing.Wait() // of the rotation before: only one file is not packed yet
	path, keep := w.options.Path, max(w.options.MaxFile, 1)
	// The last one is removed, also where it would be overwritten: it may have the other form. The
	// current file is not truncated: who follows it would lose what it has not read yet.
	for _, last := range []string{rotated(path, keep-1), packed(path, keep-1)} {
		if err := os.Remove(last); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
	for i := keep - 1; i > 0; i-- {
		for _, form := range []func(string, int) string{rotated, packed} {
			if err := os.Rename(form(path, i-1), form(path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return
			}
		}
	}
	old, size := w.file, w.size
	if err := w.open(); err != nil {
		w.file, w.size = old, size
		return
	}
	if old != nil {
		old.Close()
	}
	if w.options.Compress && keep > 1 {
		w.packing.Go(func() { pack(path) })
	}
}

// rotated returns the name of the file that was rotated i times.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}
