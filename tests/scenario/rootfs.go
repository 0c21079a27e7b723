package scenario

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
)

// BusyboxRootfs returns the tar of a root filesystem made from the machine's static busybox: the
// program, a link for every applet, a passwd and a group file and the usual empty directories.
var BusyboxRootfs = sync.OnceValues(func() ([]byte, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: install Debian's busybox-static", err)
	}
	body, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	write := func(h tar.Header, body []byte) {
		if err != nil {
			return
		}
		h.Size = int64(len(body))
		if err = w.WriteHeader(&h); err == nil {
			_, err = w.Write(body)
		}
	}
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var", "var/www"} {
		mode := int64(0o755)
		if dir == "tmp" {
			mode = 0o1777
		}
		write(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: mode}, nil)
	}
	write(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, body)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			write(tar.Header{Typeflag: tar.TypeSymlink, Name: path.Join("bin", applet), Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	write(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644},
		[]byte("root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/false\nguest:x:1000:1000::/home:/bin/sh\n"))
	write(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nwww:x:33:\nguest:x:1000:\nextra:x:1500:guest\n"))
	if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
})
