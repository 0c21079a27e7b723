package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/sampan-project/sampan/core/cluster/session"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/wire"
)

// pull fetches the image of a task as Docker does: never by ID, by digest if it is not here, by tag always,
// as the registry may have a newer one. That it fails is told to the log alone: an older one may do, and is all there is
// of an image that no registry has; without any the creation of the container says that there is none.
func (t *task) pull(ctx context.Context, want *session.Task) error {
	name := want.Spec.ContainerSpec.Image
	if _, err := digest.Parse(name); err == nil {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil //nolint:nilerr // the creation says it, or it is the ID of an image
	}
	_, missing := t.a.o.Images.Inspect(ctx, name)
	_, pinned := named.(reference.Canonical)
	if missing == nil && (pinned || t.a.o.PreferLocal) {
		return nil
	}
	if missing != nil && !fault.Is(missing, fault.NotFound) {
		return missing
	}
	auth, err := login(want.Auth)
	if err != nil {
		t.a.log.Warn("the login that came with a service is of no use", "service", want.ServiceID, "error", err)
	}
	ref := reference.FamiliarString(reference.TagNameOnly(named))
	err = t.a.pulls.fetch(ctx, ref, want.Auth, auth, missing == nil)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	level := slog.LevelWarn
	if missing == nil {
		level = slog.LevelInfo
	}
	if err != nil {
		t.a.log.Log(ctx, level, "pulling image failed", "task", t.id, "image", ref, "here", missing == nil, "error", err)
	}
	return nil
}

// MaxAuth bounds a login, as the API does.
const MaxAuth = 64 << 10

// login reads a registry login as X-Registry-Auth has it: JSON in base64url.
func login(given string) (*wire.AuthConfig, error) {
	if given == "" {
		return nil, nil
	}
	if len(given) > MaxAuth {
		return nil, fault.New(fault.Invalid, "registry login: %d bytes: expected at most %d", len(given), MaxAuth)
	}
	alphabet := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(given, "="))
	b, err := base64.RawURLEncoding.DecodeString(alphabet)
	var auth *wire.AuthConfig
	if err == nil {
		err = json.Unmarshal(b, &auth)
	}
	if err != nil { // not in the message: it may be a secret
		return nil, errors.New("registry login: expected the JSON of a login in base64url")
	}
	if auth == nil || *auth == (wire.AuthConfig{}) {
		return nil, nil
	}
	return auth, nil
}

// How a registry that is down keeps tasks waiting whose image is here.
const (
	answerTime = 10 * time.Second // for its first answer
	downTime   = time.Minute      // it is not asked again
)

var errDown = fault.New(fault.Unavailable, "the registry has not answered within %s; it is asked again in %s", answerTime, downTime)

// pulls lets tasks that need the same image at the same time wait for one pull of it.
type pulls struct {
	images   Images
	patience time.Duration // answerTime

	mu      sync.Mutex
	running map[string]*pull
	down    map[string]time.Time // what cannot be asked for, and until when
	all     sync.WaitGroup
}

// pull is one that is under way. It ends when nobody waits for it any more.
type pull struct {
	waiting  int
	cancel   context.CancelFunc
	answered chan struct{} // closed at the registry's first word, or the end
	done     chan struct{}
	err      error
}

// fetch pulls an image, or waits for somebody's pull of it with the same login. Where the image is here, so that it
// may be done without the registry, one that does not answer is not waited for.
func (p *pulls) fetch(ctx context.Context, ref, given string, auth *wire.AuthConfig, here bool) error {
	key := ref + "\n" + given
	p.mu.Lock()
	if here && time.Now().Before(p.down[key]) {
		p.mu.Unlock()
		return errDown
	}
	one := p.running[key]
	if one == nil {
		one = p.begin(ctx, key, ref, auth)
	}
	one.waiting++
	p.mu.Unlock()
	var late <-chan time.Time
	if here {
		timer := time.NewTimer(p.patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-one.answered:
	case <-late:
		p.leave(key, one, true)
		return errDown
	case <-ctx.Done():
	}
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
	}
	p.leave(key, one, false)
	return context.Cause(ctx)
}

// begin starts a pull. The mutex is held.
func (p *pulls) begin(ctx context.Context, key, ref string, auth *wire.AuthConfig) *pull {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	one := &pull{cancel: cancel, answered: make(chan struct{}), done: make(chan struct{})}
	p.running[key] = one
	var word sync.Once
	answered := func() { word.Do(func() { close(one.answered) }) }
	p.all.Go(func() {
		defer cancel()
		one.err = p.images.Pull(own, ref, "", auth, func(wire.Message) { answered() })
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.running[key] == one {
			delete(p.running, key)
		}
		// What a registry says is an answer; that it says nothing is another's word, or the kernel's.
		if fault.Is(one.err, fault.Unavailable) || fault.Is(one.err, fault.Deadline) {
			p.avoid(key)
		}
		close(one.done)
		answered()
	})
	return one
}

// avoid notes that a registry does not answer. The mutex is held.
func (p *pulls) avoid(key string) {
	now := time.Now()
	for k, until := range p.down {
		if now.After(until) {
			delete(p.down, k)
		}
	}
	p.down[key] = now.Add(downTime)
}

// leave is the end of somebody's wait for a pull.
func (p *pulls) leave(key string, one *pull, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if down {
		p.avoid(key)
	}
	if one.waiting--; one.waiting == 0 && p.running[key] == one {
		delete(p.running, key) // who comes now begins anew
		one.cancel()
	}
}

// wait waits until nothing is pulled, once those who wait have gone.
func (p *pulls) wait() { p.all.Wait() }
