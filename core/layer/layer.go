// Package layer keeps unpacked image layers and the snapshots that containers write on, for the
// kernel's overlay filesystem (Documentation/filesystems/overlayfs.rst).
//
// A layer is named by its chain ID (image-spec, "Layer ChainID"): the digest of itself and of all
// that lies below it. Its life: Stage reads the layer's tar into a directory below tmp/, with
// whiteouts in the overlay's form, without looking at other layers, so that all layers of an image
// can be staged at once; Staged.Commit settles what depends on the layers below and renames the
// directory to its final name. Unpack is both. Release removes a layer on which nothing stands.
//
// A snapshot is a writable directory on top of a chain. Prepare makes it and answers with mounts,
// never with a path: the container mounts them inside its own mount namespace. Diff writes what
// was changed as a layer tar; Remove throws it away. A snapshot that its owner forgot is found and
// removed by Reconcile.
//
//	overlay2/
//	  <chain ID's hex>/layer.json   what the layer is; a directory with it is whole
//	  <chain ID's hex>/diff/        its files; a link to where they are shown, see lazy.go
//	  <chain ID's hex>/init/        mount points for the engine's own mounts, see initLayer
//	  <snapshot>/lower              symbolic link to the chain ID it stands on, not a path
//	  <snapshot>/{diff,work}/       the overlay's upper and work directories
//	  empty/{diff,none}/            the lowest directories of a chain of fewer than two layers
//	  l/<short name>                links to diff and init, so that options stay below a page
//	  tmp/                          what is being made or removed
//
// Nothing here is synced: a row of the image store that speaks of a layer is written after the
// filesystem was (content.Store.Sync), and what no row speaks of is removed at the next start.
package layer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
)

// Layer is one unpacked layer.
type Layer struct {
	ChainID digest.Digest `json:"chainID"`
	DiffID  digest.Digest `json:"diffID"`
	Parent  digest.Digest `json:"parent,omitempty"` // chain ID, "" for the first
	Size    int64         `json:"size"`             // bytes of its regular files
	Link    string        `json:"link"`             // its name below l/
}

// Chain returns the chain ID of diff on top of parent.
func Chain(parent, diff digest.Digest) digest.Digest {
	if parent == "" {
		return diff
	}
	return digest.FromString(parent.String() + " " + diff.String())
}

// ChainOf returns the chain IDs of a row of diff IDs, lowest first.
func ChainOf(diffs []digest.Digest) []digest.Digest {
	var parent digest.Digest
	chains := make([]digest.Digest, len(diffs))
	for i, d := range diffs {
		parent = Chain(parent, d)
		chains[i] = parent
	}
	return chains
}

// Limits bound what one layer may unpack to. A real layer comes nowhere near the defaults; a bomb
// meets them before it has filled the disk's inodes.
type Limits struct {
	Bytes   int64 // of all regular files together
	Entries int64 // files, and directories that are made on the way to them
	Names   int64 // bytes of all names together, some of which are remembered
}

// MaxLayers is how many layers an image can have: the kernel's overlay has at most 500 (OVL_MAX_STACK), and one is for
// the mount points.
const MaxLayers = 499

var defaultLimits = Limits{Bytes: 1 << 37, Entries: 4 << 20, Names: 1 << 28}

// Store keeps layers and snapshots in a directory. Its methods may be called in parallel.
type Store struct {
	root   string
	opened time.Time
	log    *slog.Logger
	limits Limits
	suffix string // overlay options that this kernel needs, see kernelOptions
	// volatile: this kernel has mounts of which nothing is written to the disk.
	volatile bool
	xfs      bool // the filesystem may keep limits
	quotas   quotas

	release func(chain digest.Digest)                            // see OnRelease; nil: nobody is told
	whole   func(ctx context.Context, chain digest.Digest) error // see OnUse; nil: nobody is asked

	mu        sync.Mutex
	layers    map[digest.Digest]*layerState
	snapshots map[string]digest.Digest // directory name -> chain
	links     map[string]bool
	garbage   []string // directories that Open could make nothing of

	removals sync.WaitGroup
	closing  chan struct{} // closed by the first Close: what waits in the background does so no longer
	once     sync.Once
}

type layerState struct {
	Layer
	users int // layers and snapshots that stand on it
	// released says that its owner gave it up: it goes with its last user.
	released bool

	init sync.Mutex // held while the init directory is made
	// ready says that the init directory is there.
	ready bool
}

const (
	tmpDir   = "tmp"
	linkDir  = "l"
	emptyDir = "empty"
	metaFile = "layer.json"
)

var hex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Open opens the store in root (data-root/overlay2) and makes it when it is missing. logger may be nil.
func Open(root string, logger *slog.Logger) (*Store, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	if strings.ContainsAny(root, ",:\\\"") {
		// They would need escapes that differ between mount(2) and fsconfig(2).
		return nil, &fault.Field{Field: "data-root", Given: root, Expected: `a path without , : \ and "`}
	}
	s := &Store{
		closing: make(chan struct{}),
		root:    root, opened: time.Now(), log: logger, limits: defaultLimits, suffix: kernelOptions(), volatile: kernelHasVolatile(),
		layers: map[digest.Digest]*layerState{}, snapshots: map[string]digest.Digest{}, links: map[string]bool{},
	}
	for _, dir := range []string{tmpDir, linkDir, filepath.Join(emptyDir, "diff"), filepath.Join(emptyDir, "none")} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open layer store: %w", err)
		}
	}
	s.xfs = onXFS(root)
	// 0700: a set-user-ID program of an image is root's in a container, and would be on the host to
	// whoever could walk to it. The kernel asks for no right on the way to an overlay's layers.
	if err := os.Chmod(root, 0o700); err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	spread(filepath.Join(root, tmpDir))
	s.layers[""] = &layerState{Layer: Layer{Link: "0"}}
	s.links["0"] = true
	if err := s.link("0", emptyDir); err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open layer store: %w", err)
	}
	return s, nil
}

// SetLimits replaces the default limits; it is for the time before the first Stage.
func (s *Store) SetLimits(l Limits) { s.limits = l }

// Close waits for removals that go on in the background.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closing) })
	s.removals.Wait()
	return nil
}

// load reads what is on disk. Directories that are not whole are left for Reconcile.
func (s *Store) load() error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == tmpDir || name == linkDir || name == emptyDir:
		case hex64.MatchString(name):
			if err := s.loadLayer(name); err != nil {
				s.log.Warn("layer is not whole", "layer", name, "error", err)
				s.garbage = append(s.garbage, name)
			}
		default:
			chain, err := os.Readlink(filepath.Join(s.root, name, "lower"))
			if err != nil || !exists(filepath.Join(s.root, name, "work")) {
				s.garbage = append(s.garbage, name)
				continue
			}
			s.snapshots[name] = chainOfLink(chain)
		}
	}
	for _, l := range s.layers {
		if l.Parent != "" {
			s.use(l.Parent, 1)
		}
	}
	for _, chain := range s.snapshots {
		s.use(chain, 1)
	}
	return nil
}

func (s *Store) loadLayer(name string) error {
	data, err := os.ReadFile(filepath.Join(s.root, name, metaFile))
	if err != nil {
		return err
	}
	var l Layer
	if err := json.Unmarshal(data, &l); err != nil {
		return err
	}
	if l.ChainID.Validate() != nil || l.ChainID.Encoded() != name || l.Link == "" || s.links[l.Link] {
		return fmt.Errorf("%s does not describe this directory", metaFile)
	}
	if err := s.link(l.Link, name); err != nil {
		return err
	}
	s.links[l.Link] = true
	s.layers[l.ChainID] = &layerState{Layer: l}
	return nil
}

// use counts a user of a chain; a chain that is not there has none to be counted.
func (s *Store) use(chain digest.Digest, n int) {
	if l, ok := s.layers[chain]; ok {
		l.users += n
	}
}

// link makes the short names of a layer's directory, unless they are there already.
func (s *Store) link(name, dir string) error {
	for suffix, sub := range map[string]string{"": "diff", "i": "init"} {
		target, path := filepath.Join("..", dir, sub), filepath.Join(s.root, linkDir, name+suffix)
		err := os.Symlink(target, path)
		if !errors.Is(err, fs.ErrExist) {
			if err != nil {
				return err
			}
			continue
		}
		if now, err := os.Readlink(path); err != nil || now != target {
			// A crash between the link and the layer left it, or an earlier layer's removal.
			if err := os.Remove(path); err != nil {
				return err
			}
			if err := os.Symlink(target, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) unlink(name string) {
	os.Remove(filepath.Join(s.root, linkDir, name))
	os.Remove(filepath.Join(s.root, linkDir, name+"i"))
}

// newLink returns an unused short name: two letters do for the first 1,300 layers. The caller holds mu.
// Names are in base 36 without a final i, which marks init directories.
func (s *Store) newLink() string {
	for n := int64(1); ; n++ {
		name := strconv.FormatInt(n, 36)
		if !s.links[name] && !strings.HasSuffix(name, "i") {
			s.links[name] = true
			return name
		}
	}
}

// Get returns the layer of a chain ID, or fault.NotFound.
func (s *Store) Get(chain digest.Digest) (Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, err := s.get(chain)
	if err != nil {
		return Layer{}, err
	}
	return l.Layer, nil
}

func (s *Store) get(chain digest.Digest) (*layerState, error) {
	if l, ok := s.layers[chain]; ok {
		return l, nil
	}
	return nil, fault.New(fault.NotFound, "no layer %s", chain)
}

// Chain returns the layers of a chain, the top first.
func (s *Store) Chain(chain digest.Digest) ([]Layer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chain(chain)
}

func (s *Store) chain(chain digest.Digest) ([]Layer, error) {
	var list []Layer
	for chain != "" {
		l, err := s.get(chain)
		if err != nil {
			return nil, err
		}
		list = append(list, l.Layer)
		chain = l.Parent
	}
	return list, nil
}

// Layers returns every layer, in no order.
func (s *Store) Layers() []Layer {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Layer, 0, len(s.layers))
	for chain, l := range s.layers {
		if chain != "" {
			list = append(list, l.Layer)
		}
	}
	return list
}

// dir returns the directory of a chain.
func (s *Store) dir(chain digest.Digest) string {
	if chain == "" {
		return filepath.Join(s.root, emptyDir)
	}
	return filepath.Join(s.root, chain.Encoded())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A chain is kept as the target of a symbolic link: one system call writes it whole or not at all.
// A link cannot be empty, so the chain of no layers has a name.
const noChain = "none"

func chainOfLink(target string) digest.Digest {
	if target == noChain {
		return ""
	}
	return digest.Digest(target)
}

func linkOfChain(chain digest.Digest) string {
	if chain == "" {
		return noChain
	}
	return chain.String()
}
