// Package docker holds the scenarios of people who come with the stock docker client.
package docker

import (
	"testing"

	"github.com/sampan-project/sampan/tests/scenario"
)

func TestScenarios(t *testing.T) { scenario.Run(t, "testdata") }
