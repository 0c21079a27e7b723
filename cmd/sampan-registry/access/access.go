// Package access keeps the users of a registry in a file of Apache's htpasswd format with bcrypt hashes
// ("NAME:$2y$…" on each line), as Docker's registry does.
package access

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sampan-project/sampan/core/fault"
)

// maxUsers bounds the file.
const maxUsers = 100_000

var userPattern = regexp.MustCompile(`^[^:\s[:cntrl:]]{1,128}$`)

// read returns the hashes by their users' names.
func read(path string) (map[string][]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	users := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || err != nil || len(users) == maxUsers {
			return nil, fault.New(fault.Invalid, "%s: line %d: expected NAME:HASH with a bcrypt hash, at most %d users", path, n, maxUsers)
		}
		users[user] = []byte(hash)
	}
	return users, lines.Err()
}

// Users are who may speak to a registry. The file is read again when it has changed.
type Users struct {
	path string

	mu      sync.Mutex
	stamp   stamp
	users   map[string][]byte
	proven  map[[sha256.Size]byte]bool
	key     []byte
	nothing []byte // the hash that an unknown user's password is compared with, so that it takes as long
}

type stamp struct {
	changed time.Time
	size    int64
}

// Open reads the file.
func Open(path string) (*Users, error) {
	nothing, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), bcrypt.DefaultCost)
	if err != nil {
		return nil, err
	}
	u := &Users{path: path, key: []byte(rand.Text()), nothing: nothing}
	return u, u.refresh()
}

// refresh reads the file if it is not what was read.
func (u *Users) refresh() error {
	info, err := os.Stat(u.path)
	if err != nil {
		return err
	}
	now := stamp{info.ModTime(), info.Size()}
	if u.users != nil && now == u.stamp {
		return nil
	}
	users, err := read(u.path)
	if err != nil {
		return err
	}
	u.users, u.stamp, u.proven = users, now, map[[sha256.Size]byte]bool{}
	return nil
}

// maxProven bounds the passwords that are remembered.
const maxProven = 1000

// Allowed reports whether it is the user's password. A pull is many requests and a bcrypt hash is made to be slow, so a
// password that was right is remembered, as a keyed digest and until the file changes. A file that cannot
// be read any more allows nobody.
func (u *Users) Allowed(user, password string) bool {
	u.mu.Lock()
	if err := u.refresh(); err != nil {
		u.mu.Unlock()
		return false
	}
	hash, known := u.users[user]
	mac := hmac.New(sha256.New, u.key)
	mac.Write([]byte(user + ":" + password))
	proof := [sha256.Size]byte(mac.Sum(nil))
	if known && u.proven[proof] {
		u.mu.Unlock()
		return true
	}
	read := u.stamp
	u.mu.Unlock()

	if !known {
		hash = u.nothing
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stamp == read && len(u.proven) < maxProven {
		u.proven[proof] = true
	}
	return true
}

// Set gives a user a password; the file is made if it is not there.
func Set(path, user, password string) error {
	switch {
	case !userPattern.MatchString(user):
		return &fault.Field{Field: "user", Given: user, Expected: "a name of at most 128 characters without colon and blank"}
	case password == "":
		return fault.New(fault.Invalid, "password is required")
	case len(password) > 72: // what bcrypt takes
		return fault.New(fault.Invalid, "password: %d bytes: expected at most 72", len(password))
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	if err != nil {
		return err
	}
	return edit(path, func(users map[string][]byte) error { users[user] = hash; return nil })
}

// Remove takes a user away.
func Remove(path, user string) error {
	return edit(path, func(users map[string][]byte) error {
		if users[user] == nil {
			return fault.New(fault.NotFound, "%s: no such user: %s", path, user)
		}
		delete(users, user)
		return nil
	})
}

// List returns the users' names, sorted.
func List(path string) ([]string, error) {
	users, err := read(path)
	if err != nil {
		return nil, err
	}
	return names(users), nil
}

func names(users map[string][]byte) []string {
	list := make([]string, 0, len(users))
	for user := range users {
		list = append(list, user)
	}
	slices.Sort(list)
	return list
}

// edit replaces the file in one step, so that a registry never reads half of it.
func edit(path string, change func(map[string][]byte) error) error {
	users, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		users, err = map[string][]byte{}, nil
	}
	if err != nil {
		return err
	}
	if err := change(users); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".users-*") // mode 0600
	if err != nil {
		return err
	}
	for _, user := range names(users) {
		if _, e := f.WriteString(user + ":" + string(users[user]) + "\n"); e != nil {
			err = e
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
