package store

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
)

// maxArchive bounds an archive that is imported, and what comes out of it.
const maxArchive = 10 << 20

// Export writes a context as a tar file with meta.json and tls/ENDPOINT/FILE.
func Export(w io.Writer, c *Context, tls Material) error {
	meta, err := json.Marshal(c.whole())
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	file := func(name string, data []byte, mode int64) error {
		err := out.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))})
		if err == nil {
			_, err = out.Write(data)
		}
		return err
	}
	dir := func(name string) error {
		return out.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o700})
	}
	if err := errors.Join(file(metaFile, meta, 0o644), dir("tls")); err != nil {
		return err
	}
	for _, endpoint := range slices.Sorted(maps.Keys(tls)) {
		if err := dir("tls/" + endpoint); err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(tls[endpoint])) {
			if err := file("tls/"+endpoint+"/"+name, tls[endpoint][name], 0o600); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// Import reads what Export wrote, here or with docker, or a zip file of the same names. The context gets
// the name; nothing is written.
func Import(r io.Reader, name string) (*Context, Material, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxArchive+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxArchive {
		return nil, nil, fault.New(fault.Invalid, "the archive of a context: expected at most %d bytes", maxArchive)
	}
	in := imported{tls: Material{}}
	if bytes.HasPrefix(data, []byte("PK\x03\x04")) {
		err = in.zip(data)
	} else {
		err = in.tar(data)
	}
	switch {
	case err != nil:
		return nil, nil, err
	case in.context == nil:
		return nil, nil, fault.New(fault.Invalid, "invalid context: no metadata found")
	}
	in.context.Name = name
	return in.context, in.tls, nil
}

type imported struct {
	context *Context
	tls     Material
	size    int
}

func (in *imported) tar(data []byte) error {
	archive := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := archive.Next()
		switch {
		// Docker writes no padding after the last file, and no end.
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && in.context != nil:
			return nil
		case err != nil:
			return fault.New(fault.Invalid, "the archive of a context: expected a tar or zip file: %w", err)
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg:
			return fault.New(fault.Invalid, "%s: expected a file or a directory", h.Name)
		}
		if err := in.add(h.Name, archive); err != nil {
			return err
		}
	}
}

func (in *imported) zip(data []byte) error {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fault.New(fault.Invalid, "the archive of a context: %w", err)
	}
	for _, f := range archive.File {
		if f.FileInfo().IsDir() {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return fault.New(fault.Invalid, "%s: %w", f.Name, err)
		}
		err = in.add(f.Name, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// add takes a file of the archive: its name says what it is.
func (in *imported) add(name string, r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return fault.New(fault.Invalid, "%s: %w", name, err)
	}
	if in.size += len(data); len(data) > maxFile || in.size > maxArchive {
		return fault.New(fault.Invalid, "%s: expected at most %d bytes", name, maxFile)
	}
	if name == metaFile {
		in.context, err = decodeMeta(data)
		return err
	}
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != "tls" || !isName(parts[1]) || !isName(parts[2]) {
		return fault.New(fault.Invalid, "unexpected context file: %q: expected meta.json or tls/ENDPOINT/FILE", name)
	}
	if in.tls[parts[1]] == nil {
		in.tls[parts[1]] = map[string][]byte{}
	}
	in.tls[parts[1]][parts[2]] = data
	return nil
}

func isName(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "\\\x00")
}
