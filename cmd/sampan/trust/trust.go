// Package trust has the commands about signatures of images: trust key, signer, sign, revoke and inspect, in
// the words of docker's, and what pull, push and run do with DOCKER_CONTENT_TRUST=1.
//
// Keys and lists of signers are this user's, in files below the configuration directory (store.go, signers.go);
// signatures are beside the image in its registry, which the daemon speaks to. A private key is used here and
// nowhere else: what the daemon gets is signed already (sign.go). content.go verifies before a pull.
package trust

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/trust"
)

// Group returns `sampan trust`.
func Group(c *cli.CLI) *cobra.Command {
	return cli.Group("trust", "Manage trust on container images",
		cli.Group("key", "Manage keys for signing images", newKeyGenerate(c), newKeyLoad(c)),
		cli.Group("signer", "Manage entities who can sign images", newSignerAdd(c), newSignerRemove(c)),
		newInspect(c), newRevoke(c), newSign(c))
}

// checkName checks the name of a key or a signer; kind is which.
func checkName(kind, name string) error {
	odd := func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_') }
	if name == "" || name[0] == '-' || name[0] == '_' || len(name) > 200 || strings.ContainsFunc(name, odd) {
		return fault.New(fault.Invalid, `%s name "%s" must start with lowercase alphanumeric characters and can include "-" or "_" after the first character`, kind, name)
	}
	return nil
}

// repositoryOf reads the name of a repository, without tag and digest.
func repositoryOf(name string) (string, error) {
	r, err := trust.ParseReference(name)
	if err != nil {
		return "", err
	}
	if r.Tag != "" || r.Digest != "" {
		return "", &fault.Field{Field: "repository", Given: name, Expected: "a name without tag and digest, such as registry.example.com/app"}
	}
	return r.Repository, nil
}
