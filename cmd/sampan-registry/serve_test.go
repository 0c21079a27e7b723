package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sampan-project/sampan/cmd/sampan/registry"
)

func TestOptionsThatDoNotGoTogether(t *testing.T) {
	for want, o := range map[string]registry.Serve{
		"":                                    {Listen: "127.0.0.1:5000"},
		"expected both or none":               {Listen: ":1", TLSKey: "k"},
		"--tls-self-signed and --tls-cert":    {Listen: ":1", TLSKey: "k", TLSCert: "c", SelfSigned: true},
		"expected --proxy with them":          {Listen: ":1", ProxyUser: "u", ProxyPasswordFile: "f"},
		"--proxy-username and --proxy-passwo": {Listen: ":1", Proxy: "https://x", ProxyUser: "u"},
		"--proxy and --read-only":             {Listen: ":1", Proxy: "https://x", ReadOnly: true},
		`listen "5000": expected HOST:PORT`:   {Listen: "5000"},
		`gc-interval "-1s"`:                   {Listen: ":1", CollectEvery: -time.Second},
		`proxy-ttl "-1s"`:                     {Listen: ":1", ProxyTTL: -time.Second},
	} {
		err := check(&o)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v: expected %q", o, err, want)
		}
	}
}

// A certificate that clients were told to trust stays as long as it is good for what is listened on.
func TestSelfSigned(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls", "cert.pem"), filepath.Join(dir, "tls", "key.pem")
	made := func(listen string, now time.Time) string {
		t.Helper()
		if err := ensureCertificate(cert, key, listen, now); err != nil {
			t.Fatal(err)
		}
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	now := time.Now()
	first := made("127.0.0.1:5000", now)
	if made("127.0.0.1:6000", now.Add(time.Hour)) != first {
		t.Error("a good certificate was replaced")
	}
	other := made("registry.example:5000", now)
	if other == first {
		t.Error("it is not for the other name")
	}
	if made("registry.example:5000", now.Add(validity)) == other {
		t.Error("an old certificate was kept")
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", info.Mode(), err)
	}
}
