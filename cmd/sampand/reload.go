package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/container"
	"github.com/sampan-project/sampan/core/event"
)

// reloadable are the keys that SIGHUP reads anew: dockerd's, and the log's level. The others hold until
// the daemon ends.
var reloadable = []string{
	"debug", "default-runtime", "default-shm-size", "insecure-registries", "labels", "live-restore", "log-level", "max-concurrent-downloads",
	"max-concurrent-uploads", "max-download-attempts", "registry-mirrors", "runtimes", "shutdown-timeout", "trust",
}

// reloadOnHangup reads daemon.json anew on SIGHUP, until ctx ends. A file that is wrong changes nothing.
func (e *engine) reloadOnHangup(ctx context.Context, args []string, level *slog.LevelVar) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	defer signal.Stop(hangups)
	for {
		select {
		case <-hangups:
		case <-ctx.Done():
			return
		}
		fresh, err := configured(args)
		if err != nil {
			e.log.Error("reload: nothing is changed", "error", err)
			continue
		}
		e.reload(fresh, level)
		e.reloadCertificates()
	}
}

// reload puts into effect what the fresh options say.
func (e *engine) reload(fresh *options, level *slog.LevelVar) {
	old := e.now.Load()
	if fixed := changedFixed(old, fresh); len(fixed) > 0 {
		e.log.Warn("reload: these settings need a restart of the daemon: " + strings.Join(fixed, ", "))
	}
	now := old.with(fresh)
	policy, err := now.trusted()
	if err != nil {
		e.log.Error("reload: nothing is changed", "error", err)
		return
	}
	level.Set(now.level())
	e.registry.Reload(now.registries())
	e.trust.Set(policy)
	e.images.SetDownloads(now.Downloads)
	e.containers.Reload(container.Live{LiveRestore: now.LiveRestore, ShmSize: now.ShmSize, Runtimes: now.Runtimes.programs(), DefaultRuntime: now.defaultRuntime()})
	e.now.Store(now)
	host, _ := os.Hostname() //nolint:errcheck // an empty name is what there is
	attributes := now.attributes()
	attributes["name"] = host
	e.events.Emit(event.Daemon, "reload", e.id, attributes)
	e.log.Info("Reloaded configuration", "file", now.ConfigFile)
}

// reloadCertificates reads the files of TLS again, which have been renewed maybe under their old names.
func (e *engine) reloadCertificates() {
	if e.certificates == nil {
		return
	}
	if err := e.certificates.Reload(); err != nil {
		e.log.Error("reload: the certificates of before hold", "error", err)
	}
}

// configured are the options that the command line and daemon.json say now.
func configured(args []string) (*options, error) {
	o, flags := newOptions(), newFlags()
	o.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if err := o.read(flags); err != nil {
		return nil, err
	}
	return o, o.check()
}

// with is a copy of the options with what is reloadable from others.
func (o *options) with(fresh *options) *options {
	now := *o
	from, to := fresh.keys(), now.keys()
	for _, name := range reloadable {
		reflect.ValueOf(to[name].to).Elem().Set(reflect.ValueOf(from[name].to).Elem())
	}
	return &now
}

// changedFixed are the keys that would need a restart to have the effect of what they say now.
func changedFixed(old, fresh *options) (names []string) {
	was, is := old.keys(), fresh.keys()
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if !slices.Contains(reloadable, name) && !reflect.DeepEqual(was[name].to, is[name].to) {
			names = append(names, name)
		}
	}
	return names
}

// attributes are those of the event that tells of a reload, as dockerd's: the settings as they are now.
func (o *options) attributes() map[string]string {
	all := map[string]string{}
	keys := o.keys()
	for _, name := range reloadable {
		switch v := reflect.ValueOf(keys[name].to).Elem(); v.Kind() {
		case reflect.Slice:
			list := v.Interface().([]string)
			text, err := json.Marshal(append([]string{}, list...))
			if err == nil { // a list of texts always can be
				all[name] = string(text)
			}
		case reflect.Struct:
			if text, err := json.Marshal(v.Interface()); err == nil {
				all[name] = string(text)
			}
		case reflect.Map:
			if list, ok := v.Interface().(runtimes); ok {
				all[name] = list.text()
			}
		case reflect.Bool:
			all[name] = strconv.FormatBool(v.Bool())
		case reflect.Int, reflect.Int64:
			all[name] = strconv.FormatInt(v.Int(), 10)
		default:
			all[name] = v.String()
		}
	}
	return all
}
