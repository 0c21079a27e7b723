// Package plugin runs the engine's plugins: programs of their own, beside the engine and beneath it.
// It knows no noun; core/plugin/driver gives its connections the shape of drivers.
//
//	find       a Host looks for files sampan-KIND-NAME in its directories and remembers the sha256
//	           of each: that, and nothing else, is what it will run.
//	start      on the first call, by the go-plugin protocol: mutual TLS with certificates of one use,
//	           an empty environment, a deadline, and death together with the engine.
//	call       Plugin.Call gives a gRPC connection with a deadline and an operation id, and turns a
//	           status into an error with a class of core/fault.
//	supervise  a plugin that ends is started again, at once and then with longer and longer pauses;
//	           one that answers neither a call nor Health in time is killed. While it is down, calls
//	           fail at once and say why.
package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/proto"
)

// Options are what a Host needs.
type Options struct {
	// Dirs are searched in order; the first program of a name is the one. A directory that is not
	// there is no error.
	Dirs []string
	// RunDir is where the sockets are, below the engine's exec-root; "" is a temporary directory. Its
	// contents are removed.
	RunDir string
	Logger *slog.Logger // nil: discard

	StartTimeout time.Duration // 0 is 10 s
	CallTimeout  time.Duration // of a call that says nothing itself; 0 is 30 s
}

// Host is the plugins of one engine.
type Host struct {
	o      Options
	runDir string

	mu      sync.Mutex
	plugins map[string]*Plugin // by "kind/name"
	refused map[string]string  // what was found and is not taken, by "kind/name": why
	restart []func(kind, name string)
	closed  bool
}

// fileName is sampan-KIND-NAME. A kind is one word; a name may have dashes.
var fileName = regexp.MustCompile(`^` + proto.Prefix + `([a-z]+)-([a-z0-9][a-z0-9_.-]{0,63})$`)

// NewHost finds the plugins. It starts none.
func NewHost(o Options) (*Host, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 10 * time.Second
	}
	if o.CallTimeout == 0 {
		o.CallTimeout = 30 * time.Second
	}
	h := &Host{o: o, plugins: map[string]*Plugin{}}
	if err := h.prepareRunDir(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.discover(); err != nil {
		return nil, err
	}
	return h, nil
}

// maxRunDir leaves room for the name of a socket: a path in sockaddr_un has 108 bytes, unix(7).
const maxRunDir = 70

func (h *Host) prepareRunDir() error {
	if h.o.RunDir == "" || len(h.o.RunDir) > maxRunDir {
		dir, err := os.MkdirTemp("", "sampan-plugins-")
		if err != nil {
			return fmt.Errorf("directory for the sockets of plugins: %w", err)
		}
		h.runDir = dir
		return nil
	}
	h.runDir = h.o.RunDir
	// What is there is of an engine that died, and its plugins with it.
	if err := os.RemoveAll(h.runDir); err != nil {
		return fmt.Errorf("directory for the sockets of plugins: %w", err)
	}
	if err := os.MkdirAll(h.runDir, 0o700); err != nil {
		return fmt.Errorf("directory for the sockets of plugins: %w", err)
	}
	return nil
}

// discover adds the programs that are not known yet. What is known keeps its checksum.
func (h *Host) discover() error {
	h.refused = map[string]string{}
	for _, dir := range h.o.Dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("plugin directory: %w", err)
		}
		for _, e := range entries {
			m := fileName.FindStringSubmatch(e.Name())
			if m == nil {
				continue
			}
			key := m[1] + "/" + m[2]
			if _, known := h.plugins[key]; known {
				continue
			}
			path := filepath.Join(dir, e.Name())
			digest, err := examine(path)
			if err != nil {
				h.refused[key] = err.Error()
				h.o.Logger.Warn("plugin is not taken", "path", path, "error", err)
				continue
			}
			delete(h.refused, key)
			h.plugins[key] = newPlugin(h, m[1], m[2], path, digest)
			h.o.Logger.Debug("plugin found", "path", path, "sha256", hex.EncodeToString(digest))
		}
	}
	return nil
}

// examine refuses what others could change under us, and returns the checksum.
func examine(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, fmt.Errorf("%s: expected a regular file, found %v", path, mode.Type())
	case mode&0o111 == 0:
		return nil, fmt.Errorf("%s: mode %v: expected an executable file", path, mode.Perm())
	case mode&0o002 != 0:
		return nil, fmt.Errorf("%s: mode %v: everybody may write it; run chmod o-w", path, mode.Perm())
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// Plugin returns a plugin by kind and name. One that was put into a directory since the start is
// found too. An unknown name is fault.NotFound, and the error names the nearest.
func (h *Host) Plugin(kind, name string) (*Plugin, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := kind + "/" + name
	if p, ok := h.plugins[key]; ok {
		return p, nil
	}
	if err := h.discover(); err != nil {
		return nil, err
	}
	if p, ok := h.plugins[key]; ok {
		return p, nil
	}
	if why, ok := h.refused[key]; ok {
		return nil, fault.New(fault.Unavailable, "%s driver %q is not taken: %s", kind, name, why)
	}
	names := h.names(kind)
	if near := fault.Nearest(name, names); near != "" {
		return nil, fault.New(fault.NotFound, "no %s driver %q (did you mean %q?)", kind, name, near)
	}
	if len(names) == 0 {
		return nil, fault.New(fault.NotFound, "no %s driver %q: no file %s%s-%s in %v", kind, name, proto.Prefix, kind, name, h.o.Dirs)
	}
	expected := strings.Join(names, ", ")
	if len(names) > 1 {
		expected = "one of " + expected
	}
	return nil, fault.New(fault.NotFound, "no %s driver %q: expected %s", kind, name, expected)
}

// Plugins returns all of them, sorted by kind and name.
func (h *Host) Plugins() []*Plugin {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*Plugin, 0, len(h.plugins))
	for _, p := range h.plugins {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Plugin) int {
		return cmpStrings(a.Kind, b.Kind, a.Name, b.Name)
	})
	return all
}

func cmpStrings(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != pairs[i+1] {
			if pairs[i] < pairs[i+1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// Names returns the sorted names of a kind.
func (h *Host) Names(kind string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names(kind)
}

func (h *Host) names(kind string) []string {
	var names []string
	for _, p := range h.plugins {
		if p.Kind == kind {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// OnRestart has fn called, in a goroutine of its own, each time a plugin runs again after it ended.
func (h *Host) OnRestart(fn func(kind, name string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.restart = append(h.restart, fn)
}

func (h *Host) restarted(p *Plugin) {
	h.mu.Lock()
	fns := slices.Clone(h.restart)
	h.mu.Unlock()
	for _, fn := range fns {
		go fn(p.Kind, p.Name)
	}
}

// Close ends all plugins and waits for it. Calls fail from now on.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range h.Plugins() {
		all.Go(p.close)
	}
	all.Wait()
	return os.RemoveAll(h.runDir)
}

// context with the deadline of a call: the caller's, or the host's when that is nearer.
func (h *Host) deadline(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		timeout = h.o.CallTimeout
	}
	return context.WithTimeout(ctx, timeout)
}
