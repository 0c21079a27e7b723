package main

import (
	"strings"

	"github.com/sampan-project/sampan/core/cgroup"
	"github.com/sampan-project/sampan/core/fault"
)

// subCgroups reads --cgroup of exec: [CONTROLLER[,CONTROLLER...]:]PATH, below the container's cgroup.
func subCgroups(given []string) (cgroup.Sub, error) {
	sub := cgroup.Sub{}
	for _, g := range given {
		controllers, path, named := strings.Cut(g, ":")
		if !named {
			controllers, path = "", g
		}
		if path == "" || named && controllers == "" || strings.Contains(path, ":") {
			return nil, &fault.Field{Field: "--cgroup", Given: g, Expected: "[CONTROLLER[,CONTROLLER...]:]PATH"}
		}
		for c := range strings.SplitSeq(controllers, ",") {
			if _, twice := sub[c]; twice {
				return nil, &fault.Field{Field: "--cgroup", Given: g, Expected: "each controller once"}
			}
			sub[c] = path
		}
	}
	return sub, nil
}
