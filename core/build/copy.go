package build

import (
	"context"
	"path"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/image"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/mount"
	"github.com/sampan-project/sampan/core/wire"
)

// copyStep copies files of a node onto another. Local files become root's unless the step says
// otherwise, and get the time of the base; files of an image keep owner and time.
type copyStep struct {
	*solve
	n *wire.BuildCopy
}

func (c *copyStep) base() result { return c.value(c.n.Base) }

func (c *copyStep) describe() string {
	var b strings.Builder
	b.WriteString("COPY")
	if c.n.Owner != "" {
		b.WriteString(" --chown=" + c.n.Owner)
	}
	if c.n.Mode != "" {
		b.WriteString(" --chmod=" + c.n.Mode)
	}
	source := path.Clean("/" + c.n.Source)
	if from := c.value(c.n.From); from.local != nil {
		source = strings.TrimPrefix(path.Join(from.local.name, source), "./")
	}
	return printable(b.String()+" "+source+" "+c.n.Dest, maxHistory)
}

func (c *copyStep) key(ctx context.Context) (string, error) {
	from, source := c.value(c.n.From), path.Clean("/"+c.n.Source)
	content := from.chain().String()
	if from.local != nil {
		d, err := from.local.digest(ctx, source)
		if err != nil {
			return "", err
		}
		content, source = d.String(), path.Base(source)
	}
	return keyOf("copy", []any{c.base().id(), from.local != nil, content, source, c.dest(), c.n.Owner, c.n.Mode, c.describe()})
}

// dest is the destination as an absolute path; a relative one is below the working directory. What
// a slash at its end says stays.
func (c *copyStep) dest() string {
	dest := c.n.Dest
	if !path.IsAbs(dest) {
		dest = path.Join("/", c.base().config().WorkingDir) + "/" + dest
	}
	clean := path.Clean(dest)
	if clean != "/" && (strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.")) {
		clean += "/"
	}
	return clean
}

func (c *copyStep) make(ctx context.Context, _ *stepLog) (*image.Image, error) {
	return c.withSnapshot(ctx, c.base(), c.describe(), func(_ string, mounts []mount.Mount) error {
		to, err := openRoot(mounts)
		if err != nil {
			return err
		}
		defer to.Close()
		from := c.value(c.n.From)
		k := copier{ctx: ctx, to: to}
		if from.local != nil {
			created := c.base().created()
			k.owner, k.time, k.plain = &owner{}, &created, true
		}
		if c.n.Owner != "" {
			if k.owner, err = findOwner(to, c.n.Owner); err != nil {
				return err
			}
		}
		if c.n.Mode != "" {
			mode, _ := strconv.ParseUint(c.n.Mode, 8, 12) // checked with the graph
			m := uint32(mode)
			k.mode = &m
		}
		return c.read(from, func(root *linux.Root) error {
			k.from = root
			return k.copy(c.n.Source, c.dest())
		})
	})
}

// maxAccounts bounds /etc/passwd and /etc/group of an image.
const maxAccounts = 4 << 20

// findOwner resolves user[:group] by the accounts of a root. A number that is no account's has the
// same number as its group.
func findOwner(root *linux.Root, wanted string) (*owner, error) {
	passwd, err := readSmall(root, "/etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := readSmall(root, "/etc/group")
	if err != nil {
		return nil, err
	}
	defaults := user.ExecUser{}
	if n, err := strconv.Atoi(wanted); err == nil {
		defaults.Gid = n
	}
	u, err := user.GetExecUser(wanted, &defaults, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return nil, fault.New(fault.Invalid, "owner %q: %w", wanted, err)
	}
	return &owner{u.Uid, u.Gid}, nil
}

// readSmall returns a regular file's content, "" when there is none.
func readSmall(root *linux.Root, name string) (string, error) {
	f, err := root.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", nil //nolint:nilerr // no such file, or none that could be an account file
	}
	defer f.Close()
	st, err := linux.Fstat(f)
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", err
	}
	if st.Size > maxAccounts {
		return "", fault.New(fault.Invalid, "%s: %d bytes: expected at most %d", name, st.Size, maxAccounts)
	}
	buf := make([]byte, st.Size)
	n, err := f.ReadAt(buf, 0)
	if n < len(buf) && err != nil {
		return "", err
	}
	return string(buf), nil
}
