// Package sdk is what the author of a Sampan plugin imports: one Serve call in main, and the
// interface of the kind.
//
//	func main() {
//		sdk.ServeNetwork[options](sdk.Info{Name: "bridge", Version: "1.0", Doc: "…"}, driver{})
//	}
//
// The program is called sampan-KIND-NAME, lies in a plugin directory and is started by the engine
// when it is first needed; it dies with the engine. Options come as a tagged struct ([Schema]), errors
// as [Errorf] and [FieldError]; what log/slog's default logger is told ends in the engine's log. Package plugintest tests a driver over a real connection.
//
// What the author need not do: the handshake, TLS, checking the values that come in, filling in
// defaults, refusing unknown options, catching panics.
package sdk

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sampan-project/sampan/proto"
	networkv1 "github.com/sampan-project/sampan/proto/sampan/network/v1"
	pluginv1 "github.com/sampan-project/sampan/proto/sampan/plugin/v1"
)

// Info says what a plugin is.
type Info struct {
	Name         string // the part NAME of the program's name
	Version      string // of the plugin itself, for people
	Doc          string // one sentence
	Capabilities []string
}

// ServeNetwork serves a network driver, and returns when the engine ends the plugin. A mistake in
// the tags of the options ends the program with a message.
func ServeNetwork[O any](info Info, d NetworkDriver[O]) {
	schema, err := SchemaOf(new(O))
	if err != nil {
		fail("%s: %v", info.Name, err)
	}
	base := &baseServer{kind: "network", info: info, schema: schema, health: d.Health}
	serve(base, func(s *grpc.Server) {
		networkv1.RegisterNetworkDriverServer(s, &networkServer[O]{driver: d, schema: schema})
	})
}

func serve(base *baseServer, register func(*grpc.Server)) {
	if os.Getenv(proto.CookieKey) != proto.CookieValue {
		byHand(base)
	}
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: os.Stderr, JSONFormat: true})
	slog.SetDefault(slog.New(&logHandler{logger: logger}))
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: proto.Version, MagicCookieKey: proto.CookieKey, MagicCookieValue: proto.CookieValue,
		},
		VersionedPlugins: map[int]goplugin.PluginSet{proto.Version: {proto.Service: &service{base: base, register: register}}},
		Logger:           logger,
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(o,
				grpc.MaxRecvMsgSize(proto.MaxMessage), grpc.MaxSendMsgSize(proto.MaxMessage),
				grpc.UnaryInterceptor(guard))...)
		},
	})
}

// byHand is for the person who runs the plugin in a shell: describe says what it takes.
func byHand(b *baseServer) {
	program := filepath.Base(os.Args[0])
	if len(os.Args) > 1 && os.Args[1] == "describe" {
		fmt.Printf("%s driver %q, version %s: %s\n", b.kind, b.info.Name, b.info.Version, b.info.Doc)
		for _, o := range b.schema.options {
			a := o.attribute
			fmt.Printf("  %-22s %-8s %-10s %s", a.Name, a.Type, a.Default, a.Doc)
			if len(a.Aliases) > 0 {
				fmt.Printf(" Also: %s.", strings.Join(a.Aliases, ", "))
			}
			fmt.Println()
		}
		os.Exit(0)
	}
	fail("%s is a plugin of sampan: put it into a plugin directory of sampand as %s%s-%s, or run `%s describe`",
		program, proto.Prefix, b.kind, b.info.Name, program)
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// guard turns panics and errors of a driver into statuses: a bug fails one call.
func guard(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("panic in a driver", "call", info.FullMethod, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = status.Errorf(codes.Internal, "panic in %s: %v", info.FullMethod, p)
		}
	}()
	resp, err = handler(ctx, req)
	return resp, toStatus(err)
}

// service is the plugin as go-plugin knows it.
type service struct {
	goplugin.NetRPCUnsupportedPlugin
	base     *baseServer
	register func(*grpc.Server)
}

// GRPCServer registers the base service and that of the kind.
func (s *service) GRPCServer(_ *goplugin.GRPCBroker, server *grpc.Server) error {
	pluginv1.RegisterPluginServer(server, s.base)
	s.register(server)
	return nil
}

// GRPCClient is not for this side.
func (s *service) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("the SDK is the side of the plugin")
}

type baseServer struct {
	pluginv1.UnimplementedPluginServer
	kind   string
	info   Info
	schema *Schema
	health func(context.Context) error
}

func (b *baseServer) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	return &pluginv1.DescribeResponse{
		Kind: b.kind, Name: b.info.Name, Version: b.info.Version, Doc: b.info.Doc,
		Schema: b.schema.Proto(), Capabilities: b.info.Capabilities,
	}, nil
}

func (b *baseServer) Health(ctx context.Context, _ *pluginv1.HealthRequest) (*pluginv1.HealthResponse, error) {
	if err := b.health(ctx); err != nil {
		return &pluginv1.HealthResponse{Reason: err.Error()}, nil //nolint:nilerr // that it is not healthy is the answer
	}
	return &pluginv1.HealthResponse{Healthy: true}, nil
}
