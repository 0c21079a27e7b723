// Package cli holds the scenarios of people who type sampan.
package cli

import (
	"testing"

	"github.com/sampan-project/sampan/tests/scenario"
)

func TestScenarios(t *testing.T) { scenario.Run(t, "testdata") }
