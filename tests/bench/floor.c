/* floor: what the kernel alone takes for a container: a clone into namespaces, an overlay and a procfs, the
 * change of root, and the execution of /bin/true. No runtime can be faster; this one checks nothing and
 * does not hide, limit or record anything.
 *
 * usage: floor ROOTFS SCRATCH [net]     with "net" there is a network namespace too */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char stack[1 << 16], lower[4096], upper[4096], work[4096], merged[4096];

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int container(void *unused)
{
	char layers[3 * 4096 + 64], *argv[] = {"/bin/true", NULL};
	(void)unused;
	snprintf(layers, sizeof layers, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("overlay", merged, "overlay", 0, layers))
		return fail("overlay");
	if (chdir(merged) || mount("proc", "proc", "proc", 0, NULL))
		return fail("proc");
	if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
		return fail("pivot_root");
	execv(argv[0], argv);
	return fail("execv");
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	int flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD, status;
	if (argc > 3)
		flags |= CLONE_NEWNET;
	snprintf(lower, sizeof lower, "%s", argv[1]);
	snprintf(upper, sizeof upper, "%s/upper", argv[2]);
	snprintf(work, sizeof work, "%s/work", argv[2]);
	snprintf(merged, sizeof merged, "%s/merged", argv[2]);
	mkdir(upper, 0755);
	mkdir(work, 0755);
	mkdir(merged, 0755);
	int pid = clone(container, stack + sizeof stack, flags, NULL);
	if (pid < 0)
		return fail("clone");
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
