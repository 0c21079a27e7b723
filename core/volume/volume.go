// Package volume keeps volumes: directories with names that outlive the containers that use them.
//
// A volume is a row in the database and a directory <root>/<name>/_data. It is made by Create, by
// `volume create` or by a container that names it; a container that gives no name gets an anonymous
// one of 64 hex digits. Mount says what a container binds (mounted.go). Remove refuses while a container, also
// a stopped one, names it: who does is asked from Options.InUse, so that there is no second list
// of users to keep true.
//
// A volume with options is a directory of the user's, or a filesystem that is mounted on its own directory
// while containers use it (mounted.go).
//
// The row comes before the directory and goes after it: Reconcile makes the directory of a row that
// has none, finishes a removal that was cut off, and takes up directories that have lost their row,
// because what is in a volume is a user's and nothing here deletes it on a guess.
package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/crash"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	// DriverName is the one driver that is built in: a directory on this host.
	DriverName = "local"
	// AnonymousLabel marks volumes that nobody named; prune takes only these unless told otherwise.
	AnonymousLabel = "com.docker.volume.anonymous"

	dataDir = "_data"
	workDir = "_filling" // see Populate
	// removedPrefix begins the name of a directory that is being removed; no volume's name can
	// begin with a dot.
	removedPrefix = ".removed-"
)

// Options say where volumes are and who uses them.
type Options struct {
	DB     *state.DB
	Root   string // data-root/volumes
	Logger *slog.Logger
	// UID and GID own the directory of a new volume.
	UID, GID int
	// InUse returns the ids of the containers that name the volume. It is called with no lock held
	// but must not call back into the Manager.
	InUse func(name string) []string
	// Events is told what happened to a volume; nil: nobody.
	Events func(action, name string, attributes map[string]string)
}

// Manager keeps the volumes of one data-root. Its methods may be called in parallel.
type Manager struct {
	o     Options
	table *state.Table[row]

	filling sync.Mutex // one Populate at a time; taken before mu

	mu    sync.RWMutex
	rows  map[string]row             // what the table has
	users map[string]map[string]bool // of the volumes that are mounted, by name
}

// row is a volume in the database.
type row struct {
	Name      string            `json:"name"`
	CreatedAt time.Time         `json:"createdAt"`
	Labels    map[string]string `json:"labels,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
}

// NewManager opens the volumes below Options.Root and reconciles rows and directories.
func NewManager(o Options) (*Manager, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.InUse == nil {
		o.InUse = func(string) []string { return nil }
	}
	if o.Events == nil {
		o.Events = func(string, string, map[string]string) {}
	}
	m := &Manager{o: o, table: state.NewTable[row](o.DB, "volumes"), rows: map[string]row{}, users: map[string]map[string]bool{}}
	// 0701, as dockerd: users of the host reach a volume whose name they know, but list none.
	if err := os.MkdirAll(o.Root, 0o701); err != nil {
		return nil, fmt.Errorf("volumes: %w", err)
	}
	rows, err := m.table.List()
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		m.rows[r.Name] = r
	}
	return m, m.reconcile()
}

// namePattern is dockerd's: one letter is not enough.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// ValidName returns an error in Docker's words unless name can be a volume's.
func ValidName(name string) error {
	switch {
	case len(name) > 255: // NAME_MAX
		return fault.New(fault.Invalid, "create %s...: volume name is longer than 255 characters", name[:32])
	case len(name) == 1:
		return fault.New(fault.Invalid, "create %s: volume name is too short, names should be at least two alphanumeric characters", name)
	case !namePattern.MatchString(name):
		return fault.New(fault.Invalid, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name, name)
	}
	return nil
}

// NewName returns a name for an anonymous volume.
func NewName() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Create makes the volume, or answers with the one there is when it agrees with the request. An empty
// name makes an anonymous volume.
func (m *Manager) Create(ctx context.Context, req wire.VolumeCreateRequest) (wire.Volume, error) {
	if err := Validate(req); err != nil {
		return wire.Volume{}, err
	}
	labels := maps.Clone(req.Labels)
	if req.Name == "" {
		req.Name = NewName()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[AnonymousLabel] = ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.rows[req.Name]; ok {
		if len(req.DriverOpts) > 0 && !maps.Equal(req.DriverOpts, r.Options) {
			return wire.Volume{}, fault.New(fault.Conflict, "a volume named %s already exists with other options: remove it, or choose another name", req.Name)
		}
		return m.volume(r), nil
	}
	r := row{Name: req.Name, CreatedAt: time.Now(), Labels: labels, Options: maps.Clone(req.DriverOpts)}
	if err := m.table.Put(r.Name, r); err != nil {
		return wire.Volume{}, fmt.Errorf("create volume %s: %w", r.Name, err)
	}
	if err := m.makeDirectory(r.Name); err != nil {
		err = fmt.Errorf("create volume %s: %w", r.Name, err)
		return wire.Volume{}, errors.Join(err, m.table.Delete(r.Name))
	}
	m.rows[r.Name] = r
	m.o.Events("create", r.Name, map[string]string{"driver": DriverName})
	return m.volume(r), nil
}

// Validate checks the request without making anything.
func Validate(req wire.VolumeCreateRequest) error {
	if req.Name != "" {
		if err := ValidName(req.Name); err != nil {
			return err
		}
	}
	if req.Driver != "" && req.Driver != DriverName {
		return fault.As(fault.NotFound, fmt.Errorf("%s: %w", creation(req.Name), &fault.Field{
			Field: "volume driver", Given: req.Driver, Expected: `"local", the driver that is there`, Nearest: fault.Nearest(req.Driver, []string{DriverName})}))
	}
	if _, err := parseOptions(req.DriverOpts); err != nil {
		return fmt.Errorf("%s: %w", creation(req.Name), err)
	}
	return nil
}

// creation is what an error is about: a volume without a name gets one only when all is well.
func creation(name string) string {
	if name == "" {
		return "create volume"
	}
	return "create " + name
}

func (m *Manager) makeDirectory(name string) error {
	if err := os.MkdirAll(filepath.Join(m.o.Root, name), 0o701); err != nil {
		return err
	}
	crash.Point("volume", "directory made")
	err := os.Mkdir(m.dataPath(name), 0o755)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	crash.Point("volume", "data directory made")
	return os.Chown(m.dataPath(name), m.o.UID, m.o.GID)
}

func (m *Manager) dataPath(name string) string { return filepath.Join(m.o.Root, name, dataDir) }

// volume is the row as the API shows it.
func (m *Manager) volume(r row) wire.Volume {
	v := wire.Volume{
		CreatedAt: r.CreatedAt.Format(time.RFC3339), Driver: DriverName, Labels: maps.Clone(r.Labels),
		Mountpoint: m.dataPath(r.Name), Name: r.Name, Options: maps.Clone(r.Options), Scope: "local",
	}
	return v
}

// noSuch is the error for a name that no volume has.
func noSuch(name string) error {
	return fault.New(fault.NotFound, "get %s: no such volume", name)
}

// Inspect returns the volume called name.
func (m *Manager) Inspect(ctx context.Context, name string) (wire.Volume, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r, ok := m.rows[name]
	if !ok {
		return wire.Volume{}, noSuch(name)
	}
	return m.volume(r), nil
}

// path is the directory of a volume for which nothing is mounted. It exists.
func (m *Manager) path(r row, fs *filesystem) (string, error) {
	if fs != nil && fs.bind != "" {
		if _, err := os.Stat(fs.bind); err != nil {
			return "", fault.New(fault.Invalid, "error while mounting volume '%s': failed to mount local volume: %w", m.dataPath(r.Name), err)
		}
		return fs.bind, nil
	}
	// A power failure may have taken the directory of a row that was synced.
	if err := m.makeDirectory(r.Name); err != nil {
		return "", fmt.Errorf("volume %s: %w", r.Name, err)
	}
	return m.dataPath(r.Name), nil
}

// Remove removes the volume and all that is in it. It is refused while a container names it, also
// with force: force is for a volume that is not there.
func (m *Manager) Remove(ctx context.Context, name string, force bool) error {
	m.mu.RLock()
	_, ok := m.rows[name]
	m.mu.RUnlock()
	if !ok {
		if force {
			return nil
		}
		return noSuch(name)
	}
	if users := m.o.InUse(name); len(users) > 0 {
		return fault.New(fault.Conflict, "remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.rows[name]; !ok {
		return nil // somebody was faster
	}
	return m.remove(name)
}

// remove is called with the lock held. The directory gets out of the way first, so that the row
// never goes before it, and the name is free when the row is gone, however long deleting takes.
func (m *Manager) remove(name string) error {
	from, to := filepath.Join(m.o.Root, name), filepath.Join(m.o.Root, removedPrefix+name)
	// What is mounted there is not ours to delete.
	if err := errors.Join(unmount(m.dataPath(name)), unmount(filepath.Join(to, dataDir))); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	delete(m.users, name)
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	if err := os.Rename(from, to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	crash.Point("volume", "put away")
	if err := m.table.Delete(name); err != nil {
		if back := os.Rename(to, from); back != nil && !errors.Is(back, os.ErrNotExist) {
			err = errors.Join(err, back)
		}
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	delete(m.rows, name)
	m.o.Events("destroy", name, map[string]string{"driver": DriverName})
	if err := os.RemoveAll(to); err != nil {
		// The volume is gone for everybody; Reconcile tries again.
		m.o.Logger.Warn("remove the directory of a removed volume", "volume", name, "error", err)
	}
	crash.Point("volume", "removed")
	return nil
}

// reconcile makes rows and directories agree, see the package comment.
func (m *Manager) reconcile() error {
	entries, err := os.ReadDir(m.o.Root)
	if err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	for _, e := range entries {
		name, removed := strings.CutPrefix(e.Name(), removedPrefix)
		_, known := m.rows[name]
		switch {
		case removed:
			// Deleted or just about to be: the user asked for it, so it is finished.
			if _, err := os.Lstat(filepath.Join(m.o.Root, name)); known && errors.Is(err, os.ErrNotExist) {
				if err := m.table.Delete(name); err != nil {
					return err
				}
				delete(m.rows, name)
			}
			err := unmount(filepath.Join(m.o.Root, e.Name(), dataDir))
			if err == nil {
				err = os.RemoveAll(filepath.Join(m.o.Root, e.Name()))
			}
			if err != nil {
				m.o.Logger.Warn("finish the removal of a volume", "volume", name, "error", err)
			}
		case known || !e.IsDir() || ValidName(name) != nil:
		default:
			if _, err := os.Stat(m.dataPath(name)); err != nil {
				continue
			}
			r := row{Name: name, CreatedAt: created(m.dataPath(name))}
			if err := m.table.Put(name, r); err != nil {
				return err
			}
			m.rows[name] = r
			m.o.Logger.Info("took up a volume that the database did not know", "volume", name)
		}
	}
	for name := range m.rows {
		if err := m.makeDirectory(name); err != nil {
			return fmt.Errorf("volume %s: %w", name, err)
		}
	}
	return nil
}

// created is when the directory was changed last: the nearest to its birth that every filesystem has.
func created(path string) time.Time {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return time.Now()
	}
	return time.Unix(st.Ctim.Unix())
}

// Populate fills an empty volume by fill, which is given an empty directory. A volume that has files,
// or that options put elsewhere, is left alone. What fill wrote shows all at once, and a crash in
// between leaves the volume empty, unless another container has the volume: then it may have bound
// the directory already, which for that reason cannot be replaced, and is filled in place.
func (m *Manager) Populate(ctx context.Context, name string, fill func(dir string) error) error {
	m.filling.Lock()
	defer m.filling.Unlock()
	m.mu.RLock()
	r, ok := m.rows[name]
	m.mu.RUnlock()
	if !ok {
		return noSuch(name)
	}
	fs, err := parseOptions(r.Options)
	if err != nil {
		return err
	}
	if fs != nil {
		return m.populateMounted(ctx, name, fill)
	}
	data := m.dataPath(name)
	if empty, err := isEmpty(data); err != nil || !empty {
		return err
	}
	if len(m.o.InUse(name)) > 1 { // one is the container that asks
		return fill(data)
	}
	work := filepath.Join(m.o.Root, name, workDir)
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	crash.Point("volume", "filling")
	err = os.Chown(work, m.o.UID, m.o.GID)
	if err == nil {
		err = fill(work)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(work))
	}
	crash.Point("volume", "filled")
	// rename(2) takes the place of an empty directory, which os.Rename does not let it, and refuses one
	// with files in it, so nothing that came meanwhile is lost.
	if err := unix.Rename(work, data); err != nil {
		return errors.Join(fmt.Errorf("volume %s: rename %s to %s: %w", name, work, data, err), os.RemoveAll(work))
	}
	crash.Point("volume", "filled and in its place")
	return nil
}

// populateMounted fills what is mounted for the time, if it is empty. A filesystem in memory is as empty
// afterwards as before, as with Docker.
func (m *Manager) populateMounted(ctx context.Context, name string, fill func(dir string) error) error {
	const user = "populate" // no container's id
	dir, err := m.Mount(ctx, name, user)
	if err != nil {
		return err
	}
	empty, err := isEmpty(dir)
	if err == nil && empty {
		err = fill(dir)
	}
	return errors.Join(err, m.Unmount(context.WithoutCancel(ctx), user))
}

func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, fmt.Errorf("volume: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("volume: %w", err)
	}
	// What mkfs makes is nobody's file.
	return len(names) == 0 || len(names) == 1 && names[0] == "lost+found", nil
}
