package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sampan-project/sampan/core/fault"
)

// claimType is what the claim says that it is; podman and skopeo accept no other in this format.
const claimType = "cosign container image signature"

// Claim is what a signature signs: that a reference stands for a digest (containers/image,
// docs/containers-signature.5.md, "the JSON data format").
type Claim struct {
	Reference string    // as the signer wrote it: "registry.example.com/app:1.0"
	Digest    string    // of the manifest or index: "sha256:..."
	Creator   string    // the program that signed; told, and never relied upon
	Time      time.Time // of the signature, zero when it is not told
}

type claimJSON struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional claimOptional `json:"optional"`
}

type claimOptional struct {
	Creator   string `json:"creator,omitempty"`
	Timestamp int64  `json:"timestamp,omitempty"`
}

// Encode returns the bytes that are signed.
func (c Claim) Encode() ([]byte, error) {
	if err := checkDigest(c.Digest); err != nil {
		return nil, err
	}
	if _, err := ParseReference(c.Reference); err != nil {
		return nil, err
	}
	var j claimJSON
	j.Critical.Identity.Reference, j.Critical.Image.Digest, j.Critical.Type = c.Reference, c.Digest, claimType
	j.Optional.Creator = c.Creator
	if !c.Time.IsZero() {
		j.Optional.Timestamp = c.Time.Unix()
	}
	return json.Marshal(j)
}

// ParseClaim reads a claim. Its critical part has exactly the keys of the format, each once: what one
// reader overlooks and another obeys would be signed by nobody.
func ParseClaim(raw []byte) (Claim, error) {
	var c Claim
	if len(raw) > MaxClaim {
		return c, fault.New(fault.Invalid, "signed claim: %d bytes: expected at most %d", len(raw), MaxClaim)
	}
	top, err := object(raw, "", "critical", "optional")
	if err != nil {
		return c, err
	}
	critical, err := object(top["critical"], "critical", "identity", "image", "type")
	if err != nil {
		return c, err
	}
	image, err := object(critical["image"], "critical.image", "docker-manifest-digest")
	if err != nil {
		return c, err
	}
	identity, err := object(critical["identity"], "critical.identity", "docker-reference")
	if err != nil {
		return c, err
	}
	kind, err := text(critical["type"], "critical.type")
	if err != nil {
		return c, err
	}
	if kind != claimType {
		return c, &fault.Field{Field: "signed claim: critical.type", Given: kind, Expected: claimType}
	}
	if c.Digest, err = text(image["docker-manifest-digest"], "critical.image.docker-manifest-digest"); err != nil {
		return c, err
	}
	if err := checkDigest(c.Digest); err != nil {
		return c, err
	}
	if c.Reference, err = text(identity["docker-reference"], "critical.identity.docker-reference"); err != nil {
		return c, err
	}
	return c, c.optional(top["optional"])
}

// optional reads what may be there beside other things: null, or an object of any keys.
func (c *Claim) optional(raw json.RawMessage) error {
	if string(raw) == "null" {
		return nil
	}
	all, err := object(raw, "optional")
	if err != nil {
		return err
	}
	if v, ok := all["creator"]; ok {
		if c.Creator, err = text(v, "optional.creator"); err != nil {
			return err
		}
	}
	if v, ok := all["timestamp"]; ok {
		var seconds float64 // other writers' numbers may have an exponent
		if err := json.Unmarshal(v, &seconds); err != nil || seconds < 0 || seconds > 1<<40 || seconds != math.Trunc(seconds) {
			return fault.New(fault.Invalid, "signed claim: optional.timestamp: expected whole seconds since 1970")
		}
		c.Time = time.Unix(int64(seconds), 0).UTC()
	}
	return nil
}

// object reads a JSON object whose keys are exactly those given, each once; without keys, any.
func object(raw json.RawMessage, where string, keys ...string) (map[string]json.RawMessage, error) {
	broken := func(why string) error {
		return fault.New(fault.Invalid, "signed claim: %s%s", strings.TrimPrefix(where+": ", ": "), why)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, broken("expected a JSON object")
	}
	found := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, broken("expected a JSON object")
		}
		if _, twice := found[key]; twice {
			return nil, broken("has a key twice: " + quote(key))
		}
		if len(keys) > 0 && !slices.Contains(keys, key) {
			return nil, broken("has an unknown key " + quote(key) + ": expected " + strings.Join(keys, ", "))
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, broken("expected a JSON object")
		}
		found[key] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, broken("expected a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, broken("expected nothing behind the object")
	}
	for _, key := range keys {
		if _, ok := found[key]; !ok {
			return nil, broken("has no " + key)
		}
	}
	return found, nil
}

func text(raw json.RawMessage, where string) (string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil || s == nil {
		return "", fault.New(fault.Invalid, "signed claim: %s: expected a text", where)
	}
	return *s, nil
}

// quote makes a foreign word fit for a message.
func quote(s string) string {
	if len(s) > 100 {
		s = strings.ToValidUTF8(s[:100], "") + "..."
	}
	b, _ := json.Marshal(s) //nolint:errcheck,errchkjson // a text always can be
	return string(b)
}

func checkDigest(d string) error {
	hex, ok := strings.CutPrefix(d, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return &fault.Field{Field: "digest of a signature", Given: quote(d), Expected: "sha256: and 64 hexadecimal digits"}
	}
	return nil
}
