package registry

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// TestArguments checks that the program gets what the client was given.
func TestArguments(t *testing.T) {
	for _, tt := range []struct{ given, want []string }{
		{[]string{"serve"}, []string{"sampan-registry", "serve", "--"}},
		{[]string{"serve", "-l", ":5", "--read-only", "--delete=false", "--gc-interval", "24h"}, []string{"sampan-registry", "serve", "--delete=false", "--gc-interval=24h0m0s", "--listen=:5", "--read-only=true", "--"}},
		{[]string{"gc", "-n"}, []string{"sampan-registry", "gc", "--dry-run=true", "--"}},
		{[]string{"user", "add", "--password-stdin", "--", "file", "-name"}, []string{"sampan-registry", "user", "add", "--password-stdin=true", "--", "file", "-name"}},
	} {
		var got []string
		group := &cobra.Command{Use: "registry"}
		group.AddCommand(Commands(func(cmd *cobra.Command, args []string, _ any) error { got = arguments(cmd, args); return nil })...)
		root := &cobra.Command{Use: "sampan"}
		root.AddCommand(group)
		root.SetArgs(append([]string{"registry"}, tt.given...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q: %s", tt.given, diff)
		}
	}
}
