package swarm

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/core/client"
	"github.com/sampan-project/sampan/core/wire"
)

func TestNodeAddress(t *testing.T) {
	for given, want := range map[string]string{
		"10.0.0.1": "10.0.0.1:2377", "10.0.0.1:99": "10.0.0.1:99", ":99": "0.0.0.0:99", "eth0": "eth0:2377", "eth0:5": "eth0:5", "[::1]": "[::1]:2377",
		"[::1]:5": "[::1]:5", "tcp://10.0.0.1": "10.0.0.1:2377", "10.0.0.1:0": "10.0.0.1:0", "": "0.0.0.0:2377",
		"::1": "[::1]:2377", "tcp://fd00::2": "[fd00::2]:2377", "::1:": "", "a:b": "", "a:70000": "", "a b": "", "a/b": "", "a:-1": "",
	} {
		var a nodeAddress
		if err := a.Set(given); a.value != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v, expected %q", given, a.value, err, want)
		}
	}
}

func TestExternalCA(t *testing.T) {
	dir := t.TempDir()
	const cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	pem, text := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "text")
	for path, content := range map[string]string{pem: cert, text: "AAAA"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var e externalCAs
	for _, s := range []string{"protocol=CFSSL,url=https://a.example,x=y", "url=https://b.example,protocol=cfssl,cacert=" + pem} {
		if err := e.Set(s); err != nil {
			t.Error(err)
		}
	}
	want := []externalCA{
		{Protocol: "cfssl", URL: "https://a.example", Options: map[string]string{"x": "y"}},
		{Protocol: "cfssl", URL: "https://b.example", Options: map[string]string{}, CACert: cert},
	}
	if diff := cmp.Diff(want, e.values); diff != "" {
		t.Error(diff)
	}
	for _, s := range []string{"", "protocol=cfssl", "url=x", "protocol=x,url=y", "protocol", "protocol=cfssl,url=x,cacert=" + text, "protocol=cfssl,url=x,cacert=" + dir + "/nothing"} {
		err := e.Set(s)
		if err == nil || strings.ContainsRune(err.Error(), '\n') {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestFlags: only what is given is changed.
func TestFlags(t *testing.T) {
	c := &cli.CLI{Out: cli.Discard()}
	cmd := newUpdate(c)
	if err := cmd.ParseFlags([]string{"--task-history-limit", "0", "--autolock=false"}); err != nil {
		t.Fatal(err)
	}
	five := int64(5)
	before := wire.SwarmSpec{Raft: wire.SwarmRaft{SnapshotInterval: 7}, EncryptionConfig: wire.SwarmEncryption{AutoLockManagers: true}}
	before.Orchestration.TaskHistoryRetentionLimit = &five
	after := before
	(&options{}).apply(&after, cmd.Flags(), "")
	zero := int64(0)
	want := before
	want.Orchestration.TaskHistoryRetentionLimit, want.EncryptionConfig.AutoLockManagers = &zero, false
	if diff := cmp.Diff(want, after); diff != "" {
		t.Error(diff)
	}
}

func TestRotation(t *testing.T) {
	old, fresh := wire.SwarmTLSInfo{TrustRoot: "old", CertIssuerSubject: []byte("s"), CertIssuerPublicKey: []byte("1")}, wire.SwarmTLSInfo{TrustRoot: "new", CertIssuerSubject: []byte("s"), CertIssuerPublicKey: []byte("2")}
	half := fresh
	half.TrustRoot = "old new"
	for _, tt := range []struct {
		nodes        []wire.SwarmTLSInfo
		underWay     bool
		certs, roots int64
		done         bool
	}{
		{[]wire.SwarmTLSInfo{old, old}, true, 0, 0, false},
		{[]wire.SwarmTLSInfo{half, old}, true, 1, 0, false},
		{[]wire.SwarmTLSInfo{half, fresh}, true, 2, 0, false},
		{[]wire.SwarmTLSInfo{half, fresh}, false, 2, 1, false},
		{[]wire.SwarmTLSInfo{fresh, fresh}, false, 2, 2, true},
	} {
		var nodes []wire.Node
		for _, info := range tt.nodes {
			nodes = append(nodes, wire.Node{Description: wire.NodeDescription{TLSInfo: info}})
		}
		counts := map[string]int64{}
		done, err := showRotation(func(m wire.Message) error {
			if m.ProgressDetail != nil {
				counts[m.ID] = m.ProgressDetail.Current
			}
			return nil
		}, wire.Swarm{SwarmInfo: wire.SwarmInfo{TLSInfo: fresh, RootRotationInProgress: tt.underWay}}, nodes)
		if diff := cmp.Diff(map[string]int64{certsLine: tt.certs, rootsLine: tt.roots}, counts); diff != "" || done != tt.done || err != nil {
			t.Errorf("%v: %t, %v %s", tt, done, err, diff)
		}
	}
}

// TestFollowInterrupted presses Ctrl-C while the daemon is asked: the rotation goes on, and that is no failure.
func TestFollowInterrupted(t *testing.T) {
	engine, err := client.New(client.Options{Host: "unix://" + t.TempDir() + "/nothing"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, quiet := range []bool{false, true} {
		var out bytes.Buffer
		err := (&rotation{quiet: quiet}).follow(ctx, cli.New(strings.NewReader(""), &out, &out), engine)
		if told := strings.Contains(out.String(), "continuing in background"); err != nil || told == quiet {
			t.Errorf("quiet %t: %v, %q", quiet, err, &out)
		}
	}
}
