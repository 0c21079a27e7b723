package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// Config is the client's configuration file, config.json, in Docker's form.
type Config struct {
	Auths             map[string]wire.AuthConfig `json:"auths,omitempty"`
	CredentialsStore  string                     `json:"credsStore,omitempty"`
	CredentialHelpers map[string]string          `json:"credHelpers,omitempty"`
	HTTPHeaders       map[string]string          `json:"HttpHeaders,omitempty"`
	DetachKeys        string                     `json:"detachKeys,omitempty"`
	PsFormat          string                     `json:"psFormat,omitempty"`
	ImagesFormat      string                     `json:"imagesFormat,omitempty"`
	NetworksFormat    string                     `json:"networksFormat,omitempty"`
	VolumesFormat     string                     `json:"volumesFormat,omitempty"`
	StatsFormat       string                     `json:"statsFormat,omitempty"`
	NodesFormat       string                     `json:"nodesFormat,omitempty"`
	ServicesFormat    string                     `json:"servicesFormat,omitempty"`
	ServiceFormat     string                     `json:"serviceInspectFormat,omitempty"`
	TasksFormat       string                     `json:"tasksFormat,omitempty"`
	CurrentContext    string                     `json:"currentContext,omitempty"`
	Proxies           map[string]Proxy           `json:"proxies,omitempty"` // by an engine's address, or "default"
}

// credentialKeys are the keys of config.json that say where logins are. They belong together.
var credentialKeys = []string{"auths", "credsStore", "credHelpers"}

// Config reads config.json of the configuration directory and, for keys that it has not, Docker's: logins
// and keys made with the docker command work here. Docker's current context does not count, because
// it names a Docker daemon.
func (c *CLI) Config() (*Config, error) {
	if c.config != nil {
		return c.config, nil
	}
	all, err := readConfig(filepath.Join(c.configDir(), "config.json"))
	if err != nil {
		return nil, err
	}
	if c.dockerDir() != c.configDir() {
		docker, err := readConfig(filepath.Join(c.dockerDir(), "config.json"))
		if err != nil && len(all) == 0 {
			return nil, err
		}
		delete(docker, "currentContext")
		if slices.ContainsFunc(credentialKeys, func(key string) bool { return all[key] != nil }) {
			for _, key := range credentialKeys {
				delete(docker, key)
			}
		}
		for key, value := range docker {
			if all[key] == nil {
				all[key] = value
			}
		}
	}
	data, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	var config Config
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", filepath.Join(c.configDir(), "config.json"), err)
	}
	c.config = &config
	return c.config, nil
}

// readConfig reads what there is: nothing, if the file is missing or somebody else's.
func readConfig(path string) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return all, nil
	case err != nil:
		return nil, err
	case len(bytes.TrimSpace(data)) == 0:
		return all, nil
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	if all == nil { // the file says null
		all = map[string]json.RawMessage{}
	}
	return all, nil
}

// UseContext makes a context the current one; "" is the default.
func (c *CLI) UseContext(name string) error {
	_, err := c.editConfig(func(all map[string]json.RawMessage) (err error) {
		if delete(all, "currentContext"); name != "" {
			all["currentContext"], err = json.Marshal(name)
		}
		return err
	})
	return err
}

// editConfig changes our own config.json, whose path it returns. What we do not know of the file stays
// in it.
func (c *CLI) editConfig(edit func(all map[string]json.RawMessage) error) (path string, err error) {
	path = filepath.Join(c.configDir(), "config.json")
	all := map[string]json.RawMessage{}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := json.Unmarshal(data, &all); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := edit(all); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	c.config = nil // it is read anew
	return path, writeConfig(path, all)
}

// configDir is --config, SAMPAN_CONFIG, DOCKER_CONFIG or ~/.sampan.
func (c *CLI) configDir() string {
	if c.Globals.ConfigDir != "" {
		return c.Globals.ConfigDir
	}
	if dir := c.env("CONFIG"); dir != "" {
		return dir
	}
	return filepath.Join(c.home(), ".sampan")
}

func (c *CLI) dockerDir() string {
	if dir := c.Env("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	return filepath.Join(c.home(), ".docker")
}

func (c *CLI) home() string {
	if home := c.Env("HOME"); home != "" {
		return home
	}
	return "/root"
}

// DetachKeys returns the key sequence that leaves a container: the flag's, the file's, or "" for
// the default.
func (c *CLI) DetachKeys(flag string) string {
	if flag != "" {
		return flag
	}
	if config, err := c.Config(); err == nil {
		return config.DetachKeys
	}
	return ""
}

// dockerHub is the key of Docker Hub's login, which is older than its API.
const dockerHub = "https://index.docker.io/v1/"

// registryOf returns the registry's part of an image reference as a login's key: the first
// component, if it has a dot or a colon or is localhost (distribution's rule).
func registryOf(ref string) string {
	host, _, ok := strings.Cut(ref, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return dockerHub
	}
	if host == "docker.io" || host == "index.docker.io" {
		return dockerHub
	}
	return host
}

// Registry is the key of a registry's login, by the name that the user gives: "" is Docker Hub.
func Registry(server string) string {
	if server = loginHost(server); server == "" || server == "docker.io" || server == "index.docker.io" || server == "registry-1.docker.io" {
		return dockerHub
	}
	return server
}

// Auth returns the login for the registry of an image reference, or nil.
func (c *CLI) Auth(ref string) (*wire.AuthConfig, error) { return c.LoginOf(registryOf(ref)) }

// LoginOf returns the login for a registry, or nil.
func (c *CLI) LoginOf(registry string) (*wire.AuthConfig, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	helper := config.helper(registry)
	if helper != "" {
		return askHelper(helper, registry)
	}
	for key, auth := range config.Auths {
		if key != registry && loginHost(key) != registry {
			continue
		}
		if auth.ServerAddress = registry; auth.Auth != "" {
			user, password, err := splitAuth(auth.Auth)
			if err != nil {
				return nil, fault.New(fault.Invalid, "auths[%q].auth: expected base64 of user:password", key)
			}
			auth.Username, auth.Password, auth.Auth = user, password, ""
		}
		return &auth, nil
	}
	return nil, nil
}

// loginHost reduces a login's key, which old clients wrote as a URL, to the registry's host.
func loginHost(key string) string {
	if key == dockerHub {
		return key
	}
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	host, _, _ := strings.Cut(key, "/")
	return host
}

func splitAuth(encoded string) (user, password string, err error) {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return "", "", err
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(data), "\x00"), ":")
	if !ok {
		return "", "", errors.New("no colon")
	}
	return user, password, nil
}

// askHelper asks a credential helper (docker/docker-credential-helpers): the registry on its standard
// input, JSON on its standard output.
func askHelper(helper, registry string) (*wire.AuthConfig, error) {
	if err := checkHelper(helper); err != nil {
		return nil, err
	}
	cmd := exec.Command("docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(registry)
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(string(out), "credentials not found") {
			return nil, nil
		}
		return nil, fmt.Errorf("ask docker-credential-%s for the login of %s: %w", helper, registry, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("decode the answer of docker-credential-%s: %w", helper, err)
	}
	auth := &wire.AuthConfig{ServerAddress: registry, Username: answer.Username, Password: answer.Secret}
	if answer.Username == "<token>" {
		auth.Username, auth.Password, auth.IdentityToken = "", "", answer.Secret
	}
	return auth, nil
}

func checkHelper(helper string) error {
	if strings.ContainsRune(helper, '/') {
		return &fault.Field{Field: "credential helper", Given: helper, Expected: "a name such as pass, of a program docker-credential-pass"}
	}
	return nil
}
