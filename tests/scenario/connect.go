package scenario

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/websocket"
)

// certs makes certificates below a directory, each with ca.pem, cert.pem and key.pem as Docker names them:
// server and client of one authority, and stranger, a client of another one, which trusts the first.
func certs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: certs DIR")
	}
	dir := ts.MkAbs(args[0])
	ours, err := newAuthority()
	ts.Check(err)
	theirs, err := newAuthority()
	ts.Check(err)
	ts.Check(ours.issue(filepath.Join(dir, "server"), x509.ExtKeyUsageServerAuth, ours))
	ts.Check(ours.issue(filepath.Join(dir, "client"), x509.ExtKeyUsageClientAuth, ours))
	ts.Check(theirs.issue(filepath.Join(dir, "stranger"), x509.ExtKeyUsageClientAuth, ours))
	ts.Check(ours.issue(filepath.Join(dir, "doubter"), x509.ExtKeyUsageClientAuth, theirs))
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	template := certificate("authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

// issue signs a certificate for 127.0.0.1, and puts it beside the authority that its holder trusts.
func (a authority) issue(dir string, usage x509.ExtKeyUsage, trusts authority) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := certificate(filepath.Base(dir))
	template.ExtKeyUsage, template.IPAddresses, template.DNSNames = []x509.ExtKeyUsage{usage}, []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: trusts.cert.Raw}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// privilegeSeparation is a directory that sshd wants, and that only its service makes.
const privilegeSeparation = "/run/sshd"

// sshd starts OpenSSH's server on a port of 127.0.0.1, $SSHPORT. Its sessions are root's, have the scenario's
// PATH and DOCKER_HOST and SAMPAN_HOST for the scenario's daemon; the program ssh in PATH is OpenSSH's with
// the key, and without the machine's configuration.
func sshd(ts *testscript.TestScript, neg bool, args []string) {
	noArguments(ts, "sshd", neg, args)
	s := of(ts)
	dir, bin := filepath.Join(s.root, "ssh"), filepath.Join(s.root, "bin")
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(os.MkdirAll(bin, 0o755))
	for _, key := range []string{"host", "user"} {
		ts.Check(ts.Exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)))
	}
	port := free(ts)
	path := bin + ":" + ts.Getenv("PATH")
	server := fmt.Sprintf(`ListenAddress 127.0.0.1:%[1]d
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PidFile none
PermitUserEnvironment no
SetEnv PATH=%[3]s DOCKER_HOST=%[4]s SAMPAN_HOST=%[4]s HOME=%[5]s
`, port, dir, path, ts.Getenv("SAMPAN_HOST"), s.root)
	hostKey, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	ts.Check(err)
	client := fmt.Sprintf("IdentityFile %[1]s/user\nUserKnownHostsFile %[1]s/known\nStrictHostKeyChecking yes\nBatchMode yes\n", dir)
	real, err := exec.LookPath("ssh")
	ts.Check(err)
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s -F %s/client \"$@\"\n", real, dir)
	for name, text := range map[string]string{"server": server, "client": client, "known": fmt.Sprintf("[127.0.0.1]:%d %s", port, hostKey)} {
		ts.Check(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	ts.Check(os.WriteFile(filepath.Join(bin, "ssh"), []byte(wrapper), 0o755))
	if err := os.Mkdir(privilegeSeparation, 0o755); err == nil {
		s.ends = append(s.ends, func() error { return os.Remove(privilegeSeparation) })
	} else if !errors.Is(err, os.ErrExist) {
		ts.Check(err)
	}
	program, err := exec.LookPath("sshd")
	if err != nil {
		program = "/usr/sbin/sshd" // it wants to be called by its whole path
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	ts.Check(err)
	defer log.Close()
	cmd := exec.Command(program, "-D", "-e", "-f", filepath.Join(dir, "server"))
	cmd.Stdout, cmd.Stderr = log, log
	ts.Check(cmd.Start())
	s.others = append(s.others, cmd)
	ts.Setenv("PATH", path)
	ts.Setenv("SSHPORT", fmt.Sprint(port))
	ts.Check(poll(func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("%w\n%s", err, tail(log.Name()))
		}
		return conn.Close()
	}))
}

// websocketCommand attaches to PATH of the daemon's API by a websocket, sends TEXT and a newline, and prints
// what comes until the daemon closes.
func websocketCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: websocket PATH TEXT")
	}
	conn, err := net.Dial("unix", filepath.Join(of(ts).root, "s.sock"))
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(patience)))
	config, err := websocket.NewConfig("ws://localhost"+args[0], "http://localhost")
	ts.Check(err)
	ws, err := websocket.NewClient(config, conn)
	ts.Check(err)
	_, err = io.WriteString(ws, args[1]+"\n")
	ts.Check(err)
	output, err := io.ReadAll(ws)
	ts.Check(err)
	_, err = ts.Stdout().Write(output)
	ts.Check(err)
}
