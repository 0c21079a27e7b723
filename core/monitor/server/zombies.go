package server

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// zombies returns the children of this process that are dead and not reaped. proc(5): each task has
// its own list of children.
func zombies() []int {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	var dead []int
	for _, t := range tasks {
		children, err := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, f := range bytes.Fields(children) {
			pid, err := strconv.Atoi(string(f))
			if err == nil && isZombie(pid) {
				dead = append(dead, pid)
			}
		}
	}
	return dead
}

// isZombie reads the state, which stands behind the name in parentheses, which may have any byte.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(stat, ')')
	return i >= 0 && i+2 < len(stat) && stat[i+2] == 'Z'
}
