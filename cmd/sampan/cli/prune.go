package cli

import (
	"fmt"

	"github.com/docker/go-units"
)

// Sure asks before something is removed, unless force says that it was decided. A no is silent.
func (c *CLI) Sure(force bool, warning string) (bool, error) {
	if force {
		return true, nil
	}
	return c.Confirm("WARNING! " + warning + "\nAre you sure you want to continue?")
}

// Pruned prints what was removed, under a heading.
func (c *CLI) Pruned(heading string, names []string) {
	if len(names) == 0 {
		return
	}
	fmt.Fprintln(c.Out, heading)
	for _, name := range names {
		fmt.Fprintln(c.Out, name)
	}
	fmt.Fprintln(c.Out)
}

// Reclaimed prints how much space a removal has given back.
func (c *CLI) Reclaimed(bytes uint64) {
	fmt.Fprintln(c.Out, "Total reclaimed space:", units.HumanSize(float64(bytes)))
}
