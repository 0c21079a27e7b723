package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/mount"
)

// ViewAt is View of one path of a chain, relative to its root: of a directory an overlay of what the kernel
// would merge there, of a file a read-only bind of the topmost layer's. Links lead where they lead in the
// image, and never out of it; nothing is mounted to find out.
func (s *Store) ViewAt(chain digest.Digest, sub string) (mount.Mount, error) {
	if sub = path.Clean("/" + sub)[1:]; sub == "" {
		list, err := s.View(chain)
		if err != nil {
			return mount.Mount{}, err
		}
		return list[0], nil
	}
	k, err := s.stack(chain)
	if err != nil {
		return mount.Mount{}, err
	}
	defer k.close()
	f, err := k.follow(sub)
	if err != nil {
		return mount.Mount{}, fmt.Errorf("path %q: %w", sub, err)
	}
	defer f.close()
	names := make([]string, len(f.fds))
	for i, fd := range f.fds {
		if names[i], err = pathOf(fd); err != nil {
			return mount.Mount{}, fmt.Errorf("path %q: %w", sub, err)
		}
	}
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return s.lowersOnly(names), nil
	case unix.S_IFREG:
		return mount.Mount{Type: "bind", Source: names[0], Target: "/", Options: []string{"bind", "ro"}, Layers: names[0]}, nil
	}
	return mount.Mount{}, fault.New(fault.Invalid, "path %q: expected a directory or a regular file", sub)
}

// lowersOnly is a read-only overlay of directories, the top first.
func (s *Store) lowersOnly(names []string) mount.Mount {
	// An overlay without an upper directory needs two lower ones.
	for i := 0; len(names) < 2; i++ {
		names = append(names, path.Join(s.root, emptyDir, [...]string{"diff", "none"}[i]))
	}
	return s.overlay("ro", "lowerdir="+strings.Join(names, ":"))[0]
}

// pathOf is where a handle is, in the form in which overlay's options can have it.
func pathOf(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink(procPath(fd), buf)
	if err != nil {
		return "", err
	}
	name := string(buf[:n])
	if strings.ContainsAny(name, ":,\\\n") {
		return "", fault.New(fault.NotImplemented, "a name with a colon, a comma, a backslash or a line's end cannot be a layer of an overlay")
	}
	return name, nil
}

// maxSteps bounds how many names and links a path may lead over, so that those of a hostile image end.
const maxSteps = 255

// follow is lookup with links followed, the last one too: the path of a link goes on below the chain's root, also where
// it is absolute or has more ".." than directories above it. What is not there is fault.NotFound.
func (k *stack) follow(p string) (*found, error) {
	at, rest := ".", strings.Split(p, "/") // at has no link in it
	for range maxSteps {
		f, err := k.lookup(at)
		if err != nil {
			return nil, err
		}
		switch {
		case f == nil:
			return nil, fault.New(fault.NotFound, "no such file or directory")
		case f.st.Mode&unix.S_IFMT == unix.S_IFLNK:
			target, err := readLink(f)
			f.close()
			if err != nil {
				return nil, err
			}
			if at = path.Dir(at); path.IsAbs(target) {
				at = "."
			}
			rest = append(strings.Split(target, "/"), rest...)
		case len(rest) == 0:
			return f, nil
		default:
			dir := f.isDir()
			f.close()
			if !dir {
				return nil, fault.As(fault.Invalid, unix.ENOTDIR)
			}
		}
		if at = path.Join("/", at, rest[0])[1:]; at == "" {
			at = "."
		}
		rest = rest[1:]
	}
	return nil, fault.As(fault.Invalid, unix.ELOOP)
}

// readLink is where a link of a stack leads.
func readLink(f *found) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(f.fds[0], "", buf)
	if err == nil && n == 0 {
		err = errors.New("the link is empty")
	}
	return string(buf[:n]), err
}
