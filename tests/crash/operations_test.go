package crash

// operation is something that a user does, at every point of which the daemon is killed.
type operation struct {
	name string
	// before makes what the operation works on, with the daemon not armed.
	before [][]string
	do     []string
	stdin  string // a file of the daemon's root
	// start: the operation is the start of the daemon after one that was killed.
	start bool
	// again is what must succeed after the restart, whether the operation came to pass or not: a user
	// repeats it, or finishes it.
	again [][]string
	// after removes everything, and must succeed whatever is there.
	after [][]string
}

func cmds(list ...[]string) [][]string { return list }

func sampan(args ...string) []string { return args }

// sh is a container whose command leaves at once when it is told to stop.
func sh(name string, args ...string) []string {
	return append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sleep", "1000")
}

var (
	removeIt  = sampan("rm", "-f", "-v", "it")
	removeVol = sampan("volume", "rm", "-f", "vol")
)

// operations are what a user does. A command of after or again that begins with "?" may fail: whether
// there is something to do depends on how far the daemon came.
var operations = []operation{
	{name: "create", do: sampan("create", "--name", "it", "busybox", "true"),
		again: cmds(removeIt, sampan("create", "--name", "it", "busybox", "true"), sampan("start", "it")), after: cmds(removeIt)},
	{name: "create_volumes", do: sampan("create", "--name", "it", "-v", "vol:/etc", "-v", "/var/anonymous", "busybox", "true"),
		again: cmds(removeIt, sampan("create", "--name", "it", "-v", "vol:/etc", "busybox", "true")), after: cmds(removeIt, removeVol)},
	{name: "start", before: cmds(sampan("create", "--name", "it", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")), do: sampan("start", "it"),
		again: cmds(sampan("start", "it"), sampan("exec", "it", "true")), after: cmds(removeIt)},
	{name: "run_remove", do: sampan("run", "--rm", "--name", "it", "busybox", "true"),
		again: cmds(sampan("?wait", "it"), removeIt, sampan("run", "--rm", "--name", "it", "busybox", "true")), after: cmds(removeIt)},
	{name: "run_remove_volume", do: sampan("run", "--rm", "--name", "it", "-p", "127.0.0.1::80", "-v", "/var/anonymous", "busybox", "true"),
		again: cmds(sampan("?wait", "it"), removeIt, sampan("run", "--rm", "--name", "it", "-v", "/var/anonymous", "busybox", "true")), after: cmds(removeIt)},
	{name: "stop", before: cmds(sh("it", "-p", "127.0.0.1::80")), do: sampan("stop", "-t", "0", "it"),
		again: cmds(sampan("stop", "-t", "0", "it"), sampan("start", "it"), sampan("exec", "it", "true")), after: cmds(removeIt)},
	{name: "restart", before: cmds(sh("it")), do: sampan("restart", "-t", "0", "it"),
		again: cmds(sampan("restart", "-t", "0", "it"), sampan("exec", "it", "true")), after: cmds(removeIt)},
	{name: "rm", before: cmds(sampan("create", "--name", "it", "-v", "/var/anonymous", "busybox", "true")), do: sampan("rm", "-v", "it"),
		again: cmds(removeIt), after: cmds(removeIt)},
	{name: "rm_force", before: cmds(sh("it", "-p", "127.0.0.1::80", "-v", "vol:/data")), do: sampan("rm", "-f", "it"),
		again: cmds(removeIt), after: cmds(removeIt, removeVol)},
	{name: "commit", before: cmds(sh("it"), sampan("exec", "it", "touch", "/changed")), do: sampan("commit", "it", "made"),
		again: cmds(sampan("exec", "it", "true"), sampan("commit", "it", "made"), sampan("run", "--rm", "made", "ls", "/changed")),
		after: cmds(removeIt, sampan("rmi", "-f", "made"), sampan("image", "prune", "-f"))},
	{name: "rename", before: cmds(sh("it")), do: sampan("rename", "it", "that"),
		again: cmds(sampan("?rename", "that", "it"), sampan("exec", "it", "true")), after: cmds(removeIt)},
	{name: "pause", before: cmds(sh("it")), do: sampan("pause", "it"),
		again: cmds(sampan("?unpause", "it"), sampan("exec", "it", "true")), after: cmds(removeIt)},
	{name: "update", before: cmds(sh("it")), do: sampan("update", "--restart", "always", "--memory", "64m", "--memory-swap", "64m", "it"),
		again: cmds(sampan("update", "--restart", "no", "it"), sampan("exec", "it", "true")), after: cmds(removeIt)},
	{name: "exec", before: cmds(sh("it")), do: sampan("exec", "it", "true"),
		again: cmds(sampan("exec", "it", "true")), after: cmds(removeIt)},
	{name: "cp", before: cmds(sh("it")), do: sampan("cp", "pid", "it:/copied"),
		again: cmds(sampan("cp", "pid", "it:/copied"), sampan("exec", "it", "cat", "/copied")), after: cmds(removeIt)},
	{name: "volume_create", do: sampan("volume", "create", "vol"), again: cmds(sampan("volume", "create", "vol")), after: cmds(removeVol)},
	{name: "volume_rm", before: cmds(sampan("volume", "create", "vol")), do: sampan("volume", "rm", "vol"),
		again: cmds(removeVol, sampan("volume", "create", "vol")), after: cmds(removeVol)},
	{name: "network_create", do: sampan("network", "create", "net"),
		again: cmds(sampan("?network", "create", "net"), sh("it", "--network", "net")), after: cmds(removeIt, sampan("network", "rm", "net"))},
	{name: "network_connect", before: cmds(sampan("network", "create", "net"), sh("it")), do: sampan("network", "connect", "net", "it"),
		again: cmds(sampan("?network", "connect", "net", "it"), sampan("exec", "it", "ip", "address", "show", "eth1")),
		after: cmds(removeIt, sampan("network", "rm", "net"))},
	{name: "network_disconnect", before: cmds(sampan("network", "create", "net"), sh("it", "--network", "net")), do: sampan("network", "disconnect", "net", "it"),
		again: cmds(sampan("?network", "disconnect", "net", "it"), sampan("network", "connect", "net", "it")),
		after: cmds(removeIt, sampan("network", "rm", "net"))},
	{name: "network_rm", before: cmds(sampan("network", "create", "net")), do: sampan("network", "rm", "net"),
		again: cmds(sampan("?network", "rm", "net"), sampan("network", "create", "net")), after: cmds(sampan("network", "rm", "net"))},
	{name: "import", do: sampan("import", "-", "made"), stdin: "rootfs.tar",
		again: cmds(sampan("import", "rootfs.tar", "made")), after: cmds(sampan("rmi", "-f", "made"), sampan("image", "prune", "-f"))},
	{name: "load", do: sampan("load", "-q", "-i", "image.tar"),
		again: cmds(sampan("load", "-q", "-i", "image.tar"), sampan("run", "--rm", "loaded", "true")), after: cmds(sampan("rmi", "-f", "loaded"))},
	{name: "tag", do: sampan("tag", "busybox", "made"),
		again: cmds(sampan("tag", "busybox", "made")), after: cmds(sampan("rmi", "made"))},
	{name: "rmi", before: cmds(sampan("load", "-q", "-i", "image.tar")), do: sampan("rmi", "loaded"),
		again: cmds(sampan("?rmi", "loaded"), sampan("load", "-q", "-i", "image.tar"), sampan("run", "--rm", "loaded", "true")), after: cmds(sampan("rmi", "-f", "loaded"))},
	{name: "prune", before: cmds(sampan("create", "--name", "it", "-v", "/var/anonymous", "busybox"), sampan("network", "create", "net"), sampan("volume", "create", "vol")),
		do:    sampan("system", "prune", "-f", "--volumes"),
		again: cmds(sampan("system", "prune", "-f", "--volumes")), after: cmds(removeVol)},
	{name: "daemon_start", before: cmds(sh("it"), sh("always", "--restart", "always"), sampan("create", "--name", "new", "-v", "vol:/etc", "busybox")), start: true,
		again: cmds(sampan("exec", "it", "true"), sampan("exec", "always", "true"), sampan("start", "new")), after: cmds(removeIt, sampan("rm", "-f", "always", "new"), removeVol)},
}
