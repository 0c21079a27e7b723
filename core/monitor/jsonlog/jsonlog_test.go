package jsonlog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAppendStringIsEncodingJSONs(t *testing.T) {
	texts := []string{"", "plain", "a\"b\\c/d", "\x00\x01\x1f\x7f\b\f\n\r\t", "<&>", "é\u2028\u2029世界𝄞", "\xff\xc3(\xe2\x82", "\xed\xa0\x80", string(rune(0xfffd))}
	for range 2000 {
		b := make([]byte, rand.IntN(40))
		for i := range b {
			b[i] = byte(rand.IntN(256))
		}
		texts = append(texts, string(b))
	}
	for _, s := range texts {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendString(nil, []byte(s)); !bytes.Equal(got, want) {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func FuzzEntryComesBack(f *testing.F) {
	f.Add([]byte("hello\n"), false)
	f.Add([]byte("\x00<\"\\\u2028\xff"), true)
	f.Fuzz(func(t *testing.T, text []byte, withAttrs bool) {
		now := time.Now().UTC()
		var attrs []byte
		if withAttrs {
			attrs = encodeAttrs(map[string]string{"tag": string(text), "a": "b"})
		}
		line := bytes.TrimSuffix(appendEntry(nil, text, appendTail(nil, Stderr, now, attrs)), []byte("\n"))
		if bytes.ContainsAny(line, "\n\x00") {
			t.Fatalf("the line is not one: %q", line)
		}
		var e Entry
		if err := decode(line, &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		want := bytes.ToValidUTF8(text, nil)
		got := bytes.ReplaceAll(bytes.ToValidUTF8(e.Log, nil), []byte("\ufffd"), nil)
		if !bytes.Equal(got, bytes.ReplaceAll(want, []byte("\ufffd"), nil)) || e.Stream != Stderr || !e.Time.Equal(now) {
			t.Fatalf("got %+v from %s", e, line)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"log":"a\u0041\n","stream":"stdout","time":"2026-01-02T03:04:05.1Z"}`))
	f.Add([]byte(`{"log":"\ud834\udd1e","stream":"stderr","time":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"stream":"stderr"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var own, std Entry
		if !decodeOwn(line, &own) {
			return
		}
		var v struct {
			Log    string    `json:"log"`
			Stream string    `json:"stream"`
			Time   time.Time `json:"time"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			if bytes.Equal(bytes.ToValidUTF8(line, nil), line) {
				t.Fatalf("%s: encoding/json says %v, we take it", line, err)
			}
			return
		}
		std.Log = []byte(v.Log)
		if bytes.Equal(bytes.ToValidUTF8(line, nil), line) && !bytes.Equal(own.Log, std.Log) {
			t.Fatalf("%s: got %q, want %q", line, own.Log, std.Log)
		}
	})
}

func open(t *testing.T, o Options) *Writer {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "log")
	}
	w, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func texts(t *testing.T, q Query) []string {
	t.Helper()
	var list []string
	for e, err := range Read(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(e.Log))
	}
	return list
}

func TestLinesAreCutAsByDocker(t *testing.T) {
	k16 := strings.Repeat("x", maxEntry)
	tests := []struct {
		name   string
		writes []string
		want   []string
	}{
		{"whole lines", []string{"a\nb\n"}, []string{"a\n", "b\n"}},
		{"a line in pieces", []string{"a", "b", "c\nd", "\n"}, []string{"abc\n", "d\n"}},
		{"no newline at the end", []string{"a\nb"}, []string{"a\n", "b"}},
		{"empty lines", []string{"\n\n"}, []string{"\n", "\n"}},
		{"16 KiB and a newline", []string{k16 + "\n"}, []string{k16, "\n"}},
		{"one byte less", []string{k16[1:] + "\n"}, []string{k16[1:] + "\n"}},
		{"40 KiB", []string{k16 + k16 + "yy\nz\n"}, []string{k16, k16, "yy\n", "z\n"}},
		{"40 KiB in pieces", []string{k16[:5], k16[5:] + k16[:7], k16[7:], "yy\n"}, []string{k16, k16, "yy\n"}},
		{"a character over the cut", []string{k16[1:] + "é\n"}, []string{k16[1:], "é\n"}},
		{"a character over the cut, in pieces", []string{k16[2:] + "\xf0", "\x9d\x84\x9e", "\n"}, []string{k16[2:], "𝄞\n"}},
		{"16 KiB, no newline", []string{k16}, []string{k16}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := open(t, Options{})
			l := w.Lines(Stdout)
			for _, s := range tt.writes {
				if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
					t.Fatal(n, err)
				}
			}
			l.Close()
			if diff := cmp.Diff(tt.want, texts(t, Query{Path: w.options.Path, Tail: All})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFileIsDockersFormat(t *testing.T) {
	w := open(t, Options{Attrs: map[string]string{"tag": "web", "b": "<1>"}})
	l := w.Lines(Stderr)
	_, _ = l.Write([]byte("hé\t\"x\"\xff\n"))
	data, err := os.ReadFile(w.options.Path)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(data), `"time":"`)
	if want := `{"log":"hé\t\"x\"\ufffd\n","stream":"stderr","attrs":{"b":"\u003c1\u003e","tag":"web"},`; string(data[:i]) != want {
		t.Errorf("got %s, want %s", data[:i], want)
	}
	for e, err := range Read(t.Context(), Query{Path: w.options.Path, Tail: All}) {
		if err != nil || e.Attrs["tag"] != "web" || e.Stream != Stderr || time.Since(e.Time) > time.Minute {
			t.Errorf("got %+v, %v", e, err)
		}
	}
}

func TestRotationKeepsSoManyFiles(t *testing.T) {
	for _, keep := range []int{0, 1, 3} {
		w := open(t, Options{MaxSize: 1000, MaxFile: keep})
		l := w.Lines(Stdout)
		for i := range 200 {
			fmt.Fprintf(l, "line %d\n", i)
		}
		names, err := filepath.Glob(w.options.Path + "*")
		if err != nil || len(names) != max(keep, 1) {
			t.Errorf("keep %d: got %v, %v", keep, names, err)
		}
		for _, n := range names {
			if info, err := os.Stat(n); err != nil || info.Size() > 1200 {
				t.Errorf("%s has %d bytes, %v", n, info.Size(), err)
			}
		}
		got := texts(t, Query{Path: w.options.Path, Tail: All})
		if len(got) < 10*max(keep-1, 0) || len(got) > 0 && got[len(got)-1] != "line 199\n" {
			t.Errorf("keep %d: got %d entries to %q", keep, len(got), got[len(got)-1])
		}
	}
}

func TestTail(t *testing.T) {
	for _, compress := range []bool{false, true} {
		w := open(t, Options{MaxSize: 5000, MaxFile: 4, Compress: compress})
		l := w.Lines(Stdout)
		for i := range 150 {
			fmt.Fprintf(l, "%d%s\n", i, strings.Repeat(".", i%90))
		}
		all := texts(t, Query{Path: w.options.Path, Tail: All})
		if len(all) < 60 {
			t.Fatalf("compress %t: only %d entries", compress, len(all))
		}
		for _, n := range []int{0, 1, 2, 30, 59, len(all), len(all) + 1, 10000} {
			want := all[max(len(all)-n, 0):]
			got := texts(t, Query{Path: w.options.Path, Tail: n})
			if len(got) == 0 && len(want) == 0 {
				continue
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("compress %t, tail %d: %s", compress, n, diff)
			}
		}
	}
}

func TestTailOfLargeFile(t *testing.T) {
	w := open(t, Options{})
	l := w.Lines(Stdout)
	long := strings.Repeat("y", 9000)
	for i := range 100 {
		fmt.Fprintf(l, "%d %s\n", i, long)
	}
	got := texts(t, Query{Path: w.options.Path, Tail: 40})
	if len(got) != 40 || !strings.HasPrefix(got[0], "60 ") || !strings.HasPrefix(got[39], "99 ") {
		t.Errorf("got %d entries", len(got))
	}
}

func TestSinceUntil(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	var b []byte
	for i := range 10 {
		b = appendEntry(b, fmt.Appendf(nil, "%d", i), appendTail(nil, Stdout, at(i), nil))
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		q    Query
		want string
	}{
		{"since", Query{Tail: All, Since: at(7)}, "789"},
		{"until", Query{Tail: All, Until: at(2)}, "012"},
		{"both", Query{Tail: All, Since: at(3), Until: at(4)}, "34"},
		{"tail first", Query{Tail: 3, Until: at(8)}, "78"},
		{"follow ends at until", Query{Tail: All, Until: at(2), Follow: true}, "012"},
	}
	for _, tt := range tests {
		tt.q.Path = path
		if got := strings.Join(texts(t, tt.q), ""); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFollowEndsAtUntilWithoutEntry(t *testing.T) {
	w := open(t, Options{})
	_, _ = w.Lines(Stdout).Write([]byte("a\n"))
	got := texts(t, Query{Path: w.options.Path, Tail: All, Follow: true, Until: time.Now().Add(50 * time.Millisecond)})
	if len(got) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestTornEntriesAreSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	good := string(appendEntry(nil, []byte("good\n"), appendTail(nil, Stdout, time.Now(), nil)))
	junk := good + `{"log":"torn` // the machine stopped here
	if err := os.WriteFile(path, []byte(junk), 0o600); err != nil {
		t.Fatal(err)
	}
	w := open(t, Options{Path: path})
	_, _ = w.Lines(Stdout).Write([]byte("next\n"))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(strings.Repeat("\x00", 2*maxLine) + "\n" + good); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if diff := cmp.Diff([]string{"good\n", "next\n", "good\n"}, texts(t, Query{Path: path, Tail: All})); diff != "" {
		t.Error(diff)
	}
}

func TestNoLogHasNoEntries(t *testing.T) {
	if got := texts(t, Query{Path: filepath.Join(t.TempDir(), "none"), Tail: All}); got != nil {
		t.Errorf("got %q", got)
	}
}

// Two streams are written in parallel with much rotation, while several followers read. Each must see
// every line once and in order, as long as no file is rotated away that it has not opened.
func TestFollowAcrossRotation(t *testing.T) {
	for _, compress := range []bool{false, true} {
		followAcrossRotation(t, compress)
	}
}

func followAcrossRotation(t *testing.T, compress bool) {
	t.Helper()
	w := open(t, Options{MaxSize: 20_000, MaxFile: 500, Compress: compress})
	ended := make(chan struct{})
	const lines = 20_000
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			next := map[Stream]int{}
			for e, err := range Read(t.Context(), Query{Path: w.options.Path, Tail: All, Follow: true, Ended: ended}) {
				if err != nil {
					t.Error(err)
					return
				}
				if want := fmt.Sprintf("line %d\n", next[e.Stream]); string(e.Log) != want {
					t.Errorf("got %q, want %q", e.Log, want)
					return
				}
				next[e.Stream]++
			}
			if next[Stdout] != lines || next[Stderr] != lines {
				t.Errorf("got %v of %d lines", next, lines)
			}
		})
	}
	for _, s := range []Stream{Stdout, Stderr} {
		writers.Go(func() {
			l := w.Lines(s)
			for i := range lines {
				fmt.Fprintf(l, "line %d\n", i)
			}
		})
	}
	writers.Wait()
	close(ended)
	readers.Wait()
}

func TestFollowOfOneFile(t *testing.T) {
	w := open(t, Options{MaxSize: 300})
	ended := make(chan struct{})
	got := make(chan string)
	go func() {
		defer close(got)
		for e, err := range Read(t.Context(), Query{Path: w.options.Path, Tail: 0, Follow: true, Ended: ended}) {
			if err != nil {
				t.Error(err)
				return
			}
			got <- string(e.Log)
		}
	}()
	l := w.Lines(Stdout)
	time.Sleep(50 * time.Millisecond) // until it follows: Tail 0 hides what was before
	for i := range 50 {
		want := fmt.Sprintf("%d\n", i)
		_, _ = l.Write([]byte(want))
		if g := <-got; g != want {
			t.Fatalf("got %q, want %q", g, want)
		}
	}
	close(ended)
	if g, ok := <-got; ok {
		t.Errorf("got %q after the end", g)
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	for _, q := range []Query{{}, {Tail: All}} {
		ctx, cancel := context.WithCancel(t.Context())
		w := open(t, Options{})
		_, _ = w.Lines(Stdout).Write([]byte("a\n"))
		q.Path, q.Follow = w.options.Path, true
		time.AfterFunc(20*time.Millisecond, cancel)
		var last error
		for _, err := range Read(ctx, q) {
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("got %v", last)
		}
	}
}

func TestFollowPolls(t *testing.T) {
	w := open(t, Options{})
	ended := make(chan struct{})
	r := &reader{q: Query{Path: w.options.Path, Tail: All, Follow: true, Ended: ended}, watch: &watch{}}
	n := 0
	r.yield = func(*Entry, error) bool { n++; close(ended); return true }
	time.AfterFunc(20*time.Millisecond, func() { _, _ = w.Lines(Stdout).Write([]byte("a\n")) })
	w2 := r.watch
	if err := w2.wait(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	if err := r.run(t.Context()); err != nil || n != 1 {
		t.Errorf("got %d entries, %v", n, err)
	}
	r.close()
}

func TestFullDiskDropsWholeEntries(t *testing.T) {
	w := open(t, Options{})
	l := w.Lines(Stdout)
	_, _ = l.Write([]byte("before\n"))
	w.file.Close() // every write fails from here
	_, _ = l.Write([]byte("lost\n"))
	if w.Dropped() == 0 {
		t.Error("nothing was counted as dropped")
	}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	_, _ = l.Write([]byte("after\n"))
	if diff := cmp.Diff([]string{"before\n", "after\n"}, texts(t, Query{Path: w.options.Path, Tail: All})); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w, err := Open(Options{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 64 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer w.Close() //nolint:errcheck // the test is over
			chunk := bytes.Repeat(append(bytes.Repeat([]byte("a"), size-1), '\n'), 32768/size)
			l := w.Lines(Stdout)
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = l.Write(chunk)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	w, err := Open(Options{Path: filepath.Join(b.TempDir(), "log")})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close() //nolint:errcheck // the test is over
	l := w.Lines(Stdout)
	for range 10000 {
		_, _ = l.Write([]byte("a line of log such as a server writes for each of its requests, 200 OK\n"))
	}
	b.SetBytes(w.size)
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range Read(b.Context(), Query{Path: w.options.Path, Tail: All}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
