// Command sampan-lazy shows the files of image layers that are not there yet (core/lazy/server). The
// daemon starts it when it is needed; it is not for people.
package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sampan-project/sampan/core/lazy/server"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "sampan-lazy: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	flags := pflag.NewFlagSet("sampan-lazy", pflag.ContinueOnError)
	socket := flags.String("socket", "", "Path of the socket that is listened on")
	fd := flags.Int("listen-fd", 3, "Descriptor of the listening socket")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	f := os.NewFile(uintptr(*fd), *socket)
	listener, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("--listen-fd %d: %w", *fd, err)
	}
	f.Close()
	// Containers read through this process: it ends when they have.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	return server.Run(listener, *socket, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
