package main

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
)

// defaultOOMScore is dockerd's: the kernel ends containers, and much else, before the engine.
const defaultOOMScore = -500

// adjustOOMScore sets what the kernel thinks of when memory runs out (proc_pid_oom_score_adj(5)). A score
// that was asked for must be; the default is not set where this process may not lower its own, which
// takes CAP_SYS_RESOURCE. Containers have their own, 0 if they ask for none.
func (o *options) adjustOOMScore(log *slog.Logger) error {
	score := defaultOOMScore
	if o.OOMScore != nil {
		score = *o.OOMScore
	}
	err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(score)), 0)
	switch {
	case err == nil:
		return nil
	case o.OOMScore != nil:
		return fmt.Errorf("--oom-score-adjust %d: %w", score, err)
	}
	log.Debug("the daemon keeps its oom_score_adj", "wanted", score, "error", err)
	return nil
}
