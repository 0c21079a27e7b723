package initproc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/runtime/hook"
)

// seal is what can be done before the start, so that the start is short.
func (p *process) seal() error {
	if err := p.oomScore(); err != nil {
		return err
	}
	// Keys of the host's session are not the container's. Kernels without keyrings, and filters
	// around us, refuse this without harm.
	if !p.NoNewKeyring {
		if err := p.keyring(); err != nil {
			return err
		}
	}
	if err := p.rlimits(p.Spec.Process.Rlimits); err != nil {
		return err
	}
	if !p.Exec && p.Made&unix.CLONE_NEWNS == 0 {
		return nil // in a tree that somebody else makes, and that may not be ready
	}
	return p.check(p.Spec.Process)
}

// check finds out early that a program cannot be executed. The process still has all its rights:
// what they do not suffice for fails later too, except where root is nobody, as on NFS.
func (p *process) check(spec *specs.Process) error {
	tolerable := func(err error) bool { return spec.User.UID != 0 && errors.Is(err, unix.EACCES) }
	if err := chdir(spec.Cwd); err != nil {
		if tolerable(err) {
			return nil
		}
		return err
	}
	if _, err := find(spec.Args[0], spec.Env); err != nil && !tolerable(err) {
		return err
	}
	return unix.Chdir("/") // hooks are yet to come
}

// finish gives up every right that the program is not to have, and executes it. heard tells the
// caller that there is nothing to wait for but the outcome.
func (p *process) finish(heard func() error) error {
	if err := heard(); err != nil {
		return err
	}
	if p.Exec {
		if err := p.seal(); err != nil {
			return err
		}
	}
	spec := p.Spec.Process
	if err := p.attributes(spec); err != nil {
		return err
	}
	if err := p.streams(spec.User); err != nil {
		return err
	}
	if err := p.label(spec); err != nil {
		return err
	}
	if p.proc != nil {
		p.proc.Close()
		p.proc = nil
	}
	environment := p.environment(spec)
	// A directory that only root may enter, or only the user (root is nobody on NFS): either may do.
	entered := chdir(spec.Cwd) == nil
	// What follows a filter has to do with the system calls that any program needs.
	if err := p.files(); err != nil {
		return err
	}
	if spec.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("process.noNewPrivileges: %w", err)
		}
	} else if err := p.filter(); err != nil {
		// Without that flag the system call needs the rights that are given up next.
		return err
	}
	if err := p.identity(spec, entered); err != nil {
		return err
	}
	if spec.NoNewPrivileges {
		if err := p.filter(); err != nil {
			return err
		}
	}
	if err := p.startHooks(environment); err != nil {
		return err
	}
	return execute(spec, environment)
}

// startHooks runs the startContainer hooks. They are files of the container, so they have the rights of its
// program and no more: its user, capabilities, limits and filter (the specification has their place, in the
// container's namespaces right before the program; runc does it the same way).
//
// A hook without an environment has the program's: the specification leaves it open, and runc has it so.
func (p *process) startHooks(environment []string) error {
	h := p.Spec.Hooks
	if h == nil || len(h.StartContainer) == 0 {
		return nil
	}
	p.State.Status = specs.StateCreated
	p.State.Pid = os.Getpid()
	hooks := slices.Clone(h.StartContainer)
	for i := range hooks {
		if hooks[i].Env == nil {
			hooks[i].Env = environment
		}
	}
	return hook.Run(context.Background(), "startContainer", hooks, p.State)
}

// execute looks for the program as execvp(3) does, by trying: the filter is there already, and what
// it does with calls that only ask is not known.
func execute(spec *specs.Process, environment []string) error {
	name := spec.Args[0]
	var denied error
	for at := range candidates(name, spec.Env) {
		switch err := unix.Exec(at, spec.Args, environment); {
		case errors.Is(err, unix.EACCES):
			denied = err
		case strings.Contains(name, "/") || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR):
			return explain(name, err)
		}
	}
	if denied != nil {
		return explain(name, denied)
	}
	return notInPath(name)
}

// identity becomes the program's user with the program's capabilities, in its directory, which it may
// have entered already.
func (p *process) identity(spec *specs.Process, entered bool) error {
	capabilities := spec.Capabilities
	if capabilities == nil {
		capabilities = &specs.LinuxCapabilities{}
	}
	sets, err := p.capabilities(capabilities)
	if err != nil {
		return err
	}
	if err := linux.DropBounding(sets.Bounding); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	user := spec.User
	if err := p.become(user); err != nil {
		return fmt.Errorf("process.user: %w", err)
	}
	umask := uint32(0o022)
	if user.Umask != nil {
		umask = *user.Umask
	}
	unix.Umask(int(umask))
	if !entered {
		if err := chdir(spec.Cwd); err != nil {
			return err
		}
	}
	if err := linux.SetCapabilities(sets.Effective, sets.Permitted, sets.Inheritable); err != nil {
		return fmt.Errorf("process.capabilities: %w", err)
	}
	// One that is not inheritable too cannot be ambient (capabilities(7)). Specs have such, among them
	// the one that `runc spec` writes, and runc lets them pass.
	if err := linux.SetAmbient(sets.Ambient & sets.Inheritable & sets.Permitted); err != nil {
		return fmt.Errorf("process.capabilities.ambient: %w", err)
	}
	if lost := sets.Ambient &^ (sets.Inheritable & sets.Permitted); lost != 0 {
		p.parent.warn("process.capabilities.ambient: %#x are not permitted and inheritable, and are left out", lost)
	}
	return nil
}

// capabilities turns names into masks. What this process does not have it cannot give.
func (p *process) capabilities(c *specs.LinuxCapabilities) (linux.CapabilitySets, error) {
	var sets linux.CapabilitySets
	have, err := linux.Capabilities()
	if err != nil {
		return sets, err
	}
	for _, set := range []struct {
		name  string
		names []string
		to    *uint64
	}{
		{"bounding", c.Bounding, &sets.Bounding}, {"effective", c.Effective, &sets.Effective},
		{"permitted", c.Permitted, &sets.Permitted}, {"inheritable", c.Inheritable, &sets.Inheritable},
		{"ambient", c.Ambient, &sets.Ambient},
	} {
		mask, unknown := linux.CapabilityMask(set.names)
		for _, name := range unknown {
			p.parent.warn("process.capabilities.%s: unknown capability %q is left out", set.name, name)
		}
		if missing := mask &^ have; missing != 0 {
			// Not in our own set: the container gets less than it was allowed, as with any runtime
			// that itself is confined.
			p.parent.warn("process.capabilities.%s: %#x are not this host's to give, and are left out", set.name, missing)
			mask &= have
		}
		*set.to = mask
	}
	return sets, nil
}

// chdir enters the working directory and makes sure that it is inside the root (CVE-2024-21626: a
// path such as /proc/self/fd/7 would lead to whatever a leaked file is open on).
func chdir(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("process.cwd: %w", &fs.PathError{Op: "chdir", Path: dir, Err: err})
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n == 0 || buf[0] != '/' {
		return fmt.Errorf("process.cwd: %s is outside of the container's root filesystem", dir)
	}
	return nil
}

// resources is a list, as a map would be filled at each start of this program.
var resources = [...]struct {
	name   string
	number int
}{
	{"RLIMIT_AS", unix.RLIMIT_AS}, {"RLIMIT_CORE", unix.RLIMIT_CORE}, {"RLIMIT_CPU", unix.RLIMIT_CPU}, {"RLIMIT_DATA", unix.RLIMIT_DATA},
	{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE}, {"RLIMIT_LOCKS", unix.RLIMIT_LOCKS}, {"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK},
	{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE}, {"RLIMIT_NICE", unix.RLIMIT_NICE}, {"RLIMIT_NOFILE", unix.RLIMIT_NOFILE},
	{"RLIMIT_NPROC", unix.RLIMIT_NPROC}, {"RLIMIT_RSS", unix.RLIMIT_RSS}, {"RLIMIT_RTPRIO", unix.RLIMIT_RTPRIO},
	{"RLIMIT_RTTIME", unix.RLIMIT_RTTIME}, {"RLIMIT_SIGPENDING", unix.RLIMIT_SIGPENDING}, {"RLIMIT_STACK", unix.RLIMIT_STACK},
}

// Rlimit is the number that getrlimit(2) has for the limit that a spec names so.
func Rlimit(name string) (resource int, ok bool) {
	for _, r := range &resources {
		if r.name == name {
			return r.number, true
		}
	}
	return 0, false
}

// Rlimits are the names of the limits that a spec may set, sorted.
func Rlimits() []string {
	names := make([]string, len(resources))
	for i, r := range &resources {
		names[i] = r.name
	}
	return names
}

func (p *process) rlimits(limits []specs.POSIXRlimit) error {
	for _, l := range limits {
		resource, ok := Rlimit(l.Type)
		if !ok {
			return &fault.Field{Field: "process.rlimits", Given: l.Type, Expected: "one of " + strings.Join(Rlimits(), ", ")}
		}
		limit := unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		err := unix.Prlimit(0, resource, &limit, nil)
		if !errors.Is(err, unix.EPERM) {
			if err != nil {
				return fmt.Errorf("process.rlimits: %s soft %d hard %d: %w", l.Type, l.Soft, l.Hard, err)
			}
			continue
		}
		var now unix.Rlimit
		if err := unix.Prlimit(0, resource, nil, &now); err != nil {
			return fmt.Errorf("process.rlimits: %s: %w", l.Type, err)
		}
		if !p.Clamp {
			return fault.New(fault.Forbidden, "process.rlimits: %s hard limit %d: expected at most %d, which this host allows: %w", l.Type, l.Hard, now.Max, err)
		}
		lower := unix.Rlimit{Cur: min(l.Soft, now.Max), Max: min(l.Hard, now.Max)}
		if err := unix.Prlimit(0, resource, &lower, nil); err != nil {
			return fmt.Errorf("process.rlimits: %s soft %d hard %d: %w", l.Type, lower.Cur, lower.Max, err)
		}
		p.parent.warn("%s %d:%d is more than this host allows and is lowered to %d:%d", l.Type, l.Soft, l.Hard, lower.Cur, lower.Max)
	}
	return nil
}

func (p *process) oomScore() error {
	score := p.Spec.Process.OOMScoreAdj
	if score == nil || p.Scored {
		return nil
	}
	err := p.write("self/oom_score_adj", strconv.Itoa(*score))
	if errors.Is(err, unix.EACCES) && p.Clamp {
		p.parent.warn("the OOM score adjustment %d is lower than this host allows and is left as it was", *score)
		return nil
	}
	if err != nil {
		return fmt.Errorf("process.oomScoreAdj %d: %w", *score, err)
	}
	return nil
}

// streams gives pipes and the like to the program's user, who may want to open them again by
// /dev/stdout. What others have too, such as the null device, stays theirs.
func (p *process) streams(user specs.User) error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("standard stream %d: %w", fd, err)
		}
		null := st.Mode&unix.S_IFMT == unix.S_IFCHR && uint64(st.Rdev) == unix.Mkdev(1, 3) //nolint:unconvert // see same
		if null || st.Uid == user.UID {
			continue
		}
		err := unix.Fchown(fd, int(user.UID), int(user.GID))
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("give standard stream %d to user %d: %w", fd, user.UID, err)
		}
	}
	return nil
}

// filter loads the seccomp program into this thread.
func (p *process) filter() error {
	if p.Filter == nil || len(p.Filter.Program) == 0 {
		return nil
	}
	const instruction = 8
	program := unix.SockFprog{
		Len:    uint16(len(p.Filter.Program) / instruction),
		Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(p.Filter.Program))),
	}
	flags, handOver := p.Filter.Flags, func(int) error { return nil }
	if p.Filter.Notify {
		flags, handOver = flags|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, p.listener()
	}
	fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return fmt.Errorf("linux.seccomp: load %d instructions: %w", program.Len, e)
	}
	return handOver(int(fd))
}

// files makes the caller's files numbers 3 and on, and all others close-on-exec.
func (p *process) files() error {
	// The channel must stay until the program is executed; it moves above.
	n, err := unix.FcntlInt(p.parent.socket.Fd(), unix.F_DUPFD_CLOEXEC, firstExtra+p.Extra)
	if err != nil {
		return fmt.Errorf("move the channel: %w", err)
	}
	p.parent = newChannel(os.NewFile(uintptr(n), "channel"))
	for i := range p.Extra {
		to := 3 + i
		if err := unix.Dup3(firstExtra+i, to, 0); err != nil {
			return fmt.Errorf("pass file %d on: %w", to, err)
		}
	}
	if err := unix.CloseRange(uint(3+p.Extra), ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}

// environment is the program's: each variable once, with its last value (shells take the last of two, getenv(3)
// the first), and HOME from /etc/passwd when there is none or an empty one.
func (p *process) environment(spec *specs.Process) []string {
	env := make([]string, 0, len(spec.Env)+1)
	seen := make(map[string]bool, len(spec.Env)+1)
	homeless := true
	for _, e := range slices.Backward(spec.Env) {
		name, value, _ := strings.Cut(e, "=")
		if seen[name] {
			continue
		}
		seen[name] = true
		if name == "HOME" {
			if value == "" {
				continue
			}
			homeless = false
		}
		env = append(env, e)
	}
	slices.Reverse(env)
	if homeless {
		env = append(env, "HOME="+home(spec.User.UID))
	}
	return env
}

// home is the directory of a user (passwd(5)), or / for one who has none.
func home(uid uint32) string {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return "/"
	}
	defer f.Close()
	wanted := strconv.FormatUint(uint64(uid), 10)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); len(fields) >= 6 && fields[2] == wanted && fields[5] != "" {
			return fields[5]
		}
	}
	return "/"
}

// candidates are the paths that a program's name may mean.
func candidates(name string, env []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if strings.Contains(name, "/") {
			yield(name)
			return
		}
		for dir := range strings.SplitSeq(lookup(env, "PATH"), ":") {
			at := path.Join(dir, name)
			if !path.IsAbs(at) {
				at = "./" + at
			}
			if !yield(at) {
				return
			}
		}
	}
}

// find returns the path of a program that can be executed. The words are those that Docker's clients
// know.
func find(name string, env []string) (string, error) {
	var denied error
	for at := range candidates(name, env) {
		switch err := executable(at); {
		case err == nil:
			return at, nil
		case strings.Contains(name, "/"):
			return "", explain(name, err)
		case errors.Is(err, unix.EACCES) && denied == nil:
			denied = err
		}
	}
	if denied != nil {
		return "", explain(name, denied)
	}
	return "", notInPath(name)
}

func notInPath(name string) error {
	return fault.As(fault.Invalid, &Failure{Message: fmt.Sprintf("exec: %q: executable file not found in $PATH", name), Errno: unix.ENOENT})
}

// lookup returns the last value of a variable.
func lookup(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// executable says why a file cannot be executed by this process as it is now.
func executable(name string) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return unix.Faccessat2(unix.AT_FDCWD, name, unix.X_OK, unix.AT_EACCESS)
}

// explain gives an error of execve(2) the words that people know.
func explain(name string, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	message := fmt.Sprintf("exec: %q: %v", name, errno)
	if errno == unix.ENOENT {
		message = fmt.Sprintf("exec: %q: stat %s: no such file or directory", name, name)
	}
	return fault.As(fault.Invalid, &Failure{Message: message, Errno: errno})
}
