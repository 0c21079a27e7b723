package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/context/store"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

// endpoint is where the daemon is.
type endpoint struct {
	host      string
	tls       *client.TLS
	isDefault bool // nobody named it
}

// hostVariables name the engine in the environment.
var hostVariables = []string{"SAMPAN_HOST", "DOCKER_HOST"}

// endpoint resolves it: --host, --context, SAMPAN_HOST, DOCKER_HOST, SAMPAN_CONTEXT,
// DOCKER_CONTEXT, the current context of our own configuration file, the default socket.
func (c *CLI) endpoint() (endpoint, error) {
	g := c.Globals
	switch {
	case len(g.Hosts) > 1:
		return endpoint{}, fault.New(fault.Invalid, "specify only one --host")
	case len(g.Hosts) == 1 && g.Context != "":
		return endpoint{}, fault.New(fault.Invalid, "conflicting options: cannot specify both --host and --context")
	case len(g.Hosts) == 1:
		return c.hostEndpoint("--host", g.Hosts[0])
	case g.Context != "":
		return c.contextEndpoint(g.Context)
	}
	for _, name := range hostVariables {
		if host := c.Env(name); host != "" {
			return c.hostEndpoint(name, host)
		}
	}
	name := c.env("CONTEXT")
	if name == "" {
		config, err := c.Config()
		if err != nil {
			return endpoint{}, err
		}
		name = config.CurrentContext
	}
	return c.contextEndpoint(name)
}

// ContextName is the context that would be used, for version and info.
func (c *CLI) ContextName() string {
	if c.Globals.Context != "" {
		return c.Globals.Context
	}
	if len(c.Globals.Hosts) > 0 || c.env("HOST") != "" {
		return store.Default
	}
	if name := c.env("CONTEXT"); name != "" {
		return name
	}
	if config, err := c.Config(); err == nil && config.CurrentContext != "" {
		return config.CurrentContext
	}
	return store.Default
}

func (c *CLI) hostEndpoint(field, given string) (endpoint, error) {
	t, err := c.tls()
	if err != nil {
		return endpoint{}, err
	}
	host, err := client.ParseHost(given, t != nil)
	if err != nil {
		var f *fault.Field
		if errors.As(err, &f) {
			f.Field = field
		}
		return endpoint{}, err
	}
	return endpoint{host: host, tls: t}, nil
}

// tls returns the TLS of the flags and the environment. A certificate file that nobody named may
// be missing; one that was named must be there.
func (c *CLI) tls() (*client.TLS, error) {
	g := c.Globals
	verify := g.TLSVerify || c.env("TLS_VERIFY") != ""
	if !verify && !g.TLS && c.env("TLS") == "" && g.TLSCACert == "" && g.TLSCert == "" && g.TLSKey == "" {
		return nil, nil
	}
	dir := c.env("CERT_PATH")
	if dir == "" {
		dir = c.configDir()
	}
	pick := func(flag, name string) string {
		if flag != "" {
			return flag
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		return path
	}
	t := &client.TLS{CA: pick(g.TLSCACert, "ca.pem"), Cert: pick(g.TLSCert, "cert.pem"), Key: pick(g.TLSKey, "key.pem"), Verify: verify}
	if (t.Cert == "") != (t.Key == "") {
		return nil, fault.New(fault.Invalid, "--tlscert and --tlskey belong together: expected both or none")
	}
	return t, nil
}

// Contexts is the store of the contexts: our own, and Docker's, which is only read.
func (c *CLI) Contexts() *store.Store {
	return store.Open(filepath.Join(c.configDir(), "contexts"), filepath.Join(c.dockerDir(), "contexts"))
}

// contextEndpoint finds out where the engine of a context is.
func (c *CLI) contextEndpoint(name string) (endpoint, error) {
	if name == "" || name == store.Default {
		t, err := c.tls()
		return endpoint{host: client.DefaultHost, tls: t, isDefault: true}, err
	}
	found, place, err := c.Contexts().Get(name)
	switch {
	case fault.Is(err, fault.NotFound):
		return endpoint{}, fault.As(fault.NotFound, &fault.Field{Field: "--context", Given: name,
			Expected: "default, or a context in " + strings.Join(c.Contexts().Dirs(), " or "),
			Nearest:  fault.Nearest(name, c.ContextNames())})
	case err != nil:
		return endpoint{}, err
	case found.Host() == "":
		return endpoint{}, fault.New(fault.Invalid, "context %q names no host", name)
	}
	return endpoint{host: found.Host(), tls: contextTLS(place, found)}, nil
}

// contextTLS is the TLS of a context: with any of its files it is on, and the server is verified unless
// the context says otherwise.
func contextTLS(p store.Place, found *store.Context) *client.TLS {
	if !strings.HasPrefix(found.Host(), "tcp://") {
		return nil
	}
	t := client.TLS{CA: p.File(store.Docker, store.CA), Cert: p.File(store.Docker, store.Cert), Key: p.File(store.Docker, store.Key)}
	if t == (client.TLS{}) && !found.SkipTLSVerify() {
		return nil
	}
	t.Verify = !found.SkipTLSVerify()
	return &t
}

// ContextNames lists the contexts, for a message.
func (c *CLI) ContextNames() []string {
	names := []string{store.Default}
	list, err := c.Contexts().List()
	if err != nil {
		return names // the message is about something else
	}
	for _, found := range list {
		names = append(names, found.Name)
	}
	return names
}

// DefaultHost is where the default context is: what --host or the environment says, and the name of the
// variable if it was that.
func (c *CLI) DefaultHost() (host, variable string) {
	if len(c.Globals.Hosts) > 0 {
		return c.Globals.Hosts[0], ""
	}
	for _, name := range hostVariables {
		if host := c.Env(name); host != "" {
			return host, name
		}
	}
	return client.DefaultHost, ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
