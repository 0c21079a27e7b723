package main

import (
	"context"
	"errors"
	"strings"

	"github.com/sampan-project/sampan/core/check"
	"github.com/sampan-project/sampan/core/wire"
)

// maxRounds bounds a repair: what was mended may show what was behind it, such as the layer below one
// that nobody had.
const maxRounds = 8

// Check is `sampan system check`: every room compares what it knows with what there is. With repair what
// can be mended without loss is.
func (e *engine) Check(ctx context.Context, verify, repair bool) ([]wire.Finding, error) {
	if repair {
		// What drivers have on the host, such as rules, only they can see: they are asked in any case.
		if err := e.networks.Restore(ctx); err != nil {
			return nil, err
		}
	}
	list := []wire.Finding{}
	for range maxRounds {
		found, err := check.Look(ctx, e.checks(verify)...)
		if err != nil {
			return nil, err
		}
		mended := false
		var left []wire.Finding
		for _, f := range found {
			w := wire.Finding{Kind: f.Kind, Subject: f.Subject, Problem: onOneLine(f.Problem), Advice: f.Advice, Mendable: f.Mend != nil}
			if repair && f.Mend != nil {
				if err := f.Mend(context.WithoutCancel(ctx)); err != nil {
					w.Error = onOneLine(err.Error())
				} else {
					w.Repaired, mended = f.Did, true
				}
			}
			if w.Repaired != "" {
				list = append(list, w)
			} else {
				left = append(left, w)
			}
		}
		if !mended {
			return append(list, left...), nil
		}
	}
	return list, errors.New("after many repairs there is still something to be mended: see the daemon's log")
}

// checks are the rooms, from the ground up.
func (e *engine) checks(verify bool) []check.Room {
	return []check.Room{
		e.db.Check, e.runDB.Check,
		func(ctx context.Context) ([]check.Finding, error) {
			return e.layers.Check(ctx, append(e.containers.Snapshots(), e.solver.Snapshots()...))
		},
		func(ctx context.Context) ([]check.Finding, error) { return e.images.Check(ctx, verify) },
		e.volumes.Check,
		func(ctx context.Context) ([]check.Finding, error) { return e.networks.Check(ctx, e.containers.Live()) },
		e.containers.Check,
	}
}

func onOneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
