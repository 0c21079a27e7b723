package swarm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// rotation is how the root is to be exchanged.
type rotation struct {
	caOptions
	cert, key             pemFile
	rotate, detach, quiet bool
}

func newCA(c *cli.CLI) *cobra.Command {
	var o rotation
	cmd := &cobra.Command{
		Use: "ca [OPTIONS]", Short: "Display and rotate the root CA", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			swarm, err := engine.SwarmInspect(cmd.Context())
			if err != nil {
				return err
			}
			if err := o.check(cmd.Flags()); err != nil {
				return err
			}
			if !o.rotate {
				return printRoot(c.Out, swarm)
			}
			o.caOptions.apply(&swarm.Spec, cmd.Flags(), o.cert.content)
			ca := &swarm.Spec.CAConfig
			if ca.SigningCACert, ca.SigningCAKey = o.cert.content, o.key.content; o.cert.content == "" && o.key.content == "" {
				ca.ForceRotate++
			}
			if err := engine.SwarmUpdate(cmd.Context(), swarm.Version, swarm.Spec, wire.SwarmRotation{}); err != nil || o.detach {
				return err
			}
			return o.follow(cmd.Context(), c, engine)
		},
	}
	f := cmd.Flags()
	f.Var(&o.cert, "ca-cert", "Path to the PEM-formatted root CA certificate to use for the new cluster")
	f.Var(&o.key, "ca-key", "Path to the PEM-formatted root CA key to use for the new cluster")
	f.BoolVarP(&o.detach, "detach", "d", false, "Exit immediately instead of waiting for the root rotation to converge")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output")
	f.BoolVar(&o.rotate, "rotate", false, "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated")
	o.caOptions.addFlags(f)
	return cmd
}

// check refuses options that mean nothing without others.
func (o *rotation) check(f *pflag.FlagSet) error {
	if !o.rotate {
		for _, name := range []string{"ca-cert", "ca-key", "cert-expiry", "external-ca"} {
			if f.Changed(name) {
				return fault.New(fault.Invalid, "`--%s` flag requires the `--rotate` flag to update the CA", name)
			}
		}
		return nil
	}
	switch external := len(o.external.values) > 0; {
	case external && !f.Changed("ca-cert"):
		return fault.New(fault.Invalid, "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - to add an external CA with the current root CA certificate, use the `update` command instead")
	case f.Changed("ca-cert") && !external && !f.Changed("ca-key"):
		return fault.New(fault.Invalid, "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well")
	}
	return nil
}

func printRoot(out *cli.Out, swarm wire.Swarm) error {
	if swarm.TLSInfo.TrustRoot == "" {
		return fault.New(fault.Unavailable, "No CA information available")
	}
	fmt.Fprintln(out, strings.TrimSpace(swarm.TLSInfo.TrustRoot))
	return nil
}

// interval is how often the state of a rotation is asked for.
const interval = 200 * time.Millisecond

// The lines of the display; both are as wide.
const (
	certsLine = "  rotated TLS certificates"
	rootsLine = "  rotated CA certificates"
)

// follow shows how the nodes take the new root, and the root when all have. Who presses Ctrl-C stops the waiting and
// not the rotation.
func (o *rotation) follow(ctx context.Context, c *cli.CLI, engine *client.Client) error {
	show := cli.Progress(c.Out)
	if o.quiet {
		show = func(wire.Message) error { return nil }
	}
	for _, m := range []wire.Message{{ID: "desired root digest"}, {ID: certsLine}, {ID: rootsLine, Status: " "}} {
		if err := show(m); err != nil {
			return err
		}
	}
	for done := false; ; {
		swarm, err := engine.SwarmInspect(ctx)
		switch {
		case err != nil:
		case done && o.quiet:
			return nil
		case done:
			return printRoot(c.Out, swarm)
		default:
			done, err = look(ctx, engine, show, swarm)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			if !done && !o.quiet {
				fmt.Fprintln(c.Out, "Operation continuing in background.\nUse `sampan node ls --format '{{.Hostname}} {{.TLSStatus}}'` to check progress.")
			}
			return nil
		}
	}
}

// look asks once how far the nodes are, and shows it.
func look(ctx context.Context, engine *client.Client, show func(wire.Message) error, swarm wire.Swarm) (done bool, err error) {
	nodes, err := engine.NodeList(ctx, nil)
	if err != nil {
		return false, err
	}
	return showRotation(show, swarm, nodes)
}

// showRotation counts the nodes that have the new root, and reports whether all have.
func showRotation(show func(wire.Message) error, swarm wire.Swarm, nodes []wire.Node) (bool, error) {
	var certs, roots int64
	want := swarm.TLSInfo
	for _, n := range nodes {
		its := n.Description.TLSInfo
		if bytes.Equal(its.CertIssuerPublicKey, want.CertIssuerPublicKey) && bytes.Equal(its.CertIssuerSubject, want.CertIssuerSubject) {
			certs++
		}
		if its.TrustRoot == want.TrustRoot {
			roots++
		}
	}
	total := int64(len(nodes))
	settled := certs == total && !swarm.RootRotationInProgress
	if !settled {
		roots = 0 // the nodes trust it when all have their certificates
	}
	for _, m := range []wire.Message{
		{ID: "desired root digest", Status: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(want.TrustRoot)))},
		{ID: certsLine, ProgressDetail: &wire.Progress{Current: certs, Total: total, Units: "nodes"}},
		{ID: rootsLine, Status: " ", ProgressDetail: &wire.Progress{Current: roots, Total: total, Units: "nodes"}},
	} {
		if err := show(m); err != nil {
			return false, err
		}
	}
	return settled && roots == total, nil
}
