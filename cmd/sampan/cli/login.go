package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sampan-project/sampan/core/wire"
)

// helper is the credential helper that keeps the login of a registry, or "".
func (c *Config) helper(registry string) string {
	if h, ok := c.CredentialHelpers[registry]; ok {
		return h
	}
	return c.CredentialsStore
}

// SaveLogin keeps the login of a registry, or forgets it when auth is nil: with the credential helper,
// if one is configured, else in the configuration file, whose path is returned then.
func (c *CLI) SaveLogin(registry string, auth *wire.AuthConfig) (path string, err error) {
	config, err := c.Config()
	if err != nil {
		return "", err
	}
	if helper := config.helper(registry); helper != "" {
		return "", tellHelper(helper, registry, auth)
	}
	return c.editConfig(func(all map[string]json.RawMessage) error {
		auths := map[string]wire.AuthConfig{}
		if raw, ok := all["auths"]; ok {
			if err := json.Unmarshal(raw, &auths); err != nil {
				return fmt.Errorf("auths: %w", err)
			}
		}
		for key := range auths {
			if key == registry || loginHost(key) == registry {
				delete(auths, key)
			}
		}
		if auth != nil {
			auths[registry] = wire.AuthConfig{IdentityToken: auth.IdentityToken, Auth: base64.StdEncoding.EncodeToString([]byte(auth.Username + ":" + auth.Password))}
		}
		var err error
		all["auths"], err = json.Marshal(auths)
		return err
	})
}

// writeConfig replaces the file in one step.
func writeConfig(path string, content any) error {
	data, err := json.MarshalIndent(content, "", "\t")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".config.json.*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func tellHelper(helper, registry string, auth *wire.AuthConfig) error {
	if err := checkHelper(helper); err != nil {
		return err
	}
	verb, input := "erase", []byte(registry)
	if auth != nil {
		entry := struct{ ServerURL, Username, Secret string }{registry, auth.Username, auth.Password}
		if auth.IdentityToken != "" {
			entry.Username, entry.Secret = "<token>", auth.IdentityToken
		}
		var err error
		if input, err = json.Marshal(entry); err != nil {
			return err
		}
		verb = "store"
	}
	cmd := exec.Command("docker-credential-"+helper, verb)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if out = bytes.TrimSpace(out); err != nil && len(out) > 0 {
		err = fmt.Errorf("%w: %s", err, out)
	}
	if err != nil {
		return fmt.Errorf("docker-credential-%s %s: %w", helper, verb, err)
	}
	return nil
}
