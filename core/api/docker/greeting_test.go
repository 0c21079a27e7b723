package docker

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A client that reads late must not find output behind the header in one piece.
func TestGreeted(t *testing.T) {
	for network, address := range map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		t.Run(network, func(t *testing.T) { greets(t, network, address) })
	}
}

func greets(t *testing.T, network, address string) {
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		defer server.Close()
		if err := writeString(server, "header"); err != nil {
			done <- err
			return
		}
		(&conversation{conn: server}).greeted()
		done <- writeString(server, "output")
	}()
	time.Sleep(20 * time.Millisecond) // long enough for the output to come, if nobody held it
	piece := make([]byte, 100)
	n, err := client.Read(piece)
	if err != nil || string(piece[:n]) != "header" {
		t.Errorf("the first piece is %q, %v, expected the header alone", piece[:n], err)
	}
	rest, err := io.ReadAll(client)
	if err != nil || string(rest) != "output" {
		t.Errorf("the rest is %q, %v, expected the output", rest, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
