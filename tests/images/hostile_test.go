package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// stored is what a daemon has of images, by its own words and by its files.
func (l *lab) stored() []string {
	l.t.Helper()
	list := strings.Split(l.ours("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}} {{.Digest}} {{.Size}}"), "\n")
	root := l.ours("info", "--format", "{{.DockerRootDir}}")
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || strings.HasSuffix(path, ".db") {
			return err
		}
		info, err := e.Info()
		if err == nil && !e.IsDir() {
			list = append(list, fmt.Sprint(path, " ", info.Mode(), " ", info.Size()))
		} else if err == nil {
			list = append(list, path)
		}
		return err
	})
	l.check(err)
	slices.Sort(list)
	return list
}

// tarOf is an archive of headers, each with a body.
func tarOf(t *testing.T, files ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h, body := files[i].(tar.Header), files[i+1].(string)
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		h.Mode, h.Size = 0o755, int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// docker is an image as `docker save` writes it, of a layer and the text of a configuration.
func dockerImage(t *testing.T, name string, layer []byte, config string) []byte {
	t.Helper()
	config = `{"os":"linux",` + config + `"rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(layer).String() + `"]}}`
	return tarOf(t, tar.Header{Name: "c"}, config, tar.Header{Name: "l"}, string(layer), tar.Header{Name: "manifest.json"}, `[{"Config":"c","Layers":["l"],"RepoTags":["`+name+`"]}]`)
}

// Whatever comes from a registry, an archive or a root filesystem is refused in one line, and the daemon is as before.
func TestHostileInput(t *testing.T) {
	l := newLab(t)
	l.check(l.Busybox())
	escape := tarOf(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, "", tar.Header{Name: "l/evil"}, "evil")
	climb := tarOf(t, tar.Header{Name: "../../../../evil"}, "evil")
	white := tarOf(t, tar.Header{Name: "x", Typeflag: tar.TypeChar}, "")
	before := l.stored()
	refuse := func(name string, bring func() (string, error), words string) {
		t.Run(name, func(t *testing.T) {
			out, err := bring()
			last := out[strings.LastIndexByte(out, '\n')+1:]
			if err == nil || !strings.Contains(last, words) || strings.Contains(last, "\x1b") || len(last) > 2048 {
				t.Errorf("%v: %.500q: expected a last line with %q", err, out, words)
			}
			if diff := cmp.Diff(before, l.stored()); diff != "" {
				t.Errorf("the daemon has changed: %s", diff)
			}
			if out, err := l.sampan("system", "check", "--verify"); err != nil {
				t.Errorf("check: %v: %s", err, out)
			}
		})
	}
	file := func(data []byte) string {
		path := filepath.Join(l.dir, "evil.tar")
		l.check(os.WriteFile(path, data, 0o600))
		return path
	}
	for name, layer := range map[string][]byte{"link": escape, "climbs": climb, "whiteout": white} {
		words := map[string]string{"link": "leads out", "climbs": `".."`, "whiteout": "whiteout"}[name]
		refuse("load "+name, func() (string, error) { return l.sampan("load", "-i", file(dockerImage(t, "evil:1", layer, ""))) }, words)
		refuse("import "+name, func() (string, error) { return l.sampan("import", file(layer), "evil:1") }, words)
		refuse("pull "+name, func() (string, error) { return l.sampan("pull", evilRegistry(t, layer, nil)+"/evil:1") }, words)
	}
	good := tarOf(t, tar.Header{Name: "good"}, "good")
	refuse("pull of another content", func() (string, error) { return l.sampan("pull", evilRegistry(t, good, climb)+"/evil:1") }, "sha256:")
	refuse("load with a name of escapes", func() (string, error) { return l.sampan("load", "-i", file(dockerImage(t, `x\u001b[2J:1`, good, ""))) }, "reference")
	refuse("load of a link out", func() (string, error) {
		return l.sampan("load", "-i", file(tarOf(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../../../etc/passwd"}, "", tar.Header{Name: "manifest.json"}, `[{"Config":"l","Layers":[]}]`)))
	}, "no file")
	if _, err := os.Lstat("/evil"); err == nil {
		t.Error("there is /evil")
	}
}

// evilRegistry has an image of one layer, and sends other content for it unless that is nil.
func evilRegistry(t *testing.T, layer, instead []byte) string {
	t.Helper()
	config := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["` + digest.FromBytes(layer).String() + `"]}}`
	kind := "application/vnd.oci.image.manifest.v1+json"
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		kind, digest.FromString(config), len(config), digest.FromBytes(layer), len(layer))
	if instead == nil {
		instead = layer
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, manifest)
		case strings.HasSuffix(r.URL.Path, digest.FromString(config).String()):
			_, _ = io.WriteString(w, config)
		case strings.Contains(r.URL.Path, "/blobs/"):
			_, _ = w.Write(instead)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// A configuration may be anything: a container of it is refused in one line, or runs, and leaves nothing.
func TestHostileConfigurations(t *testing.T) {
	l := newLab(t)
	layer := busybox(t)
	for name, tt := range map[string]struct {
		config string
		words  string // "": it may run
	}{
		"volume that is the root":   {`"Volumes":{"/":{}}`, "/"},
		"volume above the root":     {`"Volumes":{"..":{}}`, ".."},
		"volume that climbs":        {`"Volumes":{"/a/../../../../etc":{}}`, ""},
		"volume without a name":     {`"Volumes":{"":{}}`, ""},
		"volume on proc":            {`"Volumes":{"/proc":{}}`, ""},
		"volume of a megabyte":      {`"Volumes":{"/` + strings.Repeat("v", 1<<20) + `":{}}`, "v"},
		"port that is none":         {`"ExposedPorts":{"x/y":{}}`, ""},
		"port above all":            {`"ExposedPorts":{"99999999/tcp":{}}`, ""},
		"user that is a command":    {`"User":"$(id):;rm -rf /"`, "user"},
		"user with lines":           {`"User":"root\nroot:x"`, "user"},
		"user below zero":           {`"User":"-1:-1"`, "in range"},
		"user beyond 32 bits":       {`"User":"99999999999999999999"`, "in range"},
		"directory that climbs":     {`"WorkingDir":"../../../../../etc"`, ""},
		"directory of lines":        {`"WorkingDir":"/a\nb"`, ""},
		"environment without names": {`"Env":["=x","","A","=","A=b"]`, ""},
		"environment of megabytes":  {`"Env":["A=` + strings.Repeat("x", 4<<20) + `"]`, "too long"},
		"environment with zeros":    {`"Env":["A=b\u0000c"]`, ""},
		"entrypoint of nothing":     {`"Entrypoint":[""]`, ""},
		"entrypoint that is text":   {`"Entrypoint":"/bin/true; /bin/false"`, ""},
		"entrypoint that is number": {`"Entrypoint":7`, "image configuration"},
		"command with zeros":        {`"Cmd":["true","a\u0000b"]`, ""},
		"signal that is none":       {`"StopSignal":"SIGWHAT"`, ""},
		"patience below zero":       {`"StopTimeout":-5`, ""},
		"health check below zero":   {`"Healthcheck":{"Test":["CMD","true"],"Interval":-1,"Timeout":-1,"Retries":-1}`, ""},
		"label with escapes":        {`"Labels":{"a\u001b[2J":"\u001b]0;x\u0007"}`, ""},
		"null everywhere":           {`"Env":null,"Cmd":null,"Volumes":null,"ExposedPorts":null,"Labels":null,"Healthcheck":null`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			config := tt.config
			if !strings.Contains(config, `"Cmd"`) && !strings.Contains(config, `"Entrypoint"`) {
				config += `,"Cmd":["true"]`
			}
			path := filepath.Join(l.dir, "evil.tar")
			l.check(os.WriteFile(path, dockerImage(t, "evil:1", layer, `"config":{`+config+`},`), 0o600))
			out, err := l.sampan("load", "-i", path)
			if err == nil {
				out, err = l.sampan("run", "--rm", "--network", "none", "--log-driver", "none", "evil:1")
			}
			if tt.words != "" && (err == nil || !strings.Contains(out, tt.words)) || strings.Count(out, "\n") > 1 || strings.Contains(out, "\x1b") || len(out) > 4500 {
				t.Errorf("%v: %.500q: expected an error with %q", err, out, tt.words)
			}
			for _, args := range [][]string{{"images", "--format", "{{json .}}"}, {"system", "df", "-v"}} {
				if out, err := l.sampan(args...); err != nil || strings.Contains(out, "\x1b") {
					t.Errorf("%v: %v: %q", args, err, out)
				}
			}
			if left := l.ours("ps", "-aq"); left != "" {
				t.Errorf("left the container %s", left)
				_, _ = l.sampan("rm", "-f", left)
			}
			if left := l.ours("volume", "ls", "-q"); left != "" {
				t.Errorf("left the volume %s", left)
			}
			if _, err := l.sampan("rmi", "-f", "evil:1"); err != nil && !strings.Contains(err.Error(), "No such image") {
				t.Error(err)
			}
			if out, err := l.sampan("system", "check"); err != nil {
				t.Errorf("check: %v: %s", err, out)
			}
		})
	}
}
