package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/sampan-project/sampan/core/fault"
)

// Options are what a Store is opened with.
type Options struct {
	Dir    string           // for raft.db and snapshots; made when it is missing, for its owner only
	NodeID string           // this node's: it must not be that of a node whose Dir was lost
	Addr   string           // host:port at which other managers dial this one
	Layer  raft.StreamLayer // connections between managers, which it has made sure of; closed with the store, and when Open fails
	Logger *slog.Logger     // nil for none

	// Election is how long a manager waits for a word of the leader before it tries to be the next one; the leader
	// gives one each tenth of it. 0 is 3 s.
	Election time.Duration
	// SnapshotEntries is after how many changes the log is replaced by a snapshot, KeepEntries how many of them are kept
	// for managers that are slow. 0 is 10000 and 500. The swarm's own spec goes before.
	SnapshotEntries, KeepEntries uint64
	// Now is asked for the time of each Update. nil is time.Now.
	Now func() time.Time

	maxLog        int           // bytes of changes after which there is a snapshot in any case
	snapshotCheck time.Duration // how often it is looked whether it is time for a snapshot
}

// Timings that are not worth an option.
const (
	defaultElection = 3 * time.Second
	defaultSnapshot = 10000
	defaultKeep     = 500
	callTimeout     = 10 * time.Second // of one message between managers
	// maxBatch is how many entries go in one message. An entry may be MaxChange long.
	maxBatch      = 16
	defaultMaxLog = 64 << 20
)

// Store is this manager's part of the state that all managers have. Its methods may be called in parallel.
//
// After Open it shows its last snapshot, and what has changed since as soon as a leader tells that it was agreed on.
type Store struct {
	*board
	id, addr string
	now      func() time.Time
	wait     time.Duration // for calls that are on their way when the store closes
	log      *slog.Logger

	raft    *raft.Raft
	logs    *logs
	streams *streams
	trans   *transport
	machine *machine

	maxLog int           // in bytes
	turn   chan struct{} // whose Update it is
	ready  uint64        // the term of which the turn's holder knows all earlier changes

	mu      sync.Mutex
	err     error
	down    map[raft.ServerID]bool          // managers that the leader does not reach
	busy    map[raft.ServerID]chan struct{} // nodes whose seat is being changed; closed in the end
	tuned   raft.ReloadableConfig
	calls   sync.WaitGroup
	closing chan struct{} // closed at the beginning of the end
	still   chan struct{} // closed when Raft has stopped
	done    chan struct{} // closed at the end
}

// Open starts this manager's part. In an empty directory it waits until Bootstrap, or until the leader's
// AddManager has made it one of the managers.
func Open(o Options) (_ *Store, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			o.Layer.Close()
		}
	}()
	if err := prepare(o.Dir); err != nil {
		return nil, err
	}
	s := &Store{
		board: newBoard(newState()), id: o.NodeID, addr: o.Addr, now: o.Now, wait: o.Election, log: o.Logger,
		maxLog: o.maxLog, turn: make(chan struct{}, 1), down: map[raft.ServerID]bool{}, busy: map[raft.ServerID]chan struct{}{},
		closing: make(chan struct{}), still: make(chan struct{}), done: make(chan struct{}),
	}
	s.machine = &machine{board: s.board, failed: s.fail, wake: func() { s.show(nil) }}
	if s.logs, err = openLogs(o.Dir, s.fail); err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(o.Dir, 1, newLogger(s.log))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the swarm's snapshots: %w", err), s.logs.Close())
	}
	if err := settle(o.Dir); err != nil {
		return nil, errors.Join(err, s.logs.Close())
	}
	s.streams = newStreams(o.Layer, o.Addr)
	s.trans = newTransport(s.streams, callTimeout, newLogger(s.log))
	config := o.config()
	if err := s.start(config, snapshots); err != nil {
		return nil, errors.Join(err, s.trans.Close(), s.logs.Close())
	}
	s.tuned = raft.ReloadableConfig{
		TrailingLogs: config.TrailingLogs, SnapshotInterval: config.SnapshotInterval, SnapshotThreshold: config.SnapshotThreshold,
		HeartbeatTimeout: config.HeartbeatTimeout, ElectionTimeout: config.ElectionTimeout,
	}
	s.attend()
	if s.alone() {
		if err := s.trans.campaign(s.closing); err != nil {
			s.log.Warn("a lone manager waits for an election", "err", err)
		}
	}
	return s, nil
}

func (o *Options) check() error {
	for _, f := range []struct{ name, value string }{{"Dir", o.Dir}, {"NodeID", o.NodeID}, {"Addr", o.Addr}} {
		if f.value == "" {
			return &fault.Field{Field: "store." + f.name, Given: "", Expected: "a value"}
		}
	}
	if o.Layer == nil {
		return &fault.Field{Field: "store.Layer", Given: "", Expected: "a value"}
	}
	o.fill()
	return nil
}

func (o *Options) fill() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Election == 0 {
		o.Election = defaultElection
	}
	if o.SnapshotEntries == 0 {
		o.SnapshotEntries = defaultSnapshot
	}
	if o.KeepEntries == 0 {
		o.KeepEntries = defaultKeep
	}
	if o.maxLog == 0 {
		o.maxLog = defaultMaxLog
	}
	if o.snapshotCheck == 0 {
		o.snapshotCheck = 10 * o.Election
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func (o *Options) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.NodeID)
	c.HeartbeatTimeout, c.ElectionTimeout = o.Election, o.Election
	c.LeaderLeaseTimeout = o.Election * 2 / 3 // it gives up before the others elect another
	c.CommitTimeout = max(min(o.Election/15, 200*time.Millisecond), time.Millisecond)
	c.MaxAppendEntries = maxBatch
	c.ShutdownOnRemove = false // the store is closed by whom it belongs to
	c.SnapshotInterval = o.snapshotCheck
	c.SnapshotThreshold, c.TrailingLogs = o.SnapshotEntries, o.KeepEntries
	c.NoLegacyTelemetry = true
	c.Logger = newLogger(o.Logger)
	return c
}

// prepare makes the directory, which has secrets, and takes out what a crash left of snapshots.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("open the swarm's state: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("open the swarm's state: %w", err)
	}
	unfinished, _ := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp")) // the pattern is a good one
	for _, path := range unfinished {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("open the swarm's state: unfinished snapshot: %w", err)
		}
	}
	return nil
}

// settle has the disk keep the names of the directory and of what is in it.
func settle(dir string) error {
	for _, path := range []string{dir, filepath.Dir(dir)} {
		d, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open the swarm's state: %w", err)
		}
		err = d.Sync()
		d.Close()
		if err != nil {
			return fmt.Errorf("open the swarm's state: %w", err)
		}
	}
	return nil
}

// start starts Raft with what the disk has.
func (s *Store) start(config *raft.Config, snapshots raft.SnapshotStore) error {
	err := apart(func() (err error) {
		s.raft, err = raft.NewRaft(config, s.machine, s.logs, s.logs, snapshots, s.trans)
		return err
	})
	if broken := s.Err(); broken != nil {
		err = broken
	}
	if err != nil {
		if s.raft != nil {
			s.halt()
		}
		return s.machine.why(fmt.Errorf("start the swarm's log in %s: %w", filepath.Dir(s.logs.path), err))
	}
	s.machine.mu.Lock()
	s.machine.running = true
	s.machine.mu.Unlock()
	return nil
}

// apart calls fn in a goroutine of its own, which logs may end, and makes a panic an error.
func apart(fn func() error) error {
	ended := make(chan error, 1)
	go func() {
		err := errors.New("it could not be read")
		defer func() {
			p := recover()
			if cause, ok := p.(error); ok && errors.Is(cause, raft.ErrLogNotFound) {
				err = errors.New("an entry is missing that no snapshot has")
			} else if p != nil {
				err = fmt.Errorf("%v", p)
			}
			ended <- err
		}()
		err = fn()
	}()
	return <-ended
}

// alone reports whether this node is the only manager.
func (s *Store) alone() bool {
	servers := s.servers()
	return len(servers) == 1 && servers[0].ID == raft.ServerID(s.id) && servers[0].Suffrage == raft.Voter
}

func (s *Store) servers() []raft.Server {
	return s.raft.GetConfiguration().Configuration().Servers // it never fails
}

// attend starts the two goroutines that every store has.
func (s *Store) attend() {
	seen := make(chan raft.Observation, 16)
	s.raft.RegisterObserver(raft.NewObserver(seen, true, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState, raft.PeerObservation, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	}))
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(seen) })
	go func() {
		<-s.closing
		s.shutdown()
		watching.Wait()
		if err := s.logs.Close(); err != nil {
			s.mu.Lock()
			if s.err == nil {
				s.err = err
			}
			s.mu.Unlock()
		}
		s.show(nil)
		close(s.done)
	}()
}

// watch keeps what Raft tells of the managers, until Raft has stopped: Raft waits for it.
func (s *Store) watch(seen <-chan raft.Observation) {
	s.tune()
	changed := s.Changed()
	for {
		select {
		case o := <-seen:
			s.see(o.Data)
		case <-changed:
			changed = s.Changed()
			s.tune()
			s.shorten()
		case <-s.still:
			return
		}
	}
}

// see takes one observation in, and wakes who waits for a change if it is one.
func (s *Store) see(data any) {
	s.mu.Lock()
	was := len(s.down)
	wake := true
	switch o := data.(type) {
	case raft.RaftState:
		clear(s.down)
		if o == raft.Leader {
			go s.tidy()
		}
	case raft.PeerObservation:
		delete(s.down, o.Peer.ID)
	case raft.FailedHeartbeatObservation:
		s.down[o.PeerID] = true
		wake = len(s.down) != was
	case raft.ResumedHeartbeatObservation:
		delete(s.down, o.PeerID)
		wake = len(s.down) != was
	}
	s.mu.Unlock()
	if wake {
		s.show(nil)
	}
}

// tune has Raft make snapshots as the swarm's spec says.
func (s *Store) tune() {
	c := s.Reader().Cluster()
	if c == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := s.tuned
	if n := c.Spec.Raft.SnapshotInterval; n > 0 {
		want.SnapshotThreshold = n
	}
	if n := c.Spec.Raft.LogEntriesForSlowFollowers; n > 0 {
		want.TrailingLogs = n
	}
	if want == s.tuned {
		return
	}
	if err := s.raft.ReloadConfig(want); err != nil {
		s.log.Warn("the swarm's raft settings", "err", err)
		return
	}
	s.tuned = want
}

// shorten makes a snapshot when the log has become long in bytes: Raft itself counts entries.
func (s *Store) shorten() {
	if s.machine.taken(s.maxLog) {
		go s.call(context.Background(), func() error { return s.raft.Snapshot().Error() }, func() {}) //nolint:errcheck // Raft logs it, and the next one comes
	}
}

// fail stops the store because of err.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return
	default:
	}
	s.err = err
	s.log.Error("the swarm's state on this manager stops", "err", err)
	close(s.closing)
}

// Close stops this manager's part and closes its Layer. It does not hand the leadership over (StepDown), and nothing
// has to be written: whatever was agreed on is on the disk.
func (s *Store) Close() error {
	s.mu.Lock()
	select {
	case <-s.closing:
	default:
		close(s.closing)
	}
	s.mu.Unlock()
	<-s.done
	return s.Err()
}

// Done is closed when the store has stopped: because of Close, or because of an error that it does not survive
// (a disk that is full or damaged, an entry of a newer version), which Err tells. What to do then is to Close it, to see
// to the cause, and to Open it anew.
func (s *Store) Done() <-chan struct{} { return s.done }

// Err is why the store has stopped, nil if it has not, or if Close was called.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// shutdown stops Raft.
func (s *Store) shutdown() {
	// Raft does not answer every call that is on its way when it is shut down.
	ended := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(s.wait):
	}
	s.halt()
	close(s.still)
}

// halt ends Raft and its connections, and what waits for them.
func (s *Store) halt() {
	s.streams.Close()         //nolint:errcheck // what was written is not in the connections
	s.raft.Shutdown().Error() //nolint:errcheck // it is nil
}

// call runs fn, which waits for Raft, and answers with its error, or when ctx ends without it. then is called when
// fn has ended, in any case.
func (s *Store) call(ctx context.Context, fn func() error, then func()) error {
	s.mu.Lock()
	select {
	case <-s.closing:
		s.mu.Unlock()
		then()
		return s.gone()
	default:
	}
	s.calls.Add(1)
	s.mu.Unlock()
	answer := make(chan error, 1)
	go func() {
		defer s.calls.Done()
		defer then()
		answer <- fn()
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.still:
		return raft.ErrRaftShutdown
	}
}

// gone is the error of whoever asks a store that has stopped.
func (s *Store) gone() error {
	if err := s.Err(); err != nil {
		return fault.New(fault.Unavailable, "the swarm's state on this manager has stopped: %w", err)
	}
	return fault.New(fault.Unavailable, "the swarm's state on this manager is closed")
}
