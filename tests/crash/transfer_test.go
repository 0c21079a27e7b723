package crash

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// recipe is what is built: a file from outside, and a step that is run.
const recipe = `
def target(ctx):
    return image("busybox").copy(ctx.local("build.star"), "/copied").run("echo stepped >/stepped").config(cmd = ["cat", "/stepped"])
`

// serve starts a registry, with the image that prepare saved as its content, and returns its address.
func (b *bench) serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	b.check(os.WriteFile(filepath.Join(b.Root, "build.star"), []byte(recipe), 0o600))
	b.must("load", "-q", "-i", "image.tar")
	b.must("tag", "loaded", host+"/there:1")
	b.must("push", "-q", host+"/there:1")
	b.must("rmi", "loaded", host+"/there:1")
	b.settled("a push")
	return host
}

// transfers are what a user does with a registry, and the other ways of an image in and out.
func transfers(host string) []operation {
	there, pushed := host+"/there:1", host+"/pushed:1"
	loaded := sampan("load", "-q", "-i", "image.tar")
	return []operation{
		{name: "pull", do: sampan("pull", "-q", there),
			again: cmds(sampan("pull", "-q", there), sampan("run", "--rm", there, "ls", "/loaded")), after: cmds(sampan("rmi", "-f", there))},
		{name: "pull_again", before: cmds(sampan("pull", "-q", there)), do: sampan("pull", "-q", there),
			again: cmds(sampan("run", "--rm", there, "ls", "/loaded")), after: cmds(sampan("rmi", "-f", there))},
		{name: "push", before: cmds(loaded, sampan("tag", "loaded", pushed)), do: sampan("push", "-q", pushed),
			again: cmds(sampan("push", "-q", pushed), sampan("rmi", "loaded", pushed), sampan("pull", "-q", pushed), sampan("run", "--rm", pushed, "ls", "/loaded")),
			after: cmds(sampan("rmi", "-f", pushed))},
		{name: "save", before: cmds(loaded), do: sampan("save", "-o", "saved.tar", "loaded"),
			again: cmds(sampan("save", "-o", "saved.tar", "loaded"), sampan("rmi", "loaded"), sampan("load", "-q", "-i", "saved.tar"), sampan("run", "--rm", "loaded", "ls", "/loaded")),
			after: cmds(sampan("rmi", "-f", "loaded"))},
		{name: "rmi_names", before: cmds(loaded, sampan("tag", "loaded", "other")), do: sampan("rmi", "-f", "loaded", "other"),
			again: cmds(sampan("?rmi", "loaded"), sampan("?rmi", "other"), loaded, sampan("run", "--rm", "loaded", "ls", "/loaded")), after: cmds(sampan("rmi", "-f", "loaded"))},
		{name: "image_prune", before: cmds(loaded), do: sampan("image", "prune", "-a", "-f"),
			again: cmds(loaded, sampan("run", "--rm", "loaded", "ls", "/loaded")), after: cmds(sampan("rmi", "-f", "loaded"))},
		{name: "build", do: sampan("build", "-t", "made", "-f", "build.star", "target"),
			again: cmds(sampan("build", "-t", "made", "-f", "build.star", "target"), sampan("run", "--rm", "made")),
			after: cmds(sampan("rmi", "-f", "made"), sampan("builder", "prune", "-a", "-f"), sampan("image", "prune", "-f"))},
		{name: "builder_prune", before: cmds(sampan("build", "-t", "made", "-f", "build.star", "target")), do: sampan("builder", "prune", "-a", "-f"),
			again: cmds(sampan("run", "--rm", "made"), sampan("build", "-t", "made", "-f", "build.star", "target")),
			after: cmds(sampan("rmi", "-f", "made"), sampan("builder", "prune", "-a", "-f"), sampan("image", "prune", "-f"))},
	}
}
