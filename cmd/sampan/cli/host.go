package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
)

// endpoint is where the daemon is.
type endpoint struct {
	host      string
	tls       *client.TLS
	isDefault bool // nobody named it
}

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
	for _, name := range []string{"SAMPAN_HOST", "DOCKER_HOST"} {
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
		return "default"
	}
	if name := c.env("CONTEXT"); name != "" {
		return name
	}
	if config, err := c.Config(); err == nil && config.CurrentContext != "" {
		return config.CurrentContext
	}
	return "default"
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

// contextMeta is meta.json of a context in Docker's context store.
type contextMeta struct {
	Name      string
	Endpoints map[string]struct {
		Host          string
		SkipTLSVerify bool
	}
}

// contextEndpoint reads a context: meta.json is below contexts/meta/, in a directory named by the
// SHA-256 of the context's name, and its certificates are below contexts/tls/. Our own store is
// asked first, then Docker's.
func (c *CLI) contextEndpoint(name string) (endpoint, error) {
	if name == "" || name == "default" {
		t, err := c.tls()
		return endpoint{host: client.DefaultHost, tls: t, isDefault: true}, err
	}
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	for _, dir := range []string{c.configDir(), c.dockerDir()} {
		data, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", id, "meta.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return endpoint{}, err
		}
		var meta contextMeta
		if err := json.Unmarshal(data, &meta); err != nil {
			return endpoint{}, fmt.Errorf("context %q: %w", name, err)
		}
		e, ok := meta.Endpoints["docker"]
		if !ok || e.Host == "" {
			return endpoint{}, fault.New(fault.Invalid, "context %q names no host", name)
		}
		return endpoint{host: e.Host, tls: contextTLS(filepath.Join(dir, "contexts", "tls", id, "docker"), e.Host, e.SkipTLSVerify)}, nil
	}
	return endpoint{}, fault.As(fault.NotFound, &fault.Field{Field: "--context", Given: name,
		Expected: "default, or a context in " + filepath.Join(c.configDir(), "contexts") + " or " + filepath.Join(c.dockerDir(), "contexts"),
		Nearest:  fault.Nearest(name, c.contextNames())})
}

func contextTLS(dir, host string, skipVerify bool) *client.TLS {
	if !strings.HasPrefix(host, "tcp://") {
		return nil
	}
	var t client.TLS
	for name, field := range map[string]*string{"ca.pem": &t.CA, "cert.pem": &t.Cert, "key.pem": &t.Key} {
		if path := filepath.Join(dir, name); isFile(path) {
			*field = path
		}
	}
	if t == (client.TLS{}) {
		return nil
	}
	t.Verify = !skipVerify
	return &t
}

// contextNames lists the contexts of both stores, for a message.
func (c *CLI) contextNames() []string {
	names := []string{"default"}
	for _, dir := range []string{c.configDir(), c.dockerDir()} {
		files, _ := filepath.Glob(filepath.Join(dir, "contexts", "meta", "*", "meta.json")) // the pattern is well formed
		for _, file := range files {
			var meta contextMeta
			if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &meta) == nil {
				names = append(names, meta.Name)
			}
		}
	}
	return names
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
