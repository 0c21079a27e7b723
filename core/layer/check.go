package layer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/check"
)

const loss = "what was written on it is lost: remove its container"

// Check compares layers and snapshots with their directories. keys are the snapshots that somebody
// speaks for, and those that are being made.
func (s *Store) Check(ctx context.Context, keys []string) (found []check.Finding, err error) {
	owned := map[string]string{}
	for _, key := range keys {
		if name, err := snapshotDir(key); err == nil {
			owned[name] = key
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, chain := range s.snapshots {
		found = append(found, s.checkSnapshot(name, chain, owned)...)
	}
	for chain, l := range s.layers {
		found = append(found, s.checkLayer(chain, l)...)
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return found, fmt.Errorf("check layer store: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if _, is := s.snapshots[name]; is || name == tmpDir || name == linkDir || name == emptyDir {
			continue
		}
		if hex64.MatchString(name) && s.layers[digest.NewDigestFromEncoded(digest.SHA256, name)] != nil {
			continue
		}
		found = append(found, check.Finding{Kind: "directory", Subject: filepath.Join(s.root, name), Problem: "it is neither a whole layer nor a snapshot",
			Did: "removed it", Mend: func(context.Context) error { return s.discardStranger(name) }})
	}
	rest, err := s.checkTemporary()
	return append(found, rest...), err
}

// discardStranger removes a directory unless it has become a layer or a snapshot.
func (s *Store) discardStranger(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.snapshots[name]; is || hex64.MatchString(name) && s.layers[digest.NewDigestFromEncoded(digest.SHA256, name)] != nil {
		return nil
	}
	if err := s.discard(filepath.Join(s.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkSnapshot is called with the lock held. It looks at directories only, whatever is in them.
func (s *Store) checkSnapshot(name string, chain digest.Digest, owned map[string]string) (found []check.Finding) {
	dir := filepath.Join(s.root, name)
	key, is := owned[name]
	if !is {
		return []check.Finding{{Kind: "snapshot", Subject: name, Problem: "no container speaks for it", Did: "removed it",
			Mend: func(context.Context) error {
				if err := s.discard(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				s.forget(name)
				return nil
			}}}
	}
	if _, ok := s.layers[chain]; !ok {
		found = append(found, check.Finding{Kind: "snapshot", Subject: key, Problem: fmt.Sprintf("it stands on layer %s, which is missing", chain),
			Advice: "pull or load the image again"})
	}
	if !exists(filepath.Join(dir, "diff")) {
		return append(found, check.Finding{Kind: "snapshot", Subject: key, Problem: "its upper directory is missing", Advice: loss})
	}
	if work := filepath.Join(dir, "work"); !exists(work) {
		found = append(found, check.Finding{Kind: "snapshot", Subject: key, Problem: "its work directory is missing", Did: "made it",
			Mend: func(context.Context) error { return ifMissing(os.Mkdir(work, 0o711)) }})
	}
	if lower := filepath.Join(dir, "lower"); !exists(lower) {
		found = append(found, check.Finding{Kind: "snapshot", Subject: key, Problem: "it does not say what it stands on", Did: "wrote it",
			Mend: func(context.Context) error { return ifMissing(os.Symlink(linkOfChain(chain), lower)) }})
	}
	return found
}

func ifMissing(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// checkLayer is called with the lock held.
func (s *Store) checkLayer(chain digest.Digest, l *layerState) (found []check.Finding) {
	if chain == "" {
		return nil
	}
	if dir := s.dir(chain); !exists(filepath.Join(dir, "diff")) || !exists(filepath.Join(dir, metaFile)) {
		return []check.Finding{{Kind: "layer", Subject: chain.String(), Problem: "its directory is not whole", Advice: "remove its images, and pull or load them again"}}
	}
	if _, ok := s.layers[l.Parent]; !ok {
		found = append(found, check.Finding{Kind: "layer", Subject: chain.String(), Problem: fmt.Sprintf("it stands on layer %s, which is missing", l.Parent),
			Advice: "remove its images, and pull or load them again"})
	}
	link, name := l.Link, chain.Encoded()
	for suffix, sub := range map[string]string{"": "diff", "i": "init"} {
		if to, err := os.Readlink(filepath.Join(s.root, linkDir, link+suffix)); err != nil || to != filepath.Join("..", name, sub) {
			return append(found, check.Finding{Kind: "layer", Subject: chain.String(), Problem: "its short name is missing or another's", Did: "made it again",
				Mend: func(context.Context) error { return s.link(link, name) }})
		}
	}
	return found
}

// checkTemporary looks for what an earlier daemon was making or removing.
func (s *Store) checkTemporary() (found []check.Finding, err error) {
	entries, err := os.ReadDir(filepath.Join(s.root, tmpDir))
	if err != nil {
		return nil, fmt.Errorf("check layer store: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		// What was renamed here keeps its old time; it goes while check.Look looks again.
		if err != nil || !info.ModTime().Before(s.opened) {
			continue
		}
		path := filepath.Join(s.root, tmpDir, e.Name())
		found = append(found, check.Finding{Kind: "directory", Subject: path, Problem: "it was being made or removed by an earlier daemon",
			Did: "removed it", Mend: func(context.Context) error { return os.RemoveAll(path) }})
	}
	return found, nil
}
