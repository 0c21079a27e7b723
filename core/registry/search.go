package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

const (
	maxSearch  = 4 << 20 // bytes of an answer
	maxCatalog = 10_000  // repositories that are looked through
)

// Search asks a registry for repositories by a word: the one that term begins with, as in
// "registry.example:5000/app", or else Docker's. Docker's registry has a search of its own
// (GET /v1/search); others have only the list of all repositories (distribution's _catalog), from which
// those are taken that have the word in their name.
func (c *Client) Search(ctx context.Context, term string, limit int, auth *wire.AuthConfig) ([]wire.SearchResult, error) {
	host, word := dockerHub, term
	if before, after, ok := strings.Cut(term, "/"); ok && (strings.ContainsAny(before, ".:") || before == "localhost") {
		host, word = before, after
	}
	login, err := authenticator(auth)
	if err != nil {
		return nil, err
	}
	at := endpoint{host: host, plain: c.IsInsecure(ctx, host), auth: login}
	options := []name.Option{name.StrictValidation}
	if at.plain {
		options = append(options, name.Insecure)
	}
	reg, err := name.NewRegistry(host, options...)
	if err != nil {
		return nil, &fault.Field{Field: "term", Given: term, Expected: "a word, or registry.example:5000/word"}
	}
	round, _, err := c.dial(ctx, reg, at, []string{reg.Scope("")})
	if err != nil {
		return nil, registryError(err)
	}
	found, err := searchIndex(ctx, reg, round, word, limit)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		found, err = searchCatalog(ctx, reg, round, word, limit)
	}
	return found, registryError(err)
}

func searchIndex(ctx context.Context, reg name.Registry, round http.RoundTripper, word string, limit int) ([]wire.SearchResult, error) {
	query := url.Values{"q": {word}, "n": {strconv.Itoa(limit)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, reg.Scheme()+"://"+reg.RegistryStr()+"/v1/search?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: round}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, err
	}
	var answer struct {
		Results []wire.SearchResult `json:"results"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxSearch)).Decode(&answer); err != nil {
		return nil, fault.New(fault.Unavailable, "search %s: %w", reg.Name(), err)
	}
	found := answer.Results[:min(len(answer.Results), max(limit, 0))]
	for i := range found {
		found[i].Name, found[i].Description = oneLine(found[i].Name), oneLine(found[i].Description)
	}
	return found, nil
}

func searchCatalog(ctx context.Context, reg name.Registry, round http.RoundTripper, word string, limit int) ([]wire.SearchResult, error) {
	puller, err := remote.NewPuller(remote.WithTransport(round), remote.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	catalog, err := puller.Catalogger(ctx, reg)
	if err != nil {
		return nil, err
	}
	found := []wire.SearchResult{}
	for seen := 0; catalog.HasNext() && seen < maxCatalog; {
		page, err := catalog.Next(ctx)
		if err != nil {
			return nil, err
		}
		slices.Sort(page.Repos)
		for _, repo := range page.Repos {
			if strings.Contains(repo, word) && len(found) < limit {
				found = append(found, wire.SearchResult{Name: reg.Name() + "/" + oneLine(repo)})
			}
		}
		seen += len(page.Repos) + 1
	}
	return found, nil
}
