package trust

import (
	"context"
	"fmt"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
	"github.com/sampan-project/sampan/core/wire"
)

// Target is a tag and the digest that a signer signed for it.
type Target struct {
	Tagged string // "registry.example.com/app:1.0"
	Pinned string // "registry.example.com/app@sha256:..."
	Tag    string
	Digest string
}

// Targets finds what may be pulled by a name with content trust: what its tag stands for or, with all, each
// signed tag. Who asks pulls the digest, so that the tag cannot change in between.
func Targets(ctx context.Context, c *cli.CLI, engine *client.Client, name string, all bool) ([]Target, error) {
	ref, err := trust.ParseReference(name)
	if err != nil {
		return nil, err
	}
	if ref.Tag == "" && !all {
		ref.Tag = "latest"
	}
	known, err := readSigners(c)
	if err != nil {
		return nil, err
	}
	rule, err := known.rule(ref.Repository)
	if err != nil {
		return nil, err
	}
	if len(rule.Keys) == 0 {
		return nil, fault.New(fault.Forbidden, "remote trust data does not exist for %s: no signer of it is known here: add one with sampan trust signer add --key NAME.pub NAME %s", ref.Repository, ref.Repository)
	}
	auth, err := c.Auth(name)
	if err != nil {
		return nil, err
	}
	data, err := engine.Signatures(ctx, ref.String(), auth)
	if err != nil {
		return nil, err
	}
	var list []Target
	var refused error
	for _, t := range data.Tags {
		asked := trust.Reference{Repository: ref.Repository, Tag: t.Tag}
		if _, err := rule.Verify(asked, []string{t.Digest}, trust.About([]string{t.Digest}, t.Signatures)); err != nil {
			refused = err
			continue
		}
		list = append(list, Target{asked.String(), asked.Repository + "@" + t.Digest, t.Tag, t.Digest})
	}
	switch {
	case len(list) > 0:
		return list, nil
	case refused != nil:
		return nil, refused
	}
	return nil, fault.New(fault.NotFound, "no trusted tags for %s", ref.Repository)
}

// IsPinned reports whether a name says which image it means: a digest, which needs no signature.
func IsPinned(name string) bool {
	ref, err := trust.ParseReference(name)
	return err == nil && ref.Digest != ""
}

// Pull pulls what Targets found, by its digest, and gives it its tag.
func (t Target) Pull(ctx context.Context, c *cli.CLI, engine *client.Client, platform string, show func(wire.Message) error) error {
	auth, err := c.Auth(t.Tagged)
	if err != nil {
		return err
	}
	if err := engine.ImagePull(ctx, t.Pinned, platform, auth, show); err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "Tagging %s as %s\n", t.Pinned, t.Tagged)
	return engine.ImageTag(ctx, t.Pinned, t.Tagged)
}

// Push signs what was pushed under a name: each message of the push is shown to Seen, and Sign follows.
type Push struct {
	s      *signing
	with   []storedKey
	digest string
}

// NewPush finds the keys before anything is pushed.
func NewPush(ctx context.Context, c *cli.CLI, image string) (*Push, error) {
	s, err := newSigning(c, image)
	if err != nil {
		return nil, err
	}
	with, err := s.keysOf(ctx)
	return &Push{s: s, with: with}, err
}

// Seen takes a message of the push.
func (p *Push) Seen(m wire.Message) {
	if d := pushedDigest(m); d != "" {
		p.digest = d
	}
}

// Sign signs the digest that the push told.
func (p *Push) Sign(ctx context.Context) error {
	if p.digest == "" {
		return fault.New(fault.Internal, "push %s: the daemon did not tell the digest of what it pushed", p.s.image)
	}
	return p.s.signDigest(ctx, p.digest, p.with)
}
