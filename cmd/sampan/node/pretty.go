package node

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"github.com/sampan-project/sampan/cmd/sampan/cli"
	"github.com/sampan-project/sampan/cmd/sampan/task"
	"github.com/sampan-project/sampan/core/wire"
)

// printPretty prints nodes for people, until the first that cannot be had.
func printPretty(out *cli.Out, refs []string, get func(ref string) (json.RawMessage, error)) error {
	var b bytes.Buffer
	for _, ref := range refs {
		raw, err := get(ref)
		if err != nil {
			return err
		}
		var n wire.Node
		if err := json.Unmarshal(raw, &n); err != nil {
			return fmt.Errorf("decode the node: %w", err)
		}
		pretty(&b, &n)
	}
	_, err := fmt.Fprint(out, cli.Printable(b.String()))
	return err
}

// pretty writes a node with Docker's words, tabs and spaces.
func pretty(b *bytes.Buffer, n *wire.Node) {
	line := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	line("ID:\t\t\t%s", n.ID)
	if n.Spec.Name != "" {
		line("Name:\t\t\t%s", n.Spec.Name)
	}
	writeLabels(b, "Labels:", n.Spec.Labels)
	line("Hostname:              \t%s", n.Description.Hostname)
	line("Joined at:             \t%s", task.State(n.CreatedAt.String()))
	line("Status:")
	line(" State:\t\t\t%s", task.State(n.Status.State))
	if n.Status.Message != "" {
		line(" Message:              \t%s", task.State(n.Status.Message))
	}
	line(" Availability:         \t%s", task.State(n.Spec.Availability))
	if n.Status.Addr != "" {
		line(" Address:\t\t%s", n.Status.Addr)
	}
	if m := n.ManagerStatus; m != nil {
		leader := "No"
		if m.Leader {
			leader = "Yes"
		}
		line("Manager Status:")
		line(" Address:\t\t%s", m.Addr)
		line(" Raft Status:\t\t%s", task.State(m.Reachability))
		line(" Leader:\t\t%s", leader)
	}
	line("Platform:")
	line(" Operating System:\t%s", n.Description.Platform.OS)
	line(" Architecture:\t\t%s", n.Description.Platform.Architecture)
	line("Resources:")
	line(" CPUs:\t\t\t%d", n.Description.Resources.NanoCPUs/1e9)
	memory := ""
	if bytes := n.Description.Resources.MemoryBytes; bytes != 0 {
		memory = units.BytesSize(float64(bytes))
	}
	line(" Memory:\t\t%s", memory)
	writePlugins(b, n.Description.Engine.Plugins)
	line("Engine Version:\t\t%s", n.Description.Engine.EngineVersion)
	writeLabels(b, "Engine Labels:", n.Description.Engine.Labels)
	if t := n.Description.TLSInfo; t.TrustRoot != "" || len(t.CertIssuerSubject) > 0 || len(t.CertIssuerPublicKey) > 0 {
		line("TLS Info:")
		line(" TrustRoot:\n%s", t.TrustRoot)
		line(" Issuer Subject:\t%s", base64.StdEncoding.EncodeToString(t.CertIssuerSubject))
		line(" Issuer Public Key:\t%s", base64.StdEncoding.EncodeToString(t.CertIssuerPublicKey))
	}
}

func writeLabels(b *bytes.Buffer, title string, labels map[string]string) {
	if len(labels) == 0 {
		return
	}
	fmt.Fprintln(b, title)
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		text := name
		if value := labels[name]; value != "" {
			text += "=" + value
		}
		fmt.Fprintln(b, " - "+text)
	}
}

// writePlugins lists the drivers by their kinds.
func writePlugins(b *bytes.Buffer, plugins []wire.NodePlugin) {
	byType := map[string][]string{}
	for _, p := range plugins {
		byType[p.Type] = append(byType[p.Type], p.Name)
	}
	if len(byType) > 0 {
		fmt.Fprintln(b, "Plugins:")
	}
	for _, kind := range slices.Sorted(maps.Keys(byType)) {
		fmt.Fprintf(b, " %s:\t\t%s\n", kind, strings.Join(byType[kind], ", "))
	}
}
