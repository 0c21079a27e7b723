/* limit: what the kernel alone takes for a `sampan-runtime run` of runc's example bundle. It makes the system calls
 * that the verb and its init make for that bundle, in their order, without Go and without a second program: the child
 * shares the caller's memory and goes on as the init. The difference to sampan-runtime is Go, its start (twice), and
 * the reading of the specification.
 *
 * usage: limit ID [PROGRAM [ARGUMENT...]]     in the bundle's directory; /bin/true without a program
 *
 * The list is strace's of both processes. Left out are
 * - those of Go's runtime: memory, threads, signals, epoll, futex, F_GETFL, the limit of processors, RLIMIT_NOFILE;
 * - those for the init's start as a program: its own file on a mount of its own, standard streams moved, execveat,
 *   and unshare(CLONE_FS), as there is no thread to share a directory with. clone has no CLONE_VFORK, as the caller
 *   would else wait for the container's program, and talks with its child;
 * - those that only look (fstat, statfs of what was opened, access, getcwd) or that look for what is not there, as a
 *   directory before it is made. What the specification asks for and the kernel may not have (a concealed path) is
 *   looked for, and what a runtime has to know is read: config.json, mountinfo, /etc/passwd, the child's stat.
 * Nothing is parsed or encoded: the values of the example are in this file, and records are blanks of their size.
 * It knows cgroup v1 only. clone is called and not clone3, which needs an assembler here: the kernel does the same. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

/* sizes that strace shows: the record before and with the process, the configuration for the init */
enum { RECORD = 1876, RECORD_RUNNING = 1923, CONFIGURATION = 1382, HEAD = 5, PATH = 4096 };
enum { OPEN = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC, LOOK = O_PATH | O_CLOEXEC, DIRECTORY = O_PATH | O_DIRECTORY | O_CLOEXEC };
enum { LOCKED = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC };

/* every hierarchy that sampan-runtime joins for a container without resources; where it is not mounted it is not used */
static const char *hierarchies[] = {"blkio", "cpu", "cpu,cpuacct", "cpuacct", "devices", "freezer", "memory", "pids"};
enum { HIERARCHIES = sizeof hierarchies / sizeof *hierarchies };

static const char *devices[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
	"c 5:0 rwm", "c 136:* rwm", "c 5:2 rwm"};
static const char *readonly[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
static const char *concealed[] = {"acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats",
	"sched_debug", "../sys/firmware", "scsi"};
static const char warning[] =
	"limit: process.capabilities.ambient: 0x20000420 are not permitted and inheritable, and are left out\n";

static char stack[1 << 16], text[1 << 16], id[64], root[PATH], state[128], **program;
static int tasks[HIERARCHIES], used[HIERARCHIES], pair[2], listener;
static pid_t caller, child;

/* file is the path of a file of the container's cgroup */
static const char *file(char *path, int hierarchy, const char *name)
{
	snprintf(path, 256, "/sys/fs/cgroup/%s/sampan-%s%s", hierarchies[hierarchy], id, name);
	return path;
}

static void tidy(void)
{
	char path[256];
	for (int i = 0; i < HIERARCHIES; i++)
		if (used[i] && unlinkat(AT_FDCWD, file(path, i, ""), AT_REMOVEDIR))
			perror(path);
	snprintf(path, sizeof path, "%s/state.json", state);
	unlinkat(AT_FDCWD, path, 0);
	if (unlinkat(AT_FDCWD, state, AT_REMOVEDIR))
		perror(state);
}

/* ok ends the process whose call failed; the caller leaves nothing behind */
static long ok(const char *what, long result)
{
	char path[256];
	if (result >= 0)
		return result;
	perror(what);
	if (getpid() == caller) {
		if (child > 0) {
			kill(child, SIGKILL);
			waitpid(child, NULL, __WALL);
		}
		snprintf(path, sizeof path, "%s/start.sock", state);
		unlink(path);
		tidy();
	}
	_exit(1);
}

/* slurp reads a file as a runtime does that does not know its size */
static void slurp(const char *path)
{
	int fd = ok(path, openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
	size_t all = 0;
	for (long n; (n = ok(path, read(fd, text + all, sizeof text - 1 - all))); all += n)
		;
	text[all] = 0;
	close(fd);
}

static void record(size_t size)
{
	char fresh[160], path[160], blanks[RECORD_RUNNING];
	memset(blanks, ' ', size);
	snprintf(path, sizeof path, "%s/state.json", state);
	snprintf(fresh, sizeof fresh, "%s/state.json.new", state);
	int fd = ok(fresh, openat(AT_FDCWD, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
	ok(fresh, write(fd, blanks, size));
	close(fd);
	ok(path, renameat(AT_FDCWD, fresh, AT_FDCWD, path));
}

/* within opens a path below a directory, as no link of an image may lead out of it */
static int within(int dir, const char *path, int flags)
{
	struct open_how how = {.flags = flags, .resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT};
	return syscall(SYS_openat2, dir, path, &how, sizeof how);
}

static void attributes(int mount, unsigned flags, unsigned set, unsigned clear)
{
	struct mount_attr attr = {.attr_set = set, .attr_clr = clear};
	ok("mount_setattr", mount_setattr(mount, "", AT_EMPTY_PATH | flags, &attr, sizeof attr));
}

/* filesystem makes one that is not mounted yet; options are pairs, and a word without a value has an empty one */
static int filesystem(const char *type, unsigned attr, const char *const *options)
{
	int context = ok(type, fsopen(type, FSOPEN_CLOEXEC));
	for (; *options; options += 2)
		ok(*options, *options[1] ? fsconfig(context, FSCONFIG_SET_STRING, options[0], options[1], 0)
					 : fsconfig(context, FSCONFIG_SET_FLAG, options[0], NULL, 0));
	ok(type, fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	int mount = ok(type, fsmount(context, FSMOUNT_CLOEXEC, attr));
	close(context);
	return mount;
}
#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* place opens where something is mounted; a directory with a name is made in its parent first */
static int place(int dir, const char *path, const char *name)
{
	int at = ok(path, within(dir, path, DIRECTORY));
	if (!name)
		return at;
	ok(name, mkdirat(at, name, 0755));
	int made = ok(name, openat(at, name, DIRECTORY | O_NOFOLLOW));
	close(at);
	return made;
}

static void put(int mount, int at)
{
	ok("move_mount", move_mount(mount, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	close(at);
}

/* cgroups shows the container's cgroup of each hierarchy in a tmpfs, as runc does it for cgroup v1 */
static void cgroups(int top)
{
	char path[256];
	int at = place(top, "/sys/fs/cgroup", NULL), base = filesystem("tmpfs", 0, OPTIONS("source", "tmpfs", "mode", "755"));
	attributes(base, 0, LOCKED, MOUNT_ATTR__ATIME);
	put(base, at);
	for (int i = 0; i < HIERARCHIES; i++) {
		if (!used[i])
			continue;
		int mount = ok(path, open_tree(AT_FDCWD, file(path, i, ""), OPEN));
		at = place(top, "/sys/fs/cgroup/", hierarchies[i]);
		attributes(mount, 0, MOUNT_ATTR_RDONLY | LOCKED, MOUNT_ATTR__ATIME);
		put(mount, at);
		close(mount);
	}
	attributes(base, 0, MOUNT_ATTR_RDONLY, 0);
	close(base);
}

static int mounts(int top)
{
	int at = place(top, "/proc", NULL), proc = filesystem("proc", 0, OPTIONS("source", "proc")), mount;
	put(proc, at);
	at = place(top, "/dev", NULL);
	mount = filesystem("tmpfs", 0, OPTIONS("source", "tmpfs", "mode", "755", "size", "65536k"));
	attributes(mount, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME);
	put(mount, at);
	close(mount);
	at = place(top, "/dev/", "pts");
	mount = filesystem("devpts", 0,
		OPTIONS("source", "devpts", "newinstance", "", "ptmxmode", "0666", "mode", "0620", "gid", "5"));
	attributes(mount, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0);
	put(mount, at);
	close(mount);
	at = place(top, "/dev/", "shm");
	mount = filesystem("tmpfs", 0, OPTIONS("source", "shm", "mode", "1777", "size", "65536k"));
	attributes(mount, 0, LOCKED, 0);
	put(mount, at);
	close(mount);
	at = place(top, "/dev/", "mqueue");
	mount = filesystem("mqueue", 0, OPTIONS("source", "mqueue"));
	attributes(mount, 0, LOCKED, 0);
	put(mount, at);
	close(mount);
	at = place(top, "/sys", NULL);
	mount = filesystem("sysfs", 0, OPTIONS("source", "sysfs"));
	attributes(mount, 0, MOUNT_ATTR_RDONLY | LOCKED, 0);
	put(mount, at);
	close(mount);
	cgroups(top);
	return proc;
}

static void nodes(int top)
{
	static const struct { const char *name; int major, minor; } all[] = {
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	static const char *links[][2] = {{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}};
	umask(0);
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		int dev = place(top, "/dev/", NULL);
		ok(all[i].name, mknodat(dev, all[i].name, S_IFCHR | 0666, makedev(all[i].major, all[i].minor)));
		close(dev);
	}
	int dev = place(top, "/dev", NULL);
	for (unsigned i = 0; i < sizeof links / sizeof *links; i++)
		ok(links[i][1], symlinkat(links[i][0], dev, links[i][1]));
	close(dev);
	umask(022);
}

/* conceal makes paths of the kernel read-only, or hides them behind an empty directory or /dev/null */
static void conceal(int top, int proc)
{
	int at, copy, empty = -1, null;
	struct stat kind;
	for (unsigned i = 0; i < sizeof readonly / sizeof *readonly; i++) {
		if ((at = within(proc, readonly[i], LOOK)) < 0)
			continue;
		copy = ok(readonly[i], open_tree(at, "", OPEN | AT_EMPTY_PATH | AT_RECURSIVE));
		attributes(copy, AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0);
		put(copy, at);
		close(copy);
	}
	null = ok("/dev/null", within(top, "/dev/null", LOOK));
	for (unsigned i = 0; i < sizeof concealed / sizeof *concealed; i++) {
		at = *concealed[i] == '.' ? within(top, concealed[i] + 2, LOOK) : within(proc, concealed[i], LOOK);
		if (at < 0)
			continue;
		ok("fstat", fstat(at, &kind));
		if (S_ISDIR(kind.st_mode) && empty < 0)
			empty = filesystem("tmpfs", MOUNT_ATTR_RDONLY | LOCKED,
				OPTIONS("nr_blocks", "1", "nr_inodes", "1", "mode", "555"));
		copy = ok(concealed[i], open_tree(S_ISDIR(kind.st_mode) ? empty : null, "", OPEN | AT_EMPTY_PATH));
		put(copy, at);
		close(copy);
	}
	close(empty);
	close(null);
}

static void loopback(void)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = ok("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	ok("lo", ioctl(fd, SIOCSIFFLAGS, &lo));
	close(fd);
}

/* pivot is done from the namespace's own root, which setns goes to: the caller may stand in a chroot */
static void pivot(int top)
{
	int own = ok("pidfd_open", syscall(SYS_pidfd_open, 1, 0));
	ok("setns", setns(own, CLONE_NEWNS));
	close(own);
	int old = ok("/", openat(AT_FDCWD, "/", DIRECTORY));
	ok("fchdir", fchdir(top));
	ok("pivot_root", syscall(SYS_pivot_root, ".", "."));
	ok("fchdir", fchdir(old));
	ok("slave", mount("", ".", NULL, MS_REC | MS_SLAVE, NULL));
	ok("umount2", umount2(".", MNT_DETACH));
	ok("chdir", chdir("/"));
	close(old);
	close(top);
}

/* rights are those of the example: three capabilities. setgroups and its like are called without the C library, which
 * would have them done by all threads that it believes there are */
static void rights(void)
{
	const unsigned keep = 1 << CAP_AUDIT_WRITE | 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE;
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct set[2] = {{0}};
	ok("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	ok("capget", syscall(SYS_capget, &head, set));
	for (int c = 0, has; (has = prctl(PR_CAPBSET_READ, c)) >= 0; c++)
		if (has && (c > 31 || !(keep & 1u << c)))
			ok("bounding set", prctl(PR_CAPBSET_DROP, c));
	ok("keepcaps", prctl(PR_SET_KEEPCAPS, 1));
	ok("setgroups", syscall(SYS_setgroups, 0, NULL));
	ok("setresgid", syscall(SYS_setresgid, 0, 0, 0));
	ok("setresuid", syscall(SYS_setresuid, 0, 0, 0));
	umask(022);
	set[0] = (struct __user_cap_data_struct){.effective = keep, .permitted = keep};
	set[1] = (struct __user_cap_data_struct){0};
	ok("capset", syscall(SYS_capset, &head, set));
	ok("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

static int init(void *unused)
{
	char message[CONFIGURATION], keyring[80];
	char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/root", NULL};
	(void)unused;
	for (int i = 0; i < HIERARCHIES; i++)
		if (used[i])
			ok("tasks", write(tasks[i], "0", 1));
	ok("recv", recv(pair[1], message, HEAD, 0));
	ok("recv", recv(pair[1], message, CONFIGURATION - HEAD, MSG_WAITALL));
	ok("setsid", setsid());
	ok("dumpable", prctl(PR_SET_DUMPABLE, 0));
	loopback();
	ok("slave", mount("", "/", NULL, MS_REC | MS_SLAVE, NULL));
	ok("sethostname", sethostname("runc", 4));
	int below = ok(root, openat(AT_FDCWD, root, DIRECTORY));
	int top = ok(root, open_tree(AT_FDCWD, root, OPEN | AT_RECURSIVE));
	put(top, place(below, "/", NULL));
	close(below);
	int proc = mounts(top);
	nodes(top);
	conceal(top, proc);
	attributes(top, 0, MOUNT_ATTR_RDONLY, 0);
	pivot(top);
	snprintf(keyring, sizeof keyring, "_ses.%s", id);
	ok("keyctl", syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, keyring));
	ok("chdir", chdir("/"));
	ok("ready", send(pair[1], "r\0\0\0\0", HEAD, MSG_NOSIGNAL));
	close(pair[1]);
	int peer = ok("accept", accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	close(listener);
	ok("go", send(peer, "g\0\0\0\0", HEAD, MSG_NOSIGNAL));
	close(proc);
	int users = openat(AT_FDCWD, "/etc/passwd", O_RDONLY | O_CLOEXEC); /* for HOME */
	if (users >= 0) {
		ok("/etc/passwd", read(users, message, sizeof message));
		close(users);
	}
	ok("chdir", chdir("/"));
	ok("close_range", close_range(3, ~0U, CLOSE_RANGE_CLOEXEC));
	rights();
	ok("warning", send(peer, warning, sizeof warning - 1, MSG_NOSIGNAL));
	return ok(*program, execve(*program, program, env));
}

/* group makes the cgroups with the rules for devices, and opens where the child joins them */
static void group(void)
{
	char path[256], mounted[64];
	for (int i = 0; i < HIERARCHIES; i++) {
		snprintf(mounted, sizeof mounted, " /sys/fs/cgroup/%s ", hierarchies[i]);
		if (!strstr(text, mounted))
			continue;
		ok(path, mkdirat(AT_FDCWD, file(path, i, ""), 0755));
		used[i] = 1;
	}
	for (int i = 0; i < HIERARCHIES; i++) {
		if (strcmp(hierarchies[i], "devices"))
			continue;
		int fd = ok(path, openat(AT_FDCWD, file(path, i, "/devices.deny"), O_WRONLY | O_CLOEXEC));
		ok(path, write(fd, "a", 1));
		close(fd);
		fd = ok(path, openat(AT_FDCWD, file(path, i, "/devices.allow"), O_WRONLY | O_CLOEXEC));
		for (unsigned d = 0; d < sizeof devices / sizeof *devices; d++)
			ok(devices[d], write(fd, devices[d], strlen(devices[d])));
		close(fd);
	}
	for (int i = 0; i < HIERARCHIES; i++)
		if (used[i])
			tasks[i] = ok(path, openat(AT_FDCWD, file(path, i, "/tasks"), O_WRONLY | O_CLOEXEC));
}

/* directory opens the state directory; the start socket's address goes by that, as a path may be too long for one */
static int directory(struct sockaddr_un *a)
{
	int dir = ok(state, openat(AT_FDCWD, state, DIRECTORY));
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/start.sock", dir);
	return dir;
}

/* create is the first half of the verb: when it returns, the child is ready to be the container's program */
static void create(void)
{
	char path[64], answer[HEAD];
	struct sockaddr_un a;
	int pidfd, dir;
	if (mkdirat(AT_FDCWD, state, 0700)) { /* another's, which is not to be tidied */
		perror(state);
		_exit(1);
	}
	record(RECORD);
	slurp("/proc/self/mountinfo");
	group();
	dir = directory(&a);
	listener = ok("socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	ok("bind", bind(listener, (struct sockaddr *)&a, sizeof a));
	ok("listen", listen(listener, 1));
	ok("socketpair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	int flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_VM | CLONE_PIDFD | SIGCHLD;
	child = ok("clone", clone(init, stack + sizeof stack, flags, NULL, &pidfd));
	close(pair[1]);
	snprintf(path, sizeof path, "/proc/%d/stat", child);
	slurp(path);
	record(RECORD_RUNNING);
	ok("configuration", send(pair[0], text, CONFIGURATION, MSG_NOSIGNAL));
	if (recv(pair[0], answer, sizeof answer, 0) != HEAD) {
		errno = ECHILD; /* it has said itself what failed */
		ok("init", -1);
	}
	close(pair[0]);
	close(listener);
	close(dir);
	for (int i = 0; i < HIERARCHIES; i++)
		if (used[i])
			close(tasks[i]);
}

/* start is the second half, without the wait for the program's end; the socket closes when the program is executed */
static void start(void)
{
	char message[256];
	struct sockaddr_un a;
	int dir = directory(&a), peer = ok("socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	ok("connect", connect(peer, (struct sockaddr *)&a, sizeof a));
	ok("go", recv(peer, message, HEAD, MSG_WAITALL));
	for (long n; (n = ok("start", recv(peer, message, sizeof message, 0)));)
		ok("warning", write(2, message, n));
	ok("start.sock", unlinkat(dir, "start.sock", 0));
	close(peer);
	close(dir);
}

int main(int argc, char **argv)
{
	static char *nothing[] = {"/bin/true", NULL};
	struct statfs kind;
	int status;
	if (argc < 2 || statfs("/sys/fs/cgroup", &kind) || kind.f_type == CGROUP2_SUPER_MAGIC) {
		fprintf(stderr, "usage: limit ID [PROGRAM [ARGUMENT...]]     where cgroup v1 is mounted\n");
		return 2;
	}
	caller = getpid();
	program = argc > 2 ? argv + 2 : nothing;
	snprintf(id, sizeof id, "%s", argv[1]);
	snprintf(state, sizeof state, "/run/sampan-limit-%s", id);
	ok("getcwd", syscall(SYS_getcwd, root, sizeof root - sizeof "/rootfs"));
	strcat(root, "/rootfs");
	slurp("config.json");
	ok("subreaper", prctl(PR_SET_CHILD_SUBREAPER, 1));
	create();
	start();
	waitpid(child, &status, __WALL);
	tidy();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
