package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/lazy"
)

// openLazy makes the client of the process that shows layers before they are there. The process is started
// when a layer is to be shown. With userns-remap none is: its files could not be shown with mapped ids. Who starts a
// container on one that an earlier daemon had shown waits until it is unpacked.
func (e *engine) openLazy() *lazy.Client {
	e.lazy = lazy.New(lazy.Options{
		Dir: filepath.Join(e.o.ExecRoot, "lazy"), Cache: filepath.Join(e.o.DataRoot, "lazy"), Indexes: filepath.Join(e.o.DataRoot, "lazy-index"),
		Program: lazy.ProgramBeside(), Enabled: e.o.LazyPull && e.remap == nil, Logger: e.log,
		Registries: func() ([]string, map[string][]string) {
			o := e.now.Load().registries()
			return o.Insecure, o.Mirrors
		},
		Lost: e.lostLazy,
	})
	if e.remap != nil {
		e.layers.OnUse(func(ctx context.Context, chain digest.Digest) error { return e.images.Whole(ctx, chain) })
	}
	return e.lazy
}

// closeLazy ends the process when no container can need it.
func (e *engine) closeLazy() error {
	if e.containers == nil || e.containers.Running() > 0 {
		e.lazy.Disconnect()
		return nil
	}
	return e.lazy.Shutdown(context.Background())
}

// reshow shows again what an earlier daemon had shown. Containers whose files are gone are ended.
func (e *engine) reshow(ctx context.Context) {
	e.images.Reshow(ctx)
	if err := e.lazy.Sweep(ctx); err != nil {
		e.log.Warn("remove what was fetched of layers", "error", err)
	}
}

// lostLazy is called when the process has ended.
func (e *engine) lostLazy() {
	ctx := context.Background()
	e.images.Reshow(ctx)
	e.endOrphans(ctx)
}

// endOrphans ends containers that can read nothing of their image any more. It is as if they had been
// killed: a restart policy starts them again, on what is shown now.
func (e *engine) endOrphans(ctx context.Context) {
	if _, err := os.Stat(filepath.Join(e.o.ExecRoot, "lazy")); err != nil {
		return // nothing was ever shown
	}
	for id, pid := range e.containers.Live() {
		if !lazy.Dead(fmt.Sprintf("/proc/%d/root", pid)) {
			continue
		}
		e.log.Error("container has lost the files of its image, as sampan-lazy has ended: it is killed", "container", id)
		if err := e.monitor.Kill(ctx, id, int(unix.SIGKILL), true); err != nil {
			e.log.Error("end a container that has lost its files", "container", id, "error", err)
		}
	}
}
