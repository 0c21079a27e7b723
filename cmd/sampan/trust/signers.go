package trust

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
)

// signers are whose signatures this user believes, by repository: signers.json in the trust directory, which is
// written by `trust signer` and read by sign, inspect and content trust.
type signers struct {
	path string
	file signersFile
}

type signersFile struct {
	// Repositories have signers by name, and those their public keys in PEM.
	Repositories map[string]map[string][]string `json:"repositories"`
}

func readSigners(c *cli.CLI) (*signers, error) {
	s := &signers{path: filepath.Join(c.TrustDir(), "signers.json")}
	data, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(data, &s.file); err != nil {
			return nil, fault.New(fault.Invalid, "%s: %w", s.path, err)
		}
	}
	if s.file.Repositories == nil {
		s.file.Repositories = map[string]map[string][]string{}
	}
	return s, nil
}

func (s *signers) write() error {
	data, err := json.MarshalIndent(s.file, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	return writeFile(s.path, append(data, '\n'))
}

// keys returns the keys of a repository's signers, in the order of their names.
func (s *signers) keys(repository string) ([]*trust.PublicKey, error) {
	var list []*trust.PublicKey
	of := s.file.Repositories[repository]
	for _, name := range slices.Sorted(maps.Keys(of)) {
		for _, text := range of[name] {
			k, err := trust.ParsePublicKey([]byte(text))
			if err != nil {
				return nil, fault.New(fault.Invalid, "%s: signer %s of %s: %w", s.path, name, repository, err)
			}
			k.Name = name
			list = append(list, k)
		}
	}
	return list, nil
}

// rule is what this user demands of a repository's images: a signature of one of its signers.
func (s *signers) rule(repository string) (trust.Rule, error) {
	keys, err := s.keys(repository)
	return trust.Rule{Scope: "content trust", Action: trust.Signed, Keys: keys, Require: 1, Match: trust.MatchExact}, err
}

// add gives a repository a signer, or its signer more keys. A key has one owner.
func (s *signers) add(repository, name string, keys []*trust.PublicKey) error {
	have, err := s.keys(repository)
	if err != nil {
		return err
	}
	for _, k := range keys {
		i := slices.IndexFunc(have, func(h *trust.PublicKey) bool { return h.ID == k.ID })
		switch {
		case i >= 0 && have[i].Name != name:
			return fault.New(fault.Conflict, "signer %q: its key %.7s is that of signer %q", name, k.ID, have[i].Name)
		case i >= 0:
			continue
		}
		if s.file.Repositories[repository] == nil {
			s.file.Repositories[repository] = map[string][]string{}
		}
		of := s.file.Repositories[repository]
		of[name] = append(of[name], string(k.PEM()))
		have = append(have, &trust.PublicKey{Name: name, ID: k.ID})
	}
	return s.write()
}

func (s *signers) remove(repository, name string) error {
	delete(s.file.Repositories[repository], name)
	if len(s.file.Repositories[repository]) == 0 {
		delete(s.file.Repositories, repository)
	}
	return s.write()
}
