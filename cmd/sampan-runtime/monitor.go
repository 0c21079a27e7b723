package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	goruntime "runtime"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/linux"
	"github.com/sampan-project/sampan/core/monitor/server"
)

func monitorFlags(p *program, f *pflag.FlagSet) action {
	socket := f.String("socket", "", "unix socket to listen on")
	root := f.String("root", "", "directory for the state of containers and their exit statuses")
	listen := f.Int("listen-fd", -1, "inherited descriptor of the socket, which listens already")
	return func([]string) error {
		for option, value := range map[string]string{"--socket": *socket, "--root": *root} {
			if value == "" {
				return fault.New(fault.Invalid, "%s monitor: expected %s", name, option)
			}
		}
		o := server.Options{Socket: *socket, Root: *root, Logger: p.log.With(slog.String("program", "monitor"))}
		if *listen >= 0 {
			if _, err := unix.FcntlInt(uintptr(*listen), unix.F_GETFD, 0); err != nil {
				return &fault.Field{Field: "--listen-fd", Given: fmt.Sprint(*listen), Expected: "an open descriptor"}
			}
			unix.CloseOnExec(*listen)
			o.Listener = os.NewFile(uintptr(*listen), *socket)
		}
		goruntime.SetDefaultGOMAXPROCS()
		linux.MoreFiles() // a container takes six
		// Containers depend on it: neither the terminal that a daemon was started from nor a closed pipe
		// ends it. The signals are caught and not ignored, which containers would inherit.
		signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		return server.Run(ctx, o)
	}
}
