package complete

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestPlaces(t *testing.T) {
	tests := map[string]struct {
		kinds []string
		again bool
	}{
		"ps [OPTIONS]":                                 {nil, false},
		"attach CONTAINER":                             {[]string{"container"}, false},
		"rm [OPTIONS] CONTAINER [CONTAINER...]":        {[]string{"container"}, true},
		"stats [OPTIONS] [CONTAINER...]":               {[]string{"container"}, true},
		"exec [OPTIONS] CONTAINER COMMAND [ARG...]":    {[]string{"container", "command"}, false},
		"run [OPTIONS] IMAGE [COMMAND] [ARG...]":       {[]string{"image", "command"}, false},
		"connect [OPTIONS] NETWORK CONTAINER":          {[]string{"network", "container"}, false},
		"tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]":    {[]string{"image", "image"}, false},
		"images [OPTIONS] [REPOSITORY[:TAG]]":          {[]string{"image"}, false},
		"inspect [OPTIONS] NAME|ID [NAME|ID...]":       {[]string{"anything"}, true},
		"inspect [OPTIONS] [CONTEXT] [CONTEXT...]":     {[]string{"context"}, true},
		"import CONTEXT FILE|-":                        {[]string{"context", "file"}, false},
		"load [OPTIONS] KEYFILE":                       {[]string{"file"}, false},
		"mount [IMAGE [PATH]]":                         {[]string{"image", "file"}, false},
		"inspect [OPTIONS] self|NODE [NODE...]":        {[]string{"node"}, true},
		"scale SERVICE=REPLICAS [SERVICE=REPLICAS...]": {[]string{"replicas"}, true},
		"logs [OPTIONS] SERVICE|TASK":                  {[]string{"service"}, false},
		"update [OPTIONS] SERVICE":                     {[]string{"service"}, false},
		"join-token [OPTIONS] (worker|manager)":        {[]string{"role"}, false},
		"search [OPTIONS] TERM":                        {[]string{""}, false},
		"cp CONTAINER:SRC_PATH DEST_PATH|-\n\tx y z":   {[]string{"place", ""}, false},
	}
	for use, want := range tests {
		kinds, again := places(use)
		if diff := cmp.Diff(want.kinds, kinds); diff != "" || again != want.again {
			t.Errorf("%s: again %v\n%s", use, again, diff)
		}
	}
}

// TestFlagsOfFiles: a flag that the table does not know completes nothing, and no file either.
func TestFlagsOfFiles(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	for name, files := range map[string]bool{"users": true, "tls-key": true, "key": true, "env-file": true, "hostname": false} {
		flags.String(name, "", "")
		if do := (engine{}).flag(&cobra.Command{Use: "x"}, flags.Lookup(name)); (do == nil) != files {
			t.Errorf("--%s completes files: %v, expected %v", name, do == nil, files)
		}
	}
}
