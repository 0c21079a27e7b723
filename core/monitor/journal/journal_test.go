package journal

import (
	"bufio"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sampan-project/sampan/core/monitor/jsonlog"
)

// listen returns the address of a socket and what arrives at it.
func listen(t *testing.T, network string) (string, <-chan string) {
	t.Helper()
	address, got := "127.0.0.1:0", make(chan string, 10)
	if strings.HasPrefix(network, "unix") {
		address = filepath.Join(t.TempDir(), "log")
	}
	if network == "tcp" {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				line, _ := bufio.NewReader(c).ReadString('\n')
				got <- line
				_ = c.Close() // the next entry needs a new connection
			}
		}()
		return l.Addr().String(), got
	}
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // the test has ended
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			got <- string(b[:n])
		}
	}()
	return c.LocalAddr().String(), got
}

func write(l jsonlog.Log, stream jsonlog.Stream, text string) {
	lines := jsonlog.NewLines(l, stream)
	lines.Write([]byte(text)) //nolint:errcheck // it always takes all
	lines.Close()
}

func TestSyslog(t *testing.T) {
	for _, c := range []struct{ network, format, want string }{
		{"unixgram", "", `^<30>\w{3} [ \d]\d \d\d:\d\d:\d\d web\[\d+\]: hello$`},
		{"udp", "rfc3164", `^<30>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ web\[\d+\]: hello$`},
		{"udp", "rfc5424", `^<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S* \S+ web \d+ web - hello$`},
		{"tcp", "rfc5424micro", `^<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\S* \S+ web \d+ web - hello\n$`},
	} {
		address, got := listen(t, c.network)
		l, err := OpenSyslog(Syslog{Address: c.network + "://" + address, Facility: DefaultFacility, Format: c.format, Tag: "web"})
		if err != nil {
			t.Fatal(err)
		}
		write(l, jsonlog.Stdout, "hello\n")
		if line := <-got; !regexp.MustCompile(c.want).MatchString(line) {
			t.Errorf("%s %s: got %q", c.network, c.format, line)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		write(l, jsonlog.Stdout, "after the end\n")
	}
}

// A logger that goes away loses entries, and is found again.
func TestSyslogComesBack(t *testing.T) {
	address, got := listen(t, "tcp")
	l, err := OpenSyslog(Syslog{Address: "tcp://" + address, Tag: "x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	arrived := 0
	for begin := time.Now(); arrived < 2 && time.Since(begin) < 10*time.Second; {
		write(l, jsonlog.Stderr, "again\n")
		select {
		case line := <-got:
			if !strings.HasPrefix(line, "<3>") {
				t.Errorf("got %q", line)
			}
			arrived++
		case <-time.After(20 * time.Millisecond):
		}
	}
	if arrived < 2 {
		t.Error("no second connection")
	}
}

func TestJournal(t *testing.T) {
	address, got := listen(t, "unixgram")
	l, err := OpenJournal(address, "web", map[string]string{"CONTAINER_NAME": "w", "NOTE": "two\nlines"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	write(l, jsonlog.Stderr, "hello\n")
	message := regexp.MustCompile(`SYSLOG_TIMESTAMP=[^\n]*\n`).ReplaceAllString(<-got, "")
	want := "CONTAINER_NAME=w\nNOTE\n\t\x00\x00\x00\x00\x00\x00\x00two\nlines\nSYSLOG_IDENTIFIER=web\nPRIORITY=3\nMESSAGE=hello\n"
	if diff := cmp.Diff(want, message); diff != "" {
		t.Error(diff)
	}
	write(l, jsonlog.Stdout, "no end")
	if message := <-got; !strings.Contains(message, "PRIORITY=6\n") || !strings.Contains(message, "CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE=no end\n") {
		t.Errorf("got %q", message)
	}
	for text, want := range map[string]string{"com.example.a": "COM_EXAMPLE_A", "_x": "X", "é": ""} {
		if name := FieldName(text); name != want {
			t.Errorf("%q: %q", text, name)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	for _, open := range []func() (jsonlog.Log, error){
		func() (jsonlog.Log, error) {
			return OpenSyslog(Syslog{Address: "unix://" + filepath.Join(t.TempDir(), "none")})
		},
		func() (jsonlog.Log, error) { return OpenJournal(filepath.Join(t.TempDir(), "none"), "t", nil) },
	} {
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "log: connect to unix") {
			t.Errorf("got %v", err)
		}
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"": "unixgram /dev/log", "udp://h": "udp h:514", "tcp://h:1": "tcp h:1", "udp://[::1]:9": "udp [::1]:9", "unix:///x": "unix /x",
		"tcp+tls://h": "tcp+tls h:514", "h:1": "expected udp", "unix://x": "expected udp", "http://x": "expected udp",
	} {
		network, address, err := ParseAddress(text)
		if got := network + " " + address; got != want && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	for text, want := range map[string]int{"": 3, "local7": 23, "5": 5, "locl0": -1, "24": -1} {
		n, err := ParseFacility(text)
		if want >= 0 && (n != want || err != nil) || want < 0 && err == nil {
			t.Errorf("%q: %d %v", text, n, err)
		}
	}
}
