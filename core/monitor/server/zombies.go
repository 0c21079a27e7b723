package server

import (
	"bytes"
	"os"
	"strconv"

	"github.com/sampan-project/sampan/core/linux"
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
			if err != nil {
				continue
			}
			if _, state, err := linux.StartTime(pid); err == nil && state == 'Z' {
				dead = append(dead, pid)
			}
		}
	}
	return dead
}
