package trust

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
)

// store is the directory of private keys: each has two files, ID.key, in cosign's format, and ID.pub. The
// public one has the key's name, and spares the passphrase of keys that are not wanted.
type store struct {
	c   *cli.CLI
	dir string
}

func openStore(c *cli.CLI) store { return store{c, filepath.Join(c.TrustDir(), "private")} }

// storedKey is a private key that is there.
type storedKey struct {
	name   string
	public *trust.PublicKey
	path   string
}

// list returns the keys in the order of their IDs.
func (s store) list() ([]storedKey, error) {
	files, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []storedKey
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), ".pub")
		if !ok {
			continue
		}
		public, err := trust.ReadPublicKey(filepath.Join(s.dir, f.Name()))
		if err != nil {
			return nil, err
		}
		name, err := os.ReadFile(filepath.Join(s.dir, id+".name"))
		if err != nil {
			return nil, err
		}
		if public.Name = strings.TrimSpace(string(name)); public.ID != id {
			return nil, fault.New(fault.Invalid, "%s: its key is %s: the file was changed", filepath.Join(s.dir, f.Name()), public.ID)
		}
		keys = append(keys, storedKey{public.Name, public, filepath.Join(s.dir, id+".key")})
	}
	return keys, nil
}

// add keeps a private key under a passphrase that is asked for; the public file comes last, and with it the
// key is there.
func (s store) add(name string, key *trust.PrivateKey) error {
	passphrase, err := s.newPassphrase(name, key.Public())
	if err != nil {
		return err
	}
	sealed, err := key.Seal(passphrase)
	if err != nil {
		return err
	}
	return s.put(name, key.Public(), sealed)
}

func (s store) put(name string, public *trust.PublicKey, sealed []byte) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(s.dir, public.ID)
	for _, f := range []struct {
		suffix string
		data   []byte
	}{{".key", sealed}, {".name", []byte(name + "\n")}, {".pub", public.PEM()}} {
		if err := writeFile(path+f.suffix, f.data); err != nil {
			return err
		}
	}
	return nil
}

// writeFile replaces a file in one step; others cannot read it.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// attempts is how often a person may mistype a passphrase.
const attempts = 3

// open reads a private key.
func (s store) open(k storedKey) (*trust.PrivateKey, error) {
	data, err := os.ReadFile(k.path)
	if err != nil {
		return nil, err
	}
	return s.unseal(k.name, k.public.ID, data)
}

// unseal asks for the passphrase of a sealed key, and again if it was wrong and a person typed it.
func (s store) unseal(name, id string, data []byte) (*trust.PrivateKey, error) {
	given := s.c.KeyPassphrase()
	for i := 1; ; i++ {
		passphrase := []byte(given)
		if given == "" {
			var err error
			if passphrase, err = s.ask(fmt.Sprintf("Enter passphrase for %s key with ID %.7s: ", name, id)); err != nil {
				return nil, err
			}
		}
		key, err := trust.ParsePrivateKey(data, passphrase)
		if err == nil && id != "" && key.Public().ID != id {
			return nil, fault.New(fault.Invalid, "private key %s: the file has another key, %s", id, key.Public().ID)
		}
		if err == nil || !fault.Is(err, fault.Unauthorized) || given != "" || i == attempts {
			return key, err
		}
		fmt.Fprintln(s.c.Err, "Passphrase incorrect. Please retry.")
	}
}

// shortest is how many characters a passphrase has that a person invents.
const shortest = 8

func (s store) newPassphrase(name string, public *trust.PublicKey) ([]byte, error) {
	if given := s.c.KeyPassphrase(); given != "" {
		return []byte(given), nil
	}
	for range attempts {
		first, err := s.ask(fmt.Sprintf("Enter passphrase for new %s key with ID %.7s: ", name, public.ID))
		if err != nil {
			return nil, err
		}
		if len(first) < shortest {
			fmt.Fprintln(s.c.Err, "Passphrase is too short. Please use a password manager to generate and store a good random passphrase.")
			continue
		}
		again, err := s.ask(fmt.Sprintf("Repeat passphrase for new %s key with ID %.7s: ", name, public.ID))
		if err != nil {
			return nil, err
		}
		if slices.Equal(first, again) {
			return first, nil
		}
		fmt.Fprintln(s.c.Err, "Passphrases do not match. Please retry.")
	}
	return nil, fault.New(fault.Invalid, "no passphrase for the key: %d attempts", attempts)
}

// ask asks for a secret at the terminal, byte by byte: what follows the line is for who asks next.
func (s store) ask(question string) ([]byte, error) {
	if !s.c.In.IsTerminal() {
		return nil, fault.New(fault.Invalid, "please either use environment variables (SAMPAN_CONTENT_TRUST_REPOSITORY_PASSPHRASE or Docker's) or STDIN with a terminal to provide key passphrases")
	}
	show, err := s.c.In.Hide() // before the question: some answer at once
	if err != nil {
		return nil, err
	}
	fmt.Fprint(s.c.Out, question)
	defer fmt.Fprintln(s.c.Out)
	defer show()
	line, err := bufio.NewReaderSize(oneByte{s.c.In}, 16).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	return []byte(strings.TrimRight(string(line), "\r\n")), nil
}

// oneByte reads no more than is asked for.
type oneByte struct{ in *cli.In }

func (o oneByte) Read(p []byte) (int, error) { return o.in.Read(p[:min(1, len(p))]) }
