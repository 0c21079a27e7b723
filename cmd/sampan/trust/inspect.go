package trust

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
)

func newInspect(c *cli.CLI) *cobra.Command {
	var pretty bool
	cmd := &cobra.Command{
		Use: "inspect IMAGE[:TAG] [IMAGE[:TAG]...]", Short: "Return low-level information about keys and signatures", Args: cli.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			engine, err := c.Client()
			if err != nil {
				return err
			}
			list := []report{}
			var errs []error
			for i, name := range args {
				r, err := inspect(cmd.Context(), c, engine, name)
				switch {
				case err != nil && pretty:
					return err
				case err != nil:
					errs = append(errs, err)
				case pretty:
					if err := r.print(c.Out); err != nil {
						return err
					}
					if i < len(args)-1 {
						fmt.Fprint(c.Out, "\n\n")
					}
				default:
					list = append(list, r)
				}
			}
			if !pretty {
				text, err := json.MarshalIndent(list, "", "    ")
				if err != nil {
					return err
				}
				fmt.Fprintln(c.Out, string(text))
			}
			return cli.Join(errs)
		},
	}
	cmd.Flags().BoolVar(&pretty, "pretty", false, "Print the information in a human friendly format")
	return cmd
}

// report is what is known of a repository's trust, in the order of Docker's JSON. Administrative keys there are
// none: nobody signs the list of signers.
type report struct {
	Name               string
	SignedTags         []signedTag
	Signers            []signer
	AdministrativeKeys []signer
}

type signedTag struct {
	SignedTag string
	Digest    string
	Signers   []string
}

type signer struct {
	Name string `json:",omitempty"`
	Keys []key  `json:",omitempty"`
}

type key struct {
	ID string `json:",omitempty"`
}

// unknown stands in the list of a tag's signers for signatures that nobody known here made.
const unknown = "(unknown)"

func inspect(ctx context.Context, c *cli.CLI, engine *client.Client, name string) (report, error) {
	r := report{Name: name, SignedTags: []signedTag{}, Signers: []signer{}, AdministrativeKeys: []signer{}}
	ref, err := trust.ParseReference(name)
	if err != nil {
		return r, err
	}
	known, err := readSigners(c)
	if err != nil {
		return r, err
	}
	keys, err := known.keys(ref.Repository)
	if err != nil {
		return r, err
	}
	for _, k := range keys {
		if n := len(r.Signers); n == 0 || r.Signers[n-1].Name != k.Name {
			r.Signers = append(r.Signers, signer{Name: k.Name})
		}
		last := &r.Signers[len(r.Signers)-1]
		last.Keys = append(last.Keys, key{k.ID})
	}
	auth, err := c.Auth(name)
	if err != nil {
		return r, err
	}
	data, err := engine.Signatures(ctx, ref.String(), auth)
	if err != nil && !(fault.Is(err, fault.NotFound) && len(keys) > 0) {
		return r, fmt.Errorf("no signatures or cannot access %s: %w", name, err)
	}
	for _, tag := range data.Tags {
		if len(tag.Signatures) == 0 {
			continue
		}
		asked := trust.Reference{Repository: ref.Repository, Tag: tag.Tag}
		if tag.Tag == "" {
			asked.Digest = tag.Digest
		}
		names, err := verifiedBy(known, asked, tag)
		if err != nil {
			return r, err
		}
		if len(names) == 0 {
			names = []string{unknown}
		}
		r.SignedTags = append(r.SignedTags, signedTag{tag.Tag, strings.TrimPrefix(tag.Digest, "sha256:"), names})
	}
	if len(r.SignedTags) == 0 && len(r.Signers) == 0 {
		return r, fault.New(fault.NotFound, "no signatures or cannot access %s", name)
	}
	// As Docker's, in which the list is the other way round.
	slices.Reverse(r.Signers)
	return r, nil
}

func (r report) print(out *cli.Out) error {
	if len(r.SignedTags) == 0 {
		fmt.Fprintf(out, "\nNo signatures for %s\n\n", r.Name)
	} else {
		fmt.Fprintf(out, "\nSignatures for %s\n\n", r.Name)
		rows := [][]string{{"SIGNED TAG", "DIGEST", "SIGNERS"}}
		for _, t := range r.SignedTags {
			rows = append(rows, []string{t.SignedTag, t.Digest, strings.Join(t.Signers, ", ")})
		}
		if err := cli.Table(out, 10, rows); err != nil {
			return err
		}
	}
	if len(r.Signers) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\nList of signers and their keys for %s\n\n", r.Name)
	rows := [][]string{{"SIGNER", "KEYS"}}
	for _, s := range slices.Backward(r.Signers) {
		var ids []string
		for _, k := range s.Keys {
			ids = append(ids, k.ID[:12])
		}
		rows = append(rows, []string{s.Name, strings.Join(ids, ", ")})
	}
	return cli.Table(out, 10, rows)
}
