package network

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/sampan-project/sampan/core/state"
	"github.com/sampan-project/sampan/core/wire"
)

// BenchmarkJoin is what a container's start waits for here, without the driver.
func BenchmarkJoin(b *testing.B) {
	dir := b.TempDir()
	db, err := state.Open(filepath.Join(dir, "state.db"), state.Options{})
	if err != nil {
		b.Fatal(err)
	}
	run, err := state.Open(filepath.Join(dir, "run.db"), state.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	m, err := NewManager(Options{DB: db, RunDB: run, Drivers: &fakeDrivers{driver: newFakeDriver()}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = m.Close()
		_ = db.Close()
		_ = run.Close()
	})
	if err := m.Reconcile(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
	if _, err := m.Create(b.Context(), wire.NetworkCreateRequest{Name: "front"}); err != nil {
		b.Fatal(err)
	}
	for _, mode := range []string{"none", "bridge", "front"} {
		b.Run(mode, func(b *testing.B) {
			for b.Loop() {
				sb, err := m.Join(b.Context(), JoinRequest{ContainerID: id(1), ContainerName: "c", Hostname: "c", Mode: mode})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				sb.close()
				if err := m.Leave(b.Context(), id(1)); err != nil {
					b.Fatal(err)
				}
				m.background.Wait()
				time.Sleep(20 * time.Millisecond) // so that a prepared namespace is there
				b.StartTimer()
			}
		})
	}
}
