// Package cli is what every command of sampan stands on: the standard streams and their terminal,
// the connection to the daemon, the configuration file, output formats, progress and exit codes.
//
// A command gets one *CLI from main. It asks for Client when it needs the daemon, which is when the
// host is resolved (flags, environment, context, default) and, for root on the default socket, a
// daemon is started if none answers. It writes results to Out, everything else to Err, and returns
// an error: main prints it once, in one place (Message), and leaves with its code (Code).
package cli

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/sampan-project/sampan/core/client"
)

// CLI is one run of the program.
type CLI struct {
	In       *In
	Out, Err *Out
	Globals  Globals
	// Env looks up the environment; tests replace it.
	Env func(string) string
	// Passive keeps Client from starting a daemon where none answers.
	Passive bool

	client  *client.Client
	config  *Config
	signals signals
}

// Globals are the options before the command.
type Globals struct {
	Hosts     []string
	Context   string
	ConfigDir string
	Debug     bool
	LogLevel  string
	TLS       bool
	TLSVerify bool
	TLSCACert string
	TLSCert   string
	TLSKey    string
}

// New returns a CLI on the given streams; those that are files on a terminal are known as such.
func New(in io.Reader, out, err io.Writer) *CLI {
	return &CLI{In: newIn(in), Out: newOut(out), Err: newOut(err), Env: os.Getenv}
}

// Client returns the connection to the daemon, which dials when it is first used.
func (c *CLI) Client() (*client.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	if c.Globals.LogLevel != "" {
		if err := OneOf("--log-level", strings.ToLower(c.Globals.LogLevel), logLevels...); err != nil {
			return nil, err
		}
	}
	e, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	o := client.Options{Host: e.host, TLS: e.tls, Version: c.env("API_VERSION"), Headers: config.HTTPHeaders}
	if e.isDefault && os.Geteuid() == 0 && !c.Passive {
		o.Start = func(ctx context.Context) error { return c.startDaemon(ctx, e.host) }
	}
	if c.client, err = client.New(o); err != nil {
		return nil, err
	}
	return c.client, nil
}

// logLevels are those that docker's client takes. Nothing here logs yet: what is wrong is an error.
var logLevels = []string{"debug", "info", "warn", "error", "fatal", "panic", "trace", "warning"}

// env looks a setting up under Sampan's name, then under Docker's.
func (c *CLI) env(name string) string {
	if v := c.Env("SAMPAN_" + name); v != "" {
		return v
	}
	return c.Env("DOCKER_" + name)
}
