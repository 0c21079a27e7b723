//go:build crashpoints

package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Variable is the environment variable with the directory that Arm reads.
const Variable = "SAMPAN_CRASH"

var armed struct {
	sync.Mutex
	dir   string
	count int
}

// Arm has this process count its points from now on, if the environment says so.
func Arm() error {
	dir := os.Getenv(Variable)
	if dir == "" {
		return nil
	}
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("%s=%q: expected an absolute path", Variable, dir)
	}
	armed.Lock()
	defer armed.Unlock()
	armed.dir = dir
	return nil
}

// Point is a place at which the process may die; what names the thing, where the moment.
func Point(what, where string) {
	armed.Lock()
	defer armed.Unlock()
	if armed.dir == "" {
		return
	}
	// Read each time: a test arms a daemon that runs, for one operation after the other.
	deadly, err := read(filepath.Join(armed.dir, "arm"))
	if errors.Is(err, fs.ErrNotExist) {
		armed.count = 0
		return
	}
	if err != nil {
		panic(err)
	}
	armed.count++
	if err := note(filepath.Join(armed.dir, "trace"), what+" "+where+"\n"); err != nil {
		panic(err)
	}
	if armed.count == deadly {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // with the lock: nobody comes past another point
	}
}

func read(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func note(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
