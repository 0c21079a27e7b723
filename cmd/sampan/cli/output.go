package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sampan-project/sampan/core/fault"
)

// ToFile writes an archive to the file of --output, or to standard output when none is named and it is
// not a terminal. The file takes its name when it is whole; after an error there is none.
func (c *CLI) ToFile(path string, open func() (io.ReadCloser, error)) (err error) {
	if path == "" && c.Out.IsTerminal() {
		return fault.New(fault.Invalid, "cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	if path == "" || path == "-" {
		return copyFrom(c.Out, open)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return &fault.Field{Field: "--output", Given: path, Expected: "the name of a file, and it is a directory"}
		}
		return toDevice(path, open)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			at.Path = path // and not a name that nobody gave
		}
		return fault.New(fault.Invalid, "--output: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := errors.Join(copyFrom(f, open), f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func toDevice(path string, open func() (io.ReadCloser, error)) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fault.New(fault.Invalid, "--output: %w", err)
	}
	return errors.Join(copyFrom(f, open), f.Close())
}

func copyFrom(to io.Writer, open func() (io.ReadCloser, error)) error {
	from, err := open()
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(to, from)
	return err
}
