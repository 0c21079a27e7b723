package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sampan-project/sampan/cmd/sampan-registry/access"
	"github.com/sampan-project/sampan/cmd/sampan-registry/mirror"
	"github.com/sampan-project/sampan/cmd/sampan-registry/server"
	"github.com/sampan-project/sampan/cmd/sampan-registry/store"
	"github.com/sampan-project/sampan/cmd/sampan/registry"
	"github.com/sampan-project/sampan/core/fault"
	"github.com/sampan-project/sampan/core/metric"
)

const (
	// farewell is how long requests in progress may go on after the signal to end.
	farewell = 30 * time.Second
	// grace spares from the collection while serving what pushes have brought that are not complete.
	grace = time.Hour
	// tidying is how often uploads are looked through for those that nobody goes on with, and a cache for what is old.
	tidying = 10 * time.Minute
)

// serve is the life of a registry, until the context ends.
func serve(ctx context.Context, o *registry.Serve) error {
	if err := check(o); err != nil {
		return err
	}
	logger, err := newLogger(o.LogLevel)
	if err != nil {
		return err
	}
	s, err := store.Open(o.Root)
	if err != nil {
		return err
	}
	defer s.Close()
	numbers := metric.NewRegistry()
	options, err := newOptions(s, o, logger, numbers)
	if err != nil {
		return err
	}
	certificate, err := loadCertificate(o)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fault.New(fault.Unavailable, "listen %q: %w", o.Listen, err)
	}
	h := site{Server: newHTTP(server.New(s, options), logger)}
	h.ConnState = h.silent.watch
	scheme := "http"
	if certificate != nil {
		scheme = "https"
		h.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*certificate}}
	} else if address, ok := listener.Addr().(*net.TCPAddr); o.Users != "" && ok && !address.IP.IsLoopback() {
		logger.Warn("passwords go over the network in the clear: see --tls-cert and --tls-self-signed", "listen", o.Listen)
	}
	stopMetrics, err := serveMetrics(o.Metrics, numbers, logger)
	if err != nil {
		listener.Close()
		return err
	}
	defer stopMetrics()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tidied := make(chan struct{})
	go func() { defer close(tidied); tidy(ctx, s, o, logger) }()
	defer func() { cancel(); <-tidied }()

	ended := make(chan error, 1)
	go func() {
		if certificate != nil {
			ended <- h.ServeTLS(listener, "", "")
		} else {
			ended <- h.Serve(listener)
		}
	}()
	fmt.Printf("%s://%s\n", scheme, listener.Addr())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	h.silent.close()
	last, release := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer release()
	if err := h.Shutdown(last); err != nil {
		return errors.Join(h.Close(), fault.New(fault.Unavailable, "requests were cut off after %v", farewell))
	}
	return nil
}

// site is the server with the connections on which nothing has been said yet. Clients open some in advance, and a
// shutdown would wait for them for seconds.
type site struct {
	*http.Server
	silent silent
}

type silent struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (s *silent) watch(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[net.Conn]bool{}
	}
	if state == http.StateNew {
		s.conns[conn] = true
	} else {
		delete(s.conns, conn)
	}
}

func (s *silent) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}

// check refuses options that do not go together.
func check(o *registry.Serve) error {
	switch {
	case (o.TLSCert == "") != (o.TLSKey == ""):
		return fault.New(fault.Invalid, "--tls-cert and --tls-key: expected both or none")
	case o.SelfSigned && o.TLSCert != "":
		return fault.New(fault.Invalid, "conflicting options: --tls-self-signed and --tls-cert")
	case o.Proxy == "" && (o.ProxyUser != "" || o.ProxyPasswordFile != ""):
		return fault.New(fault.Invalid, "--proxy-username and --proxy-password-file: expected --proxy with them")
	case (o.ProxyUser == "") != (o.ProxyPasswordFile == ""):
		return fault.New(fault.Invalid, "--proxy-username and --proxy-password-file: expected both or none")
	case o.Proxy != "" && o.ReadOnly:
		return fault.New(fault.Invalid, "conflicting options: --proxy and --read-only: a cache keeps what it fetches, and takes no pushes")
	case o.CollectEvery < 0:
		return &fault.Field{Field: "gc-interval", Given: o.CollectEvery.String(), Expected: "a time such as 24h, or 0"}
	case o.ProxyTTL < 0:
		return &fault.Field{Field: "proxy-ttl", Given: o.ProxyTTL.String(), Expected: "a time such as 168h, or 0"}
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		return &fault.Field{Field: "listen", Given: o.Listen, Expected: "HOST:PORT such as 127.0.0.1:5000"}
	}
	return nil
}

func newLogger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, &fault.Field{Field: "log-level", Given: level, Expected: "debug, info, warn or error"}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}

func newOptions(s *store.Store, o *registry.Serve, logger *slog.Logger, numbers *metric.Registry) (server.Options, error) {
	options := server.Options{ReadOnly: o.ReadOnly, NoDelete: !o.Delete, Log: logger}
	if o.Users != "" {
		users, err := access.Open(o.Users)
		if err != nil {
			return options, err
		}
		options.Access = users
	}
	if o.Proxy == "" {
		return options, nil
	}
	from := mirror.Options{URL: o.Proxy, Username: o.ProxyUser, Log: logger, Metrics: numbers}
	if o.ProxyPasswordFile != "" {
		password, err := readFile(o.ProxyPasswordFile, maxPassword)
		if err != nil {
			return options, err
		}
		from.Password = strings.TrimRight(password, "\r\n")
	}
	cache, err := mirror.New(s, from)
	if err != nil {
		return options, err
	}
	options.Cache = cache
	return options, nil
}

func readFile(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return string(data), err
}

func newHTTP(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(lines{logger}, "", 0),
	}
}

// lines gives what net/http has to say, such as that a client's handshake failed, to the log.
type lines struct{ logger *slog.Logger }

func (l lines) Write(p []byte) (int, error) {
	l.logger.Info(strings.TrimSpace(string(p)))
	return len(p), nil
}

// serveMetrics answers /metrics at an address of its own, so that who may read the numbers is decided apart.
func serveMetrics(address string, numbers *metric.Registry, logger *slog.Logger) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "metrics %q: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metric.ContentType)
		_ = numbers.Write(w) // who asked is gone
	})
	h := newHTTP(mux, logger)
	go func() {
		if err := h.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics", "error", err)
		}
	}()
	return func() { _ = h.Close() }, nil
}

// tidy collects while the registry serves.
func tidy(ctx context.Context, s *store.Store, o *registry.Serve, logger *slog.Logger) {
	ticks := time.NewTicker(tidying)
	if o.CollectEvery > 0 {
		ticks.Reset(min(tidying, o.CollectEvery))
	}
	defer ticks.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		s.Tidy()
		c := store.Collection{Grace: grace}
		if o.Proxy != "" && o.ProxyTTL > 0 {
			c.Older = time.Now().Add(-o.ProxyTTL)
		}
		if c.Older.IsZero() && (o.CollectEvery <= 0 || time.Since(last) < o.CollectEvery) {
			continue
		}
		last = time.Now()
		done, err := s.Collect(c)
		logger.Info("garbage", "manifests", done.Manifests, "blobs", done.Blobs, "bytes", done.Bytes, "duration", time.Since(last).Round(time.Millisecond))
		if err != nil {
			logger.Error("garbage", "error", err)
		}
	}
}

// loadCertificate returns the one to serve with, or nil for plain HTTP.
func loadCertificate(o *registry.Serve) (*tls.Certificate, error) {
	cert, key := o.TLSCert, o.TLSKey
	if o.SelfSigned {
		cert, key = filepath.Join(o.Root, "tls", "cert.pem"), filepath.Join(o.Root, "tls", "key.pem")
		if err := ensureCertificate(cert, key, o.Listen, time.Now()); err != nil {
			return nil, err
		}
	}
	if cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--tls-cert %q, --tls-key %q: %w", cert, key, err)
	}
	return &pair, nil
}
