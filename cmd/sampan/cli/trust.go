package cli

import (
	"path/filepath"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/fault"
)

// ContentTrust is Docker's switch for signed images: the flag --disable-content-trust of pull, push, run and
// create and, without it, the variable SAMPAN_CONTENT_TRUST or DOCKER_CONTENT_TRUST.
type ContentTrust struct {
	given, off bool
}

// AddTrust adds the flag.
func AddTrust(f *pflag.FlagSet) *ContentTrust {
	t := &ContentTrust{}
	f.Var(t, "disable-content-trust", "Skip image verification")
	f.Lookup("disable-content-trust").NoOptDefVal = "true"
	return t
}

// Set takes the flag's value.
func (t *ContentTrust) Set(s string) (err error) {
	if t.off, err = strconv.ParseBool(s); err != nil {
		return &fault.Field{Given: s, Expected: "true or false"}
	}
	t.given = true
	return nil
}

func (t *ContentTrust) String() string { return strconv.FormatBool(t.off || !t.given) }

// Type is the word for the value in help texts.
func (t *ContentTrust) Type() string { return "bool" }

// On reports whether images are to be signed.
func (t *ContentTrust) On(c *CLI) (bool, error) {
	if t.given {
		return !t.off, nil
	}
	given := c.env("CONTENT_TRUST")
	if given == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(given)
	if err != nil {
		return false, &fault.Field{Field: "SAMPAN_CONTENT_TRUST or DOCKER_CONTENT_TRUST", Given: given, Expected: "1 or 0"}
	}
	return on, nil
}

// TrustDir is where the keys and the lists of signers are: trust in the configuration directory.
func (c *CLI) TrustDir() string { return filepath.Join(c.configDir(), "trust") }

// KeyPassphrase is the passphrase of signing keys that the environment says, under Docker's name for it, or "".
func (c *CLI) KeyPassphrase() string { return c.env("CONTENT_TRUST_REPOSITORY_PASSPHRASE") }
