package image

import (
	"context"
	"strconv"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Docker's bounds of a search.
const defaultResults, maxResults = 25, 100

// Search asks a registry for repositories. The filters are is-official, is-automated and stars, which is
// how many at least; limit 0 is Docker's.
func (s *Store) Search(ctx context.Context, term string, limit int, filters map[string][]string, auth *wire.AuthConfig) ([]wire.SearchResult, error) {
	if limit == 0 {
		limit = defaultResults
	}
	if limit < 1 || limit > maxResults {
		return nil, fault.New(fault.Invalid, "limit %d is outside the range of [1, %d]", limit, maxResults)
	}
	wanted, err := searchFilter(filters)
	if err != nil {
		return nil, err
	}
	found, err := s.o.Registry.Search(ctx, term, limit, auth)
	if err != nil {
		return nil, err
	}
	list := []wire.SearchResult{}
	for _, r := range found {
		if wanted(r) {
			list = append(list, r)
		}
	}
	return list, nil
}

// searchFilter is the test that all filters of a search together are.
func searchFilter(filters map[string][]string) (func(wire.SearchResult) bool, error) {
	var tests []func(wire.SearchResult) bool
	for _, v := range filters["is-official"] {
		want, err := parseBool("is-official", v)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(r wire.SearchResult) bool { return r.IsOfficial == want })
	}
	for _, v := range filters["is-automated"] {
		want, err := parseBool("is-automated", v)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(r wire.SearchResult) bool { return r.IsAutomated == want })
	}
	for _, v := range filters["stars"] {
		least, err := strconv.Atoi(v)
		if err != nil {
			return nil, &fault.Field{Field: "filter stars", Given: v, Expected: "a number"}
		}
		tests = append(tests, func(r wire.SearchResult) bool { return r.StarCount >= least })
	}
	return func(r wire.SearchResult) bool {
		for _, test := range tests {
			if !test(r) {
				return false
			}
		}
		return true
	}, nil
}
