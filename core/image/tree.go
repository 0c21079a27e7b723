package image

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/layer"
	"github.com/sampan-project/sampan/core/wire"
)

// Tree returns the layers of all images as they stand on each other: what images share is there once.
func (s *Store) Tree(context.Context) ([]wire.ImageNode, error) {
	children := map[digest.Digest][]digest.Digest{}
	users := map[digest.Digest]int{}
	tops := map[digest.Digest][]string{}
	for _, e := range s.all() {
		if e.Artifact != "" {
			continue
		}
		var parent digest.Digest
		for _, l := range e.Layers {
			if users[l.Chain]++; users[l.Chain] == 1 {
				children[parent] = append(children[parent], l.Chain)
			}
			parent = l.Chain
		}
		names := e.Names
		if len(names) == 0 {
			names = []string{e.record.ID.String()}
		}
		tops[parent] = append(tops[parent], names...)
	}
	var grow func(parent digest.Digest) []wire.ImageNode
	grow = func(parent digest.Digest) []wire.ImageNode {
		list := []wire.ImageNode{}
		for _, chain := range children[parent] {
			n := wire.ImageNode{Chain: chain.String(), Users: users[chain], Images: slices.Clone(tops[chain]), Children: grow(chain)}
			if l, err := s.o.Layers.Get(chain); err == nil {
				n.DiffID, n.Size = l.DiffID.String(), l.Size
			}
			slices.Sort(n.Images)
			list = append(list, n)
		}
		slices.SortFunc(list, func(a, b wire.ImageNode) int { return strings.Compare(a.Chain, b.Chain) })
		return list
	}
	tree := grow("")
	if names := tops[""]; len(names) > 0 { // images without a layer
		slices.Sort(names)
		tree = append(tree, wire.ImageNode{Images: names, Users: len(names)})
	}
	return tree, nil
}

// DiffImages tells which files an image has otherwise than another.
func (s *Store) DiffImages(ctx context.Context, from, to string) ([]wire.Change, error) {
	l := s.lease()
	defer l.end()
	var chains [2]digest.Digest
	for i, ref := range []string{from, to} {
		e, _, err := s.leased(l, func() (*entry, error) { return s.find(ref) })
		if err != nil {
			return nil, err
		}
		if err := e.runnable(ref); err != nil {
			return nil, err
		}
		for _, layer := range e.Layers {
			l.chain(layer.Chain)
		}
		chains[i] = e.ChainID
	}
	changes, err := s.o.Layers.Compare(ctx, chains[0], chains[1])
	if err != nil {
		return nil, err
	}
	kinds := map[layer.Kind]int{layer.Modified: wire.ChangeModified, layer.Added: wire.ChangeAdded, layer.Deleted: wire.ChangeDeleted}
	list := make([]wire.Change, len(changes))
	for i, c := range changes {
		list[i] = wire.Change{Path: c.Path, Kind: kinds[c.Kind]}
	}
	return list, nil
}
