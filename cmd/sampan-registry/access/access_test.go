package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	for user, password := range map[string]string{"alice": "one", "bob": "two"} {
		if err := Set(file, user, password); err != nil {
			t.Fatal(err)
		}
	}
	u, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	check := func(user, password string, want bool) {
		t.Helper()
		for range map[bool]int{true: 2, false: 1}[want] { // what was right may be remembered
			if got := u.Allowed(user, password); got != want {
				t.Errorf("%s with %q: %v", user, password, got)
			}
		}
	}
	check("alice", "one", true)
	check("alice", "two", false)
	check("alice", "", false)
	check("carol", "one", false)
	check("", "", false)

	// A change counts at once, also against what is remembered.
	if err := Set(file, "alice", "three"); err != nil {
		t.Fatal(err)
	}
	check("alice", "one", false)
	check("alice", "three", true)
	if err := Remove(file, "alice"); err != nil {
		t.Fatal(err)
	}
	check("alice", "three", false)
	if list, err := List(file); err != nil || !cmp.Equal(list, []string{"bob"}) {
		t.Errorf("%q, %v", list, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	check("bob", "two", false)
}

func TestBadFiles(t *testing.T) {
	for name, content := range map[string]string{"no hash": "alice\n", "plain": "alice:secret\n", "SHA-1": "alice:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n"} {
		file := filepath.Join(t.TempDir(), "users")
		if err := os.WriteFile(file, []byte("# users\n\n"+content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(file); err == nil || !strings.Contains(err.Error(), "line 3: expected NAME:HASH") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, user := range []string{"", "a:b", "a b", "a\nb"} {
		if err := Set(filepath.Join(t.TempDir(), "users"), user, "x"); err == nil {
			t.Errorf("%q became a user", user)
		}
	}
}
