package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/cluster"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// openCluster makes the room of this daemon's part in a swarm. It takes the part up when the API is there.
func (e *engine) openCluster(context.Context) error {
	e.cluster = cluster.New(cluster.Options{
		Root: e.o.DataRoot, Logger: e.log, Containers: e.containers, Images: e.images, Events: e.events, Info: system{e}.Info,
		Networks: func(ctx context.Context) ([]wire.NetworkInspect, error) { return e.networks.List(ctx, nil) },
		Digest:   e.digest, AdvertiseAddr: e.o.SwarmAddr, PreferLocal: os.Getenv("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE") == "1",
	})
	e.later(e.cluster.Close)
	return nil
}

// digest is the name of an image with the digest that its registry has for it.
func (e *engine) digest(ctx context.Context, image, encoded string) (string, error) {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return "", fault.New(fault.Invalid, "image %q: %w", image, err)
	}
	if _, pinned := named.(reference.Digested); pinned {
		return image, nil
	}
	auth, err := decodeAuth(encoded)
	if err != nil {
		return "", err
	}
	found, err := e.images.Distribution(ctx, image, auth)
	if err != nil {
		return "", err
	}
	with, err := reference.WithDigest(named, digest.Digest(found.Descriptor.Digest))
	if err != nil {
		return "", err
	}
	return reference.FamiliarString(with), nil
}

// decodeAuth reads X-Registry-Auth: JSON in base64url, with or without padding.
func decodeAuth(encoded string) (*wire.AuthConfig, error) {
	if encoded == "" {
		return nil, nil //nolint:nilnil // no credentials are no error
	}
	text, err := base64.URLEncoding.DecodeString(encoded)
	if err != nil {
		text, err = base64.RawURLEncoding.DecodeString(encoded)
	}
	var auth wire.AuthConfig
	if err == nil {
		err = json.Unmarshal(text, &auth)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "X-Registry-Auth: %w", err)
	}
	return &auth, nil
}
