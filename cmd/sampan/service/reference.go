package service

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/cmd/sampan/trust"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// resolveNetworks puts the IDs of networks where their names are.
func resolveNetworks(ctx context.Context, engine *client.Client, given []wire.NetworkAttachment) ([]wire.NetworkAttachment, error) {
	list := slices.Clone(given)
	for i := range list {
		n, err := engine.SwarmNetwork(ctx, list[i].Target)
		if err != nil {
			return nil, err
		}
		list[i].Target = n.ID
	}
	slices.SortFunc(list, func(a, b wire.NetworkAttachment) int { return cmp.Compare(a.Target, b.Target) })
	return list, nil
}

// resolveSecrets finds the IDs of secrets by their names.
func resolveSecrets(ctx context.Context, engine *client.Client, given *files) ([]*wire.TaskSecret, error) {
	names, err := given.names()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	there, err := engine.SecretList(ctx, client.Filters{"name": names})
	if err != nil {
		return nil, err
	}
	var list []*wire.TaskSecret
	for _, s := range given.values {
		i := slices.IndexFunc(there, func(t wire.Secret) bool { return t.Spec.Name == s.source })
		if i < 0 {
			return nil, fault.New(fault.NotFound, "secret not found: %s", s.source)
		}
		list = append(list, &wire.TaskSecret{File: &s.at, SecretID: there[i].ID, SecretName: s.source})
	}
	return list, nil
}

// resolveConfigs finds the IDs of configs by their names, also that of a service account's, which it puts where the
// name was.
func resolveConfigs(ctx context.Context, engine *client.Client, given *files, account *credential) ([]*wire.TaskConfig, error) {
	names, err := given.names()
	if err != nil {
		return nil, err
	}
	if account != nil && account.Config != "" {
		names = append(names, account.Config)
	}
	if len(names) == 0 {
		return nil, nil
	}
	there, err := engine.ConfigList(ctx, client.Filters{"name": names})
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(names))
	for i, name := range names {
		at := slices.IndexFunc(there, func(t wire.Config) bool { return t.Spec.Name == name })
		if at < 0 {
			return nil, fault.New(fault.NotFound, "config not found: %s", name)
		}
		ids[i] = there[at].ID
	}
	var list []*wire.TaskConfig
	for i, f := range given.values {
		list = append(list, &wire.TaskConfig{File: &f.at, ConfigID: ids[i], ConfigName: f.source})
	}
	if len(names) > len(given.values) {
		last := len(names) - 1
		account.Config = ids[last]
		list = append(list, &wire.TaskConfig{Runtime: &struct{}{}, ConfigID: ids[last], ConfigName: names[last]})
	}
	return list, nil
}

// credentialOf is the service account of a specification that the daemon sent.
func credentialOf(p *wire.Privileges) *credential {
	if p == nil || p.CredentialSpec == nil {
		return nil
	}
	var c credential
	data, err := json.Marshal(p.CredentialSpec)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return nil
	}
	return &c
}

// auth is the login for the image's registry, if the nodes shall have it.
func (o *options) auth(c *cli.CLI, spec *wire.ServiceSpec) (*wire.AuthConfig, error) {
	if !o.withAuth || spec.TaskTemplate.ContainerSpec == nil {
		return nil, nil
	}
	auth, err := c.Auth(spec.TaskTemplate.ContainerSpec.Image)
	if auth == nil && err == nil {
		auth = &wire.AuthConfig{} // that there is none is told too
	}
	return auth, err
}

// pin completes the image's name with the tag that it means and, with ask, the digest that the registry has for it,
// so that all nodes run the same: with content trust what a signer signed. It warns if the registry does not tell.
func pin(ctx context.Context, c *cli.CLI, engine *client.Client, t *wire.TaskSpec, auth *wire.AuthConfig, ask bool) (warning string, err error) {
	k := t.ContainerSpec
	if k == nil || k.Image == "" {
		return "", nil
	}
	if ask {
		signed, err := signedDigest(ctx, c, engine, k.Image)
		if err != nil || signed != "" {
			k.Image = cmp.Or(signed, k.Image)
			return "", err
		}
	}
	if k.Image = withTag(k.Image); !ask {
		return "", nil
	}
	found, err := engine.Distribution(ctx, k.Image, auth)
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		return fmt.Sprintf("image %s could not be accessed on a registry to record\nits digest. Each node will access %s independently,\n"+
			"possibly leading to different nodes running different\nversions of the image.\n", k.Image, k.Image), nil
	}
	if !strings.Contains(k.Image, "@") {
		k.Image += "@" + found.Descriptor.Digest
	}
	if len(found.Platforms) == 0 {
		return "", nil
	}
	placement := wire.Placement{}
	if t.Placement != nil {
		placement = *t.Placement
	}
	placement.Platforms = nil
	for _, p := range found.Platforms {
		if strings.EqualFold(p.Architecture, "arm") {
			p.Architecture = "" // of its many kinds the node's own name says another one
		}
		placement.Platforms = append(placement.Platforms, wire.NodePlatform{Architecture: p.Architecture, OS: p.OS})
	}
	t.Placement = &placement
	return "", nil
}

// signedDigest is the image by the digest that a signer signed, with content trust; "" without.
func signedDigest(ctx context.Context, c *cli.CLI, engine *client.Client, image string) (string, error) {
	if on, err := new(cli.ContentTrust).On(c); !on || err != nil || trust.IsPinned(image) {
		return "", err
	}
	list, err := trust.Targets(ctx, c, engine, image, false)
	if err != nil {
		return "", err
	}
	return withTag(list[0].Tagged) + "@" + list[0].Digest, nil
}

// withTag is an image's name as lists show it, with the tag that it means if it has neither tag nor digest. An ID
// stays as it is.
func withTag(image string) string {
	id := len(image) == 64 && strings.Trim(image, "0123456789abcdef") == ""
	if id || strings.HasPrefix(image, "sha256:") || strings.Contains(image, "@") {
		return image
	}
	if strings.LastIndexByte(image, ':') <= strings.LastIndexByte(image, '/') {
		image += ":latest"
	}
	return task.Image(image)
}
