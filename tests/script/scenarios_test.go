// Package script holds the scenarios of people who write Starlark.
package script

import (
	"testing"

	"github.com/sampan-project/sampan/tests/scenario"
)

func TestScenarios(t *testing.T) { scenario.Run(t, "testdata") }
