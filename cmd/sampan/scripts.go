package main

import (
	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/script"
)

// scripts are the commands of environments and build scripts.
var scripts = []cli.Verb{
	{Name: "plan", New: script.NewPlan}, {Name: "apply", New: script.NewApply}, {Name: "destroy", New: script.NewDestroy},
	{Name: "graph", New: script.NewGraph}, {Name: "build", New: script.NewBuild}, {Name: "script", New: script.NewScript},
}
