// Package crash has the places where a fault-injection build kills the daemon.
//
// A room calls Point before and after each thing that it makes outliving the process: a committed
// transaction, a rename, a directory, a call to the monitor or a driver. In a normal build (off.go)
// that is nothing, inlined. Built with the tag crashpoints (on.go), a process that was armed counts
// the points that it reaches, and kills itself with SIGKILL at the one it was told.
//
// Arm is called by the daemon alone: the programs that are to outlive it link the same rooms.
//
// The directory that Arm is given is how a test speaks with the process:
//
//	arm     the number of the point at which to die, 0 for none; without the file nothing is counted
//	trace   one line for each point that was counted, with the deadly one as the last
package crash
