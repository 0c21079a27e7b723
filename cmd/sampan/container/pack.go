package container

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// packer writes local files as an archive.
type packer struct {
	w     *tar.Writer
	named map[inode]string // the entry of a file that has further names
}

// inode is a file, whatever its names.
type inode struct{ device, number uint64 }

// pack writes source as an archive in which it has the name; "." is its contents alone.
func pack(out io.Writer, source, name string) error {
	p := packer{w: tar.NewWriter(out), named: map[inode]string{}}
	err := filepath.WalkDir(source, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		return p.entry(file, path.Join(name, filepath.ToSlash(rel)), d)
	})
	if err != nil {
		return err
	}
	return p.w.Close()
}

func (p *packer) entry(file, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil // tar has no sockets
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	if h.Name = name; info.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", "" // the client's names mean nothing there
	if first := p.first(info, name); first != "" {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	}
	if err := p.w.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(p.w, f, h.Size)
	return err
}

// first is the entry of which this one is another name, a hard link, or "" for the first that is seen.
func (p *packer) first(info fs.FileInfo, name string) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.IsDir() || stat.Nlink < 2 {
		return ""
	}
	id := inode{stat.Dev, stat.Ino}
	first, seen := p.named[id]
	if !seen {
		p.named[id] = name
	}
	return first
}
