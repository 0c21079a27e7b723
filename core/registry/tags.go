package registry

import (
	"context"
	"slices"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Tags lists the tags of a repository in their order, at most so many (OCI distribution specification,
// "Listing Tags").
func (c *Client) Tags(ctx context.Context, repository string, most int, auth *wire.AuthConfig) ([]string, error) {
	named, err := parse(repository)
	if err != nil {
		return nil, err
	}
	named = reference.TrimNamed(named)
	endpoints, err := c.endpoints(ctx, named, auth)
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, at := range endpoints {
		tags, err = c.tagsAt(ctx, named, at, most)
		if err == nil || !at.mirror || ctx.Err() != nil {
			return tags, pullError(named, at, err)
		}
	}
	return tags, err
}

func (c *Client) tagsAt(ctx context.Context, named reference.Named, at endpoint, most int) ([]string, error) {
	repo, err := c.connect(ctx, named, at, transport.PullScope)
	if err != nil {
		return nil, err
	}
	puller, err := remote.NewPuller(remote.WithTransport(repo.round), remote.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	pages, err := puller.Lister(ctx, repo.name)
	if err != nil {
		return nil, err
	}
	var tags []string
	for pages.HasNext() {
		page, err := pages.Next(ctx)
		if err != nil {
			return nil, err
		}
		if tags = append(tags, page.Tags...); len(tags) > most {
			return nil, fault.New(fault.Invalid, "repository %s has more than %d tags", named.Name(), most)
		}
		if len(page.Tags) == 0 && pages.HasNext() {
			return nil, fault.New(fault.Invalid, "repository %s: the registry sends pages without tags and without end", named.Name())
		}
	}
	slices.Sort(tags)
	return tags, nil
}
