package hook

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-project/sampan/core/fault"
)

var state = specs.State{Version: specs.Version, ID: "c1", Status: specs.StateCreating, Pid: 42, Bundle: "/bundle"}

// sh is a hook that runs a script.
func sh(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}}
}

func TestRunGivesTheState(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	if err := Run(t.Context(), "prestart", []specs.Hook{sh("cat > " + out)}, state); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var got specs.State
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, got); diff != "" {
		t.Error(diff)
	}
}

// One after the other, and none after one that failed.
func TestRunKeepsTheOrder(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	add := func(word, then string) specs.Hook { return sh("echo " + word + " >> " + out + "; " + then) }
	err := Run(t.Context(), "poststart", []specs.Hook{add("one", "sleep 0.1"), add("two", "echo  it\necho broke >&2; exit 3"), add("three", "")}, state)
	if err == nil || err.Error() != "poststart hook 1, /bin/sh: exit status 3: it broke" {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(out); string(data) != "one\ntwo\n" || err != nil {
		t.Errorf("got %q, %v", data, err)
	}
}

// A hook has the environment that it was given, and nothing of ours.
func TestRunEnvironment(t *testing.T) {
	t.Setenv("SAMPAN_SECRET", "ours")
	for _, env := range [][]string{nil, {"A=b"}} {
		out := filepath.Join(t.TempDir(), "out")
		h := sh(`echo "$SAMPAN_SECRET,$A" > ` + out)
		h.Env = env
		if err := Run(t.Context(), "prestart", []specs.Hook{h}, state); err != nil {
			t.Fatal(err)
		}
		want := "," + strings.TrimPrefix(strings.Join(env, ""), "A=") + "\n"
		if data, err := os.ReadFile(out); string(data) != want || err != nil {
			t.Errorf("%v: got %q, %v, want %q", env, data, err, want)
		}
	}
}

func TestRunEnds(t *testing.T) {
	second := 1
	slow := sh("exec sleep 20")
	slow.Timeout = &second
	begin := time.Now()
	if err := Run(t.Context(), "prestart", []specs.Hook{slow}, state); err == nil || !strings.HasSuffix(err.Error(), "no end after 1 s") {
		t.Errorf("beyond its timeout: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := Run(ctx, "prestart", []specs.Hook{sh("exec sleep 20")}, state); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	// A grandchild that keeps the output open is not waited for.
	if err := Run(t.Context(), "prestart", []specs.Hook{sh("sleep 4 & exit 0")}, state); err != nil {
		t.Errorf("with a grandchild: %v", err)
	}
	if d := time.Since(begin); d > 3500*time.Millisecond {
		t.Errorf("it took %v", d)
	}
	if err := Run(t.Context(), "prestart", []specs.Hook{{Path: "/none"}}, state); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	err := Run(t.Context(), "prestart", []specs.Hook{sh("head -c 100000 /dev/zero | tr '\\0' x; echo the end; exit 1")}, state)
	if err == nil || len(err.Error()) > maxOutput+100 || !strings.HasSuffix(err.Error(), "the end") {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	zero, one := 0, 1
	for _, c := range []struct {
		hook specs.Hook
		want string
	}{
		{specs.Hook{Path: "/bin/true"}, ""},
		{specs.Hook{Path: "/bin/true", Timeout: &one}, ""},
		{specs.Hook{Path: "true"}, "hooks.prestart[1].path"},
		{specs.Hook{}, "hooks.prestart[1].path"},
		{specs.Hook{Path: "/bin/true", Timeout: &zero}, "hooks.prestart[1].timeout"},
	} {
		err := Validate("prestart", []specs.Hook{{Path: "/ok"}, c.hook})
		if c.want == "" && err != nil || c.want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: got %v, want %q", c.hook, err, c.want)
		}
	}
}
