package trust

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/wire"
)

func newSign(c *cli.CLI) *cobra.Command {
	var local bool
	cmd := &cobra.Command{
		Use: "sign IMAGE:TAG", Short: "Sign an image", Args: cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := newSigning(c, args[0])
			if err != nil {
				return err
			}
			return s.run(cmd.Context(), local)
		},
	}
	cmd.Flags().BoolVar(&local, "local", false, "Sign a locally tagged image")
	return cmd
}

// signing is one image being signed.
type signing struct {
	c      *cli.CLI
	engine *client.Client
	image  string // as it was given
	ref    trust.Reference
	auth   *wire.AuthConfig
	keys   store
	known  *signers
}

func newSigning(c *cli.CLI, image string) (*signing, error) {
	ref, err := trust.ParseReference(image)
	switch {
	case err != nil:
		return nil, err
	case ref.Digest != "":
		return nil, fault.New(fault.Invalid, "cannot use a digest reference for IMAGE:TAG")
	case ref.Tag == "":
		return nil, fault.New(fault.Invalid, "no tag specified for %s", image)
	}
	s := &signing{c: c, image: image, ref: ref, keys: openStore(c)}
	if s.known, err = readSigners(c); err != nil {
		return nil, err
	}
	if s.engine, err = c.Client(); err != nil {
		return nil, err
	}
	s.auth, err = c.Auth(image)
	return s, err
}

// run signs what the tag stands for: in the registry if a signer of the repository has signed that already, else
// the local image, which is pushed unless it is there.
func (s *signing) run(ctx context.Context, local bool) error {
	with, err := s.keysOf(ctx)
	if err != nil {
		return err
	}
	remote, err := s.remote(ctx)
	if err != nil {
		return err
	}
	if !local && remote.Digest != "" {
		names, err := verifiedBy(s.known, s.ref, remote)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			fmt.Fprintln(s.c.Out, "Signing and pushing trust metadata for", s.image)
			fmt.Fprintf(s.c.Out, "Existing signatures for tag %s digest %s from:\n%s\n", s.ref.Tag, strings.TrimPrefix(remote.Digest, "sha256:"), strings.Join(names, ", "))
			return s.sign(ctx, remote, with)
		}
	}
	image, err := s.engine.ImageInspect(ctx, s.image)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.c.Err, "Signing and pushing trust data for local image %s, may overwrite remote trust data\n", s.image)
	if s.isOf(image, remote.Digest) {
		// Nothing is to be pushed, which also would make one platform of an index.
		return s.signDigest(ctx, remote.Digest, with)
	}
	digest, err := s.push(ctx)
	if err != nil {
		return err
	}
	return s.signDigest(ctx, digest, with)
}

// isOf reports whether a local image came from the repository, or went there, as that digest.
func (s *signing) isOf(image wire.ImageInspect, digest string) bool {
	return slices.ContainsFunc(image.RepoDigests, func(have string) bool {
		r, err := trust.ParseReference(have)
		return err == nil && r.Repository == s.ref.Repository && r.Digest == digest
	})
}

// keysOf finds the keys that sign: those here that are a signer's of the repository. A repository without
// signers gets the one key that is here for its first.
func (s *signing) keysOf(ctx context.Context) ([]storedKey, error) {
	all, err := s.keys.list()
	if err != nil {
		return nil, err
	}
	trusted, err := s.known.keys(s.ref.Repository)
	if err != nil {
		return nil, err
	}
	if len(trusted) == 0 {
		if _, err := s.engine.ImageInspect(ctx, s.image); err != nil {
			return nil, err
		}
		switch len(all) {
		case 0:
			return nil, fault.New(fault.NotFound, "no key to sign %s with: make one with sampan trust key generate NAME", s.image)
		case 1:
		default:
			return nil, fault.New(fault.Conflict, "%s has no signers, and there are %d keys: say whose it is with sampan trust signer add --key NAME.pub NAME %s", s.image, len(all), s.ref.Repository)
		}
		if err := s.known.add(s.ref.Repository, all[0].name, []*trust.PublicKey{all[0].public}); err != nil {
			return nil, err
		}
		fmt.Fprintln(s.c.Out, "Created signer:", all[0].name)
		fmt.Fprintln(s.c.Out, "Finished initializing signed repository for", s.image)
		return all, nil
	}
	mine := slices.DeleteFunc(all, func(k storedKey) bool {
		return !slices.ContainsFunc(trusted, func(t *trust.PublicKey) bool { return t.ID == k.public.ID })
	})
	if len(mine) == 0 {
		return nil, fault.New(fault.NotFound, "could not find signing keys for remote repository %s: none of its signers' private keys is in %s", s.ref.Repository, s.keys.dir)
	}
	return mine, nil
}

// remote is the tag as the registry has it, with no digest if it has it not.
func (s *signing) remote(ctx context.Context) (wire.SignedTag, error) {
	data, err := s.engine.Signatures(ctx, s.ref.String(), s.auth)
	if fault.Is(err, fault.NotFound) || err == nil && len(data.Tags) == 0 {
		return wire.SignedTag{}, nil
	}
	if err != nil {
		return wire.SignedTag{}, err
	}
	return data.Tags[0], nil
}

// verifiedBy are the names of the signers who signed what a tag stands for. Of an index that is the index:
// signatures of some of its manifests say nothing of the others.
func verifiedBy(known *signers, ref trust.Reference, tag wire.SignedTag) ([]string, error) {
	rule, err := known.rule(ref.Repository)
	if err != nil || len(rule.Keys) == 0 {
		return nil, err
	}
	var names []string
	about := trust.About([]string{tag.Digest}, tag.Signatures)
	for _, k := range rule.Keys {
		one := rule
		one.Keys = []*trust.PublicKey{k}
		if _, err := one.Verify(ref, []string{tag.Digest}, about); err == nil && !slices.Contains(names, k.Name) {
			names = append(names, k.Name)
		}
	}
	return names, nil
}

// push sends the local image, and returns the digest that it has in the registry.
func (s *signing) push(ctx context.Context) (digest string, err error) {
	show := cli.Progress(s.c.Out)
	err = s.engine.ImagePush(ctx, s.image, "", s.auth, func(m wire.Message) error {
		if d := pushedDigest(m); d != "" {
			digest = d
		}
		return show(m)
	})
	if err == nil && digest == "" {
		err = fault.New(fault.Internal, "push %s: the daemon did not tell the digest of what it pushed", s.image)
	}
	return digest, err
}

// pushedDigest is the digest that the last message of a push tells.
func pushedDigest(m wire.Message) string {
	aux, ok := m.Aux.(map[string]any)
	if !ok {
		return ""
	}
	d, _ := aux["Digest"].(string)
	return d
}

// signDigest signs what the repository has by a digest.
func (s *signing) signDigest(ctx context.Context, digest string, with []storedKey) error {
	fmt.Fprintln(s.c.Out, "Signing and pushing trust metadata")
	data, err := s.engine.Signatures(ctx, s.ref.Repository+"@"+digest, s.auth)
	if err != nil {
		return fmt.Errorf("failed to sign %s: %w", s.ref, err)
	}
	if len(data.Tags) != 1 || data.Tags[0].Digest != digest {
		return fault.New(fault.Internal, "failed to sign %s: the daemon answered about another digest than %s", s.ref, digest)
	}
	return s.sign(ctx, data.Tags[0], with)
}

// sign signs a digest and, of an index, each manifest too: podman and skopeo verify the one they choose.
func (s *signing) sign(ctx context.Context, tag wire.SignedTag, with []storedKey) error {
	for _, k := range with {
		key, err := s.keys.open(k)
		if err != nil {
			return fmt.Errorf("failed to sign %s: %w", s.ref, err)
		}
		for _, digest := range append([]string{tag.Digest}, tag.Manifests...) {
			if err := s.signOne(ctx, key, digest); err != nil {
				return fmt.Errorf("failed to sign %s: %w", s.ref, err)
			}
		}
	}
	fmt.Fprintf(s.c.Out, "Successfully signed %s\n", s.ref)
	return nil
}

func (s *signing) signOne(ctx context.Context, key *trust.PrivateKey, digest string) error {
	claim := trust.Claim{Reference: s.ref.String(), Digest: digest, Creator: "sampan " + wire.Release, Time: time.Now()}
	payload, err := claim.Encode()
	if err != nil {
		return err
	}
	signature, err := key.Sign(payload)
	if err != nil {
		return err
	}
	request := wire.SignRequest{Digest: digest, Signature: wire.Signature{Payload: payload, Signature: signature}}
	return s.engine.Sign(ctx, s.ref.String(), request, s.auth)
}
