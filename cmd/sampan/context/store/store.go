// Package store keeps contexts: names for engines, with their addresses and certificates. Its files are
// those of Docker's context store, so that a context that the docker command made is found here too.
//
//	DIR/meta/ID/meta.json        what the context is; ID is the SHA-256 of its name
//	DIR/tls/ID/ENDPOINT/FILE     ca.pem, cert.pem and key.pem of an endpoint
//
//	store.go      finding, reading, writing and removing contexts
//	archive.go    a context as one file, for export and import
//
// A Store reads several directories, the first of which is its own: it writes nowhere else. The default
// context is in no store; it is what the environment says.
//
// Source: docs.docker.com/engine/manage-resources/contexts, and the files that docker 28.2 writes.
package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/sampan-project/sampan/core/fault"
)

const (
	// Default is the name of the context that is always there.
	Default = "default"
	// Docker is the name of the endpoint that speaks the Engine API.
	Docker = "docker"

	metaFile = "meta.json"
	// maxFile bounds a file of a context: a certificate has kilobytes.
	maxFile = 1 << 20
)

// The files of an endpoint's TLS.
const (
	CA   = "ca.pem"
	Cert = "cert.pem"
	Key  = "key.pem"
)

// Context is meta.json. Other programs may keep more in it than we know, and it stays.
type Context struct {
	Name      string
	Metadata  map[string]any
	Endpoints map[string]map[string]any
}

// Description is what the user said of the context.
func (c *Context) Description() string {
	text, _ := c.Metadata["Description"].(string)
	return text
}

// Host is the address of the engine, "" if the context has none.
func (c *Context) Host() string {
	host, _ := c.Endpoints[Docker]["Host"].(string)
	return host
}

// SkipTLSVerify says that the server's certificate is not to be checked.
func (c *Context) SkipTLSVerify() bool {
	skip, _ := c.Endpoints[Docker]["SkipTLSVerify"].(bool)
	return skip
}

// Describe sets the description.
func (c *Context) Describe(text string) {
	if c.Metadata == nil {
		c.Metadata = map[string]any{}
	}
	if c.Metadata["Description"] = text; text == "" {
		delete(c.Metadata, "Description")
	}
}

// Place sets the engine's address.
func (c *Context) Place(host string, skipTLSVerify bool) {
	if c.Endpoints == nil {
		c.Endpoints = map[string]map[string]any{}
	}
	c.Endpoints[Docker] = map[string]any{"Host": host, "SkipTLSVerify": skipTLSVerify}
}

// Material is the files of each endpoint's TLS, by endpoint and name.
type Material map[string]map[string][]byte

// Store is the contexts of some directories.
type Store struct {
	dirs []string
}

// Open returns the store of the directories; the first is its own, and may be missing as the others may.
func Open(own string, others ...string) *Store {
	s := &Store{dirs: []string{filepath.Clean(own)}}
	for _, dir := range others {
		if dir = filepath.Clean(dir); !slices.Contains(s.dirs, dir) {
			s.dirs = append(s.dirs, dir)
		}
	}
	return s
}

// Dirs are the directories, the store's own first.
func (s *Store) Dirs() []string { return slices.Clone(s.dirs) }

// names is Docker's pattern.
var names = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$`) })

// CheckName refuses a name that no context of a store can have.
func CheckName(name string) error {
	if name == "" {
		return fault.New(fault.Invalid, "context name cannot be empty")
	}
	if name == Default {
		return fault.New(fault.Invalid, "%q is a reserved context name", name)
	}
	if !names().MatchString(name) || len(name) > 255 {
		return fault.New(fault.Invalid, "context name %q is invalid, names are validated against regexp %q", name, names())
	}
	return nil
}

func id(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// A Place is where a context's files are.
type Place struct {
	dir, id string
	// Own says that the store may change them.
	Own bool
}

// Meta is the directory of meta.json.
func (p Place) Meta() string { return filepath.Join(p.dir, "meta", p.id) }

// TLS is the directory of the endpoints' certificates, which may be missing.
func (p Place) TLS() string { return filepath.Join(p.dir, "tls", p.id) }

// File is the path of a file of an endpoint's TLS, "" where there is none.
func (p Place) File(endpoint, name string) string {
	path := filepath.Join(p.TLS(), endpoint, name)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// Material reads the certificates.
func (p Place) Material() (Material, error) {
	all := Material{}
	endpoints, err := os.ReadDir(p.TLS())
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	for _, endpoint := range endpoints {
		files, err := os.ReadDir(filepath.Join(p.TLS(), endpoint.Name()))
		if err != nil {
			return nil, err
		}
		found := map[string][]byte{}
		for _, f := range files {
			if found[f.Name()], err = readFile(filepath.Join(p.TLS(), endpoint.Name(), f.Name())); err != nil {
				return nil, err
			}
		}
		if len(found) > 0 {
			all[endpoint.Name()] = found
		}
	}
	return all, nil
}

// Files are the names of the certificates, by endpoint.
func (p Place) Files() (map[string][]string, error) {
	all, err := p.Material()
	if err != nil {
		return nil, err
	}
	list := map[string][]string{}
	for endpoint, files := range all {
		list[endpoint] = slices.Sorted(maps.Keys(files))
	}
	return list, nil
}

// Get returns a context and where it is.
func (s *Store) Get(name string) (*Context, Place, error) {
	if name != Default && len(name) > 0 && !names().MatchString(name) {
		return nil, Place{}, CheckName(name)
	}
	for i, dir := range s.dirs {
		p := Place{dir: dir, id: id(name), Own: i == 0}
		c, err := readMeta(filepath.Join(p.Meta(), metaFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, p, fmt.Errorf("context %q: %w", name, err)
		}
		if c.Name != name {
			return nil, p, fault.New(fault.Invalid, "context %q: %s names %q", name, filepath.Join(p.Meta(), metaFile), c.Name)
		}
		return c, p, nil
	}
	first := filepath.Join(s.dirs[0], "meta", id(name), metaFile)
	return nil, Place{}, fault.New(fault.NotFound, "context %q: context not found: open %s: no such file or directory", name, first)
}

// Exists reports whether there is a context of that name, readable or not.
func (s *Store) Exists(name string) bool {
	_, _, err := s.Get(name)
	return !fault.Is(err, fault.NotFound)
}

// List returns the contexts in the order of their names. One that a directory before has hides those of
// the same name behind it.
func (s *Store) List() ([]*Context, error) {
	byName := map[string]*Context{}
	for _, dir := range s.dirs {
		entries, err := os.ReadDir(filepath.Join(dir, "meta"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			c, err := readMeta(filepath.Join(dir, "meta", e.Name(), metaFile))
			if errors.Is(err, fs.ErrNotExist) {
				continue // it is being made or removed
			}
			if err != nil {
				return nil, err
			}
			if byName[c.Name] == nil && id(c.Name) == e.Name() {
				byName[c.Name] = c
			}
		}
	}
	var list []*Context
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, byName[name])
	}
	return list, nil
}

// Put writes a context into the store's own directory; tls, unless nil, replaces all of its certificates.
// They come first: a context without the certificates that belong to it would connect without them.
func (s *Store) Put(c *Context, tls Material) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	data, err := json.Marshal(c.whole())
	if err != nil {
		return err
	}
	p := s.own(c.Name)
	if tls != nil {
		if err := p.replaceTLS(tls); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.Meta(), 0o755); err != nil {
		return err
	}
	return writeFile(filepath.Join(p.Meta(), metaFile), data, 0o644)
}

// Remove removes a context of the store's own directory; one that is not there is no error.
func (s *Store) Remove(name string) error {
	if !names().MatchString(name) {
		return CheckName(name)
	}
	p := s.own(name)
	return errors.Join(os.RemoveAll(p.Meta()), os.RemoveAll(p.TLS()))
}

func (s *Store) own(name string) Place { return Place{dir: s.dirs[0], id: id(name), Own: true} }

// whole is the context as it is written: without null.
func (c *Context) whole() *Context {
	w := *c
	if w.Metadata == nil {
		w.Metadata = map[string]any{}
	}
	if w.Endpoints == nil {
		w.Endpoints = map[string]map[string]any{}
	}
	return &w
}

func (p Place) replaceTLS(tls Material) error {
	if err := os.RemoveAll(p.TLS()); err != nil {
		return err
	}
	for endpoint, files := range tls {
		dir := filepath.Join(p.TLS(), endpoint)
		for name, data := range files {
			if !filepath.IsLocal(endpoint) || !filepath.IsLocal(name) || strings.ContainsRune(endpoint+name, '/') {
				return fault.New(fault.Invalid, "%q: expected the name of an endpoint and of a file", endpoint+"/"+name)
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			if err := writeFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func readMeta(path string) (*Context, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	c, err := decodeMeta(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func decodeMeta(data []byte) (*Context, error) {
	var c Context
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fault.New(fault.Invalid, "expected the JSON of a context: %w", err)
	}
	return c.whole(), nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fault.New(fault.Invalid, "%s: expected at most %d bytes", path, maxFile)
	}
	return data, err
}

// writeFile replaces the file in one step.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new.*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
