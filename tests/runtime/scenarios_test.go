// Package runtime holds the scenarios of people who have Podman, Docker or containerd and give it
// sampan-runtime in place of runc. SAMPAN_RUNTIME=runc runs them with that, to compare.
package runtime

import (
	"testing"

	"github.com/sampan-project/sampan/tests/scenario"
)

func TestScenarios(t *testing.T) { scenario.Run(t, "testdata") }
