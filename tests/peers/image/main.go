// Image copies an image with containers/image, the library that podman, skopeo and CRI-O pull, push and verify
// with: Debian builds those without support for cosign's signatures, so scenarios build this in their place. It is a
// module of its own, because nothing of it belongs into the engine.
//
//	image [-policy FILE] [-registries.d DIR] [-sign KEY -passphrase TEXT] [-all] SOURCE DESTINATION
//
// Names are as skopeo's: docker://127.0.0.1:5000/app:1, dir:PATH. Without -policy every image is accepted.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	policyFile := flag.String("policy", "", "policy.json")
	registries := flag.String("registries.d", "", "directory of registries.d(5)")
	key := flag.String("sign", "", "private key in cosign's format")
	passphrase := flag.String("passphrase", "", "the key's passphrase")
	all := flag.Bool("all", false, "copy every platform of an index")
	flag.Parse()
	if flag.NArg() != 2 {
		return fmt.Errorf("%d arguments: expected SOURCE and DESTINATION", flag.NArg())
	}
	policy := &signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}}
	if *policyFile != "" {
		var err error
		if policy, err = signature.NewPolicyFromFile(*policyFile); err != nil {
			return err
		}
	}
	decide, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer decide.Destroy() //nolint:errcheck // the process ends
	from, err := parse(flag.Arg(0))
	if err != nil {
		return err
	}
	to, err := parse(flag.Arg(1))
	if err != nil {
		return err
	}
	system := types.SystemContext{DockerInsecureSkipTLSVerify: types.OptionalBoolTrue, RegistriesDirPath: *registries}
	options := copy.Options{
		SourceCtx: &system, DestinationCtx: &system,
		SignBySigstorePrivateKeyFile: *key, SignSigstorePrivateKeyPassphrase: []byte(*passphrase),
	}
	if *all {
		options.ImageListSelection = copy.CopyAllImages
	}
	_, err = copy.Image(ctx, decide, to, from, &options)
	return err
}

func parse(name string) (types.ImageReference, error) {
	if path, ok := strings.CutPrefix(name, "dir:"); ok {
		return directory.NewReference(path)
	}
	rest, ok := strings.CutPrefix(name, "docker:")
	if !ok {
		return nil, fmt.Errorf("image %q: expected docker://NAME or dir:PATH", name)
	}
	return docker.ParseReference(rest)
}
