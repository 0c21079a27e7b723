package linux

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/linux/raw"
)

// Spawn describes a process that is started straight into its namespaces and cgroup.
//
//	caller ── clone3 ──▶ child: cgroups, Join, Unshare, files, execveat(Program)
//	                     │ with Fork, after Join:
//	                     └─ clone3(CLONE_PARENT) ──▶ child in the joined pid namespace
//
// The child shares the caller's memory until it executes the program (CLONE_VM, CLONE_VFORK): no
// page table is copied, and there is nobody else in the child's thread group, which joining a user
// namespace demands. Only with Place or Prepare it has a copy, because the caller must go on meanwhile.
type Spawn struct {
	Program *os.File // executed by handle: no path is looked up in the namespaces that were joined
	Args    []string
	Env     []string
	Files   []*os.File // 0, 1, 2, ... of the child; no other file stays open. nil entries are not allowed

	Flags   uint64     // CLONE_NEW*: namespaces to be made
	Join    []Join     // namespaces to be entered, in this order, before those of Flags are made when Fork is set, else after
	Fork    bool       // clone once more after Join, so that a joined pid or user namespace holds for Flags and for the program
	Cgroup  *os.File   // directory of the unified hierarchy (CLONE_INTO_CGROUP); nil: the caller's
	Tasks   []*os.File // "tasks" files of v1 hierarchies, which the child joins before anything else
	Unshare int        // unshare(2) flags, after all that
	Root    bool       // become user and group 0 of the user namespace before the program is executed

	// Place is called with the first child's pid while the child waits, before it joins and unshares
	// anything: for somebody else to move it to its cgroup, as systemd does.
	Place func(pid int) error
	// Prepare is called with the child's pid while the child waits, when all namespaces are there: to
	// write its id mappings and time offsets.
	Prepare func(pid int) error
}

// Join is a namespace to be entered by setns(2). File is a namespace file, or a pidfd when Type is
// a set of namespaces.
type Join struct {
	File *os.File
	Type int // CLONE_NEW*
}

// Child is a started process. The caller is its parent and must wait for it.
type Child struct {
	Pid   int
	PidFD *os.File
}

// The steps at which a child can fail.
const (
	stepNone = iota
	stepTasks
	stepPlace
	stepJoin
	stepFork
	stepUnshare
	stepPrepare
	stepRoot
	stepFiles
	stepExec
)

var stepNames = [...]string{
	stepTasks: "join cgroup", stepPlace: "wait to be placed", stepJoin: "setns", stepFork: "clone3", stepUnshare: "unshare",
	stepPrepare: "wait for id mappings", stepRoot: "become root of the user namespace", stepFiles: "duplicate files", stepExec: "execveat",
}

// outcome is what the child tells the caller; it lies in memory that both see.
type outcome struct {
	step  int32
	errno int32
	index int32 // which of several
	pid   int32 // of the second child, as the caller's pid namespace numbers it
}

// cloneArgs is struct clone_args of linux/sched.h.
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal     uint64
	stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// join is Join for the child.
type join struct{ fd, kind uintptr }

// program is a Spawn in a form that needs no memory management to be run.
type program struct {
	exe        uintptr
	argv, envp **byte
	empty      *byte
	flags      uint64
	joins      []join
	fork       bool
	tasks      []uintptr
	zero       [1]byte
	unshare    uintptr
	root       bool
	files      []uintptr
	sync       uintptr // the child's end of the socket on which it waits for Place and Prepare; ^0: none
	syncOther  uintptr // the caller's, of which the child has a copy
	place      bool    // it waits for Place
	prepare    bool    // it waits for Prepare
	dumpable   bool    // it is to be dumpable while it waits for Prepare
	nofile     unix.Rlimit
	setNofile  bool
	out        *outcome
	second     cloneArgs
	buf        [1]byte
}

//go:linkname enterSyscall runtime.entersyscall
func enterSyscall()

//go:linkname exitSyscall runtime.exitsyscall
func exitSyscall()

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// noFile is no descriptor.
const noFile = ^uintptr(0)

// Start starts the process and returns when it executes the program.
func (s *Spawn) Start() (Child, error) {
	p, done, err := s.compile()
	if err != nil {
		return Child{}, err
	}
	defer done()
	if err := s.conceal(); err != nil {
		return Child{}, err
	}
	if s.Place != nil || s.Prepare != nil {
		return s.startWaiting(p)
	}
	args, pidfd := s.first(unix.CLONE_VM | unix.CLONE_VFORK)
	pid := clone(p, args)
	runtime.KeepAlive(s)
	if pid < 0 {
		return Child{}, fmt.Errorf("clone3: %w", unix.Errno(-pid))
	}
	return s.finish(p, pid, int(*pidfd))
}

// conceal keeps our memory from those who are in a user namespace that the child enters. They see it from its birth in
// a pid namespace on, and it has our memory, or a copy, until it executes the program: who has CAP_SYS_PTRACE there
// could read and write it, unless it is not dumpable, for which the capability counts in our own user namespace
// (ptrace(2), "Ptrace access mode checking"). It stays so, as others may be on their way at the same time.
func (s *Spawn) conceal() error {
	if !s.joins(unix.CLONE_NEWUSER) {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set not dumpable: %w", err)
	}
	return nil
}

func (s *Spawn) joins(kind int) bool {
	return slices.ContainsFunc(s.Join, func(j Join) bool { return j.Type&kind != 0 })
}

// cloneArgs are the arguments of the first clone3.
func (s *Spawn) first(flags uint64) (*cloneArgs, *int32) {
	pidfd := new(int32)
	*pidfd = -1
	args := &cloneArgs{
		flags: flags | unix.CLONE_PIDFD, exitSignal: uint64(unix.SIGCHLD),
		pidfd: uint64(uintptr(unsafe.Pointer(pidfd))),
	}
	if !s.Fork {
		args.flags |= s.Flags
	}
	if s.Cgroup != nil {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(s.Cgroup.Fd())
	}
	return args, pidfd
}

// compile makes the program and returns what must be called when it is over.
func (s *Spawn) compile() (*program, func(), error) {
	argv, err := syscall.SlicePtrFromStrings(s.Args)
	if err != nil {
		return nil, nil, fmt.Errorf("spawn: arguments: %w", err)
	}
	envp, err := syscall.SlicePtrFromStrings(s.Env)
	if err != nil {
		return nil, nil, fmt.Errorf("spawn: environment: %w", err)
	}
	p := &program{
		exe: s.Program.Fd(), argv: &argv[0], envp: &envp[0], empty: new(byte), flags: s.Flags, fork: s.Fork,
		zero: [1]byte{'0'}, unshare: uintptr(s.Unshare), root: s.Root, sync: noFile, out: new(outcome),
		place: s.Place != nil, prepare: s.Prepare != nil,
		// An ordinary user writes the mappings of a process that is its own, which one that is not dumpable is not
		// (proc_pid(5)). Nobody else is in a user namespace that was just made.
		dumpable: s.Prepare != nil && os.Geteuid() != 0 && s.Flags&unix.CLONE_NEWUSER != 0,
	}
	for _, j := range s.Join {
		p.joins = append(p.joins, join{j.File.Fd(), uintptr(j.Type)})
	}
	for _, f := range s.Tasks {
		p.tasks = append(p.tasks, f.Fd())
	}
	for i, f := range s.Files {
		if f == nil {
			return nil, nil, fmt.Errorf("spawn: file %d is nil", i)
		}
		p.files = append(p.files, f.Fd())
	}
	// What the Go runtime did to the caller's limit at its start must not reach the program, unless
	// somebody has set the limit on purpose since.
	var now unix.Rlimit
	if moreFiles.Load() || unix.Getrlimit(unix.RLIMIT_NOFILE, &now) == nil && raw.NofileHard == now.Max && now.Cur >= now.Max-1 {
		p.nofile, p.setNofile = unix.Rlimit{Cur: raw.NofileSoft, Max: raw.NofileHard}, true
	}
	p.second = cloneArgs{
		flags:      s.Flags | unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_PARENT | unix.CLONE_PARENT_SETTID,
		exitSignal: 0, // CLONE_PARENT takes the first child's
		parentTid:  uint64(uintptr(unsafe.Pointer(&p.out.pid))),
	}
	return p, func() { runtime.KeepAlive(argv); runtime.KeepAlive(envp); runtime.KeepAlive(s) }, nil
}

// clone runs the program in a new process and returns its pid or a negative error number.
//
// Between clone3 and execveat the child must neither allocate nor grow the stack nor take a lock:
// its memory is the caller's, or a copy made while other threads held locks. The functions that it
// calls are nosplit, so that the linker checks it. syscall.ForkLock is not taken, so that starts do
// not wait for each other: every file of ours is close-on-exec from its birth, and the child closes
// what others forgot.
//
// The kernel holds this thread until the child is through, and the child may be held up by what others
// do to the cgroup that it joins: freeze it, or leave it no CPU time. So this is a system call to the
// scheduler as any that blocks: else a collection would wait for it, and everything for that.
//
//go:noinline
//go:nosplit
//go:norace
//go:nocheckptr
func clone(p *program, args *cloneArgs) (pid int) {
	enterSyscall()
	beforeFork() // blocks signals: no handler may run in the child
	pid = raw.Clone3(unsafe.Pointer(args), unsafe.Sizeof(*args))
	if pid == 0 {
		p.child()
	}
	afterFork()
	exitSyscall()
	return pid
}

// child never returns.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (p *program) child() {
	afterForkInChild()
	// A thread that moves itself through a "tasks" file takes no system-wide lock in the kernel
	// (cgroup_procs_write_start); moving another process waits for an RCU grace period, 8 ms here.
	for i := 0; i < len(p.tasks); i++ {
		if _, _, e := syscall.RawSyscall(unix.SYS_WRITE, p.tasks[i], uintptr(unsafe.Pointer(&p.zero[0])), 1); e != 0 {
			p.fail(stepTasks, e, i)
		}
	}
	if p.sync != noFile {
		// With the caller's end open here too the child would wait for ever for a caller that was killed.
		syscall.RawSyscall(unix.SYS_CLOSE, p.syncOther, 0, 0) //nolint:errcheck // it is open
	}
	if p.place {
		p.wait(stepPlace)
	}
	for i := 0; i < len(p.joins); i++ {
		if _, _, e := syscall.RawSyscall(unix.SYS_SETNS, p.joins[i].fd, p.joins[i].kind, 0); e != 0 {
			p.fail(stepJoin, e, i)
		}
	}
	if p.fork {
		if pid := raw.Clone3(unsafe.Pointer(&p.second), unsafe.Sizeof(p.second)); pid < 0 {
			p.fail(stepFork, syscall.Errno(-pid), 0)
		} else if pid > 0 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0) //nolint:errcheck // it does not return
		}
	}
	p.exec()
}

// exec is the end of the child.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (p *program) exec() {
	if p.unshare != 0 {
		if _, _, e := syscall.RawSyscall(unix.SYS_UNSHARE, p.unshare, 0, 0); e != 0 {
			p.fail(stepUnshare, e, 0)
		}
	}
	if p.dumpable {
		syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0) //nolint:errcheck // a valid value
	}
	if p.prepare {
		p.wait(stepPrepare) // what is to be prepared is there from here on
	}
	if p.root {
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); e != 0 {
			p.fail(stepRoot, e, 0)
		}
		if _, _, e := syscall.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); e != 0 {
			p.fail(stepRoot, e, 1)
		}
	}
	if p.setNofile {
		// Neither limit becomes higher, which is always allowed.
		syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&p.nofile)), 0, 0, 0) //nolint:errcheck // see above
	}
	// First move everything above the numbers that will be filled, then fill them: no file that is
	// still needed is overwritten.
	count := uintptr(len(p.files))
	if p.exe < count {
		p.exe = p.above(p.exe, count)
	}
	for i := 0; i < len(p.files); i++ {
		if p.files[i] < count {
			p.files[i] = p.above(p.files[i], count)
		}
	}
	if p.sync < count {
		p.sync = p.above(p.sync, count)
	}
	for i := 0; i < len(p.files); i++ {
		if _, _, e := syscall.RawSyscall(unix.SYS_DUP3, p.files[i], uintptr(i), 0); e != 0 {
			p.fail(stepFiles, e, i)
		}
	}
	// What the caller itself was started with may lack the flag.
	if _, _, e := syscall.RawSyscall(unix.SYS_CLOSE_RANGE, count, ^uintptr(0)>>32, unix.CLOSE_RANGE_CLOEXEC); e != 0 {
		p.fail(stepFiles, e, -1)
	}
	_, _, e := syscall.RawSyscall6(unix.SYS_EXECVEAT, p.exe, uintptr(unsafe.Pointer(p.empty)),
		uintptr(unsafe.Pointer(p.argv)), uintptr(unsafe.Pointer(p.envp)), unix.AT_EMPTY_PATH, 0)
	p.fail(stepExec, e, 0)
}

// wait tells the parent that the child has come to a step, and waits until the parent lets it go on.
//
//go:nosplit
//go:norace
func (p *program) wait(step int32) {
	if _, _, e := syscall.RawSyscall(unix.SYS_WRITE, p.sync, uintptr(unsafe.Pointer(&p.buf[0])), 1); e != 0 {
		p.fail(step, e, 0)
	}
	n, _, e := syscall.RawSyscall(unix.SYS_READ, p.sync, uintptr(unsafe.Pointer(&p.buf[0])), 1)
	if e != 0 || n != 1 {
		p.fail(step, e, 0)
	}
}

// above duplicates fd to a number that is not below count.
//
//go:nosplit
//go:norace
func (p *program) above(fd, count uintptr) uintptr {
	n, _, e := syscall.RawSyscall(unix.SYS_FCNTL, fd, unix.F_DUPFD_CLOEXEC, count)
	if e != 0 {
		p.fail(stepFiles, e, int(fd))
	}
	return n
}

//go:nosplit
//go:norace
func (p *program) fail(step int32, errno syscall.Errno, index int) {
	p.out.errno, p.out.index = int32(errno), int32(index)
	p.out.step = step
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 253, 0, 0) //nolint:errcheck // it does not return
	}
}

// startWaiting starts a child that waits until Place and Prepare have returned.
func (s *Spawn) startWaiting(p *program) (Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Child{}, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := pair[0], pair[1]
	defer unix.Close(ours)
	p.sync, p.syncOther = uintptr(theirs), uintptr(ours)
	// The child has a copy of the memory: what it tells must lie in a shared page.
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		unix.Close(theirs)
		return Child{}, fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(page) //nolint:errcheck // it was mapped above
	p.out = (*outcome)(unsafe.Pointer(&page[0]))
	p.second.parentTid = uint64(uintptr(unsafe.Pointer(&p.out.pid)))

	args, pidfd := s.first(0)
	pid := clone(p, args)
	unix.Close(theirs)
	if pid < 0 {
		return Child{}, fmt.Errorf("clone3: %w", unix.Errno(-pid))
	}
	if s.Place != nil {
		if !reached(ours) {
			return s.finish(p, pid, int(*pidfd))
		}
		if err := letGoOn(ours, s.Place(pid)); err != nil {
			reap(int(*pidfd), pid, true)
			return Child{}, err
		}
	}
	if s.Prepare != nil {
		// It has joined and made everything, or has failed.
		if !reached(ours) {
			return s.finish(p, pid, int(*pidfd))
		}
		waiting := pid
		if s.Fork {
			waiting = int(p.out.pid)
		}
		if err := letGoOn(ours, s.Prepare(waiting)); err != nil {
			if s.Fork {
				reap(-1, waiting, true) // first: the one in between waits for it
			}
			reap(int(*pidfd), pid, true)
			return Child{}, err
		}
	}
	// The child's end is closed when it executes the program or ends.
	Retry(func() error { _, err := unix.Read(ours, make([]byte, 1)); return err }) //nolint:errcheck // only its return counts
	return s.finish(p, pid, int(*pidfd))
}

// reached reports whether the child has come to where it waits; else it has ended.
func reached(socket int) bool {
	n, err := RetryValue(func() (int, error) { return unix.Read(socket, make([]byte, 1)) })
	return err == nil && n > 0
}

// letGoOn lets the waiting child go on, unless there is an error.
func letGoOn(socket int, err error) error {
	if err != nil {
		return err
	}
	err = Retry(func() error { return unix.Sendto(socket, []byte{1}, unix.MSG_NOSIGNAL, nil) })
	if err != nil && !errors.Is(err, unix.EPIPE) { // it has ended, which finish tells
		return fmt.Errorf("tell the child to go on: %w", err)
	}
	return nil
}

// finish turns what the child told into a Child or an error.
func (s *Spawn) finish(p *program, pid, pidfd int) (Child, error) {
	if p.out.step != stepNone {
		reap(pidfd, pid, false)
		if p.out.pid > 0 {
			reap(-1, int(p.out.pid), false)
		}
		return Child{}, s.failure(p.out)
	}
	if !s.Fork {
		return Child{Pid: pid, PidFD: os.NewFile(uintptr(pidfd), "pidfd")}, nil
	}
	reap(pidfd, pid, false) // the one in between
	second := int(p.out.pid)
	if second == 0 { // which would mean ourselves to kill(2)
		return Child{}, fmt.Errorf("clone3: the process that was to make it was killed: %w", unix.ESRCH)
	}
	// It is our child and nobody has waited for it, so the number is still its own.
	fd, err := unix.PidfdOpen(second, 0)
	if err != nil {
		unix.Kill(second, unix.SIGKILL) //nolint:errcheck // it may have ended
		reap(-1, second, false)
		return Child{}, fmt.Errorf("pidfd_open: %w", err)
	}
	return Child{Pid: second, PidFD: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func (s *Spawn) failure(o *outcome) error {
	what := stepNames[o.step]
	switch o.step {
	case stepTasks:
		what += " " + s.Tasks[o.index].Name()
	case stepJoin:
		what += " " + s.Join[o.index].File.Name()
	case stepPlace, stepPrepare:
		if o.errno == 0 {
			return fmt.Errorf("%s: the parent went away", what)
		}
	}
	return fmt.Errorf("%s: %w", what, unix.Errno(o.errno))
}

// reap waits for a child that has ended or is made to end, and closes its pidfd.
func reap(pidfd, pid int, kill bool) {
	if kill {
		unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it is ours and not yet waited for
	}
	Retry(func() error { return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WALL, nil) }) //nolint:errcheck // it is ours
	if pidfd >= 0 {
		unix.Close(pidfd)
	}
}
