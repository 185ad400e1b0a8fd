package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

// The states of a finding.
const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "fail"
)

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

func (a *app) doctorCommand() *cobra.Command {
	confDir, peers := "", 0
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check the kernel, the limits, the uplinks, other networks, the agent and its peers",
		Long: "Check what Culvert needs of this machine, before it is installed and after. What the kernel can do is\n" +
			"tried, in a network namespace that is gone afterwards; nothing of the node is changed. Without an agent\n" +
			"there are fewer checks; with one, peers are asked for an answer, by the underlay and by the tunnel.\n" +
			"Exits with 1 when a check fails.",
		Example: "  kubectl -n kube-system exec daemonset/culvert -- culvert doctor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m := thisMachine()
			e := a.examine(cmd.Context(), m, confDir)
			all := m.examination(cmd.Context(), e, peers)
			if err := emit(a, cmd, all, printFindings); err != nil {
				return err
			}
			return verdict(all)
		},
	}
	c.Flags().StringVar(&confDir, "cni-conf-dir", "", "the runtime's directory of CNI configurations; default cni.confDir, then /etc/cni/net.d")
	c.Flags().IntVar(&peers, "peers", 16, "number of peers to ask for an answer, 0: none")
	return c
}

// examined is what an agent says of itself; status is nil without one.
type examined struct {
	status  *api.Status
	err     error // why it is nil
	peers   []api.Peer
	confDir string // of the container runtime
	conf    string // name of the file that the agent puts there; empty: none
	ports   string // that pods leave the cluster by, as LOW-HIGH
}

// examine asks the agent.
func (a *app) examine(ctx context.Context, m *machine, confDir string) *examined {
	e, client := &examined{confDir: defaultConfDir, ports: defaultPorts}, a.client()
	var s api.Status
	if e.err = client.Get(ctx, "/v1/status", &s); e.err == nil {
		e.status, m.elsewhere = &s, otherNamespace(client.Socket())
		var config api.ConfigView
		// An agent that says how it is says the rest, or says so at the next command.
		_ = client.Get(ctx, "/v1/peers", &e.peers)
		_ = client.Get(ctx, "/v1/config", &config)
		if ports := setting(&config, "nat.ports"); ports != "" {
			e.ports = ports
		}
		if setting(&config, "nat.outgoing") == "off" {
			e.ports = ""
		}
		if dir := setting(&config, "cni.confDir"); dir != "" {
			e.confDir, e.conf = dir, filepath.Base(setting(&config, "cni.conf"))
		}
	}
	if confDir != "" {
		e.confDir = confDir
	}
	return e
}

// defaultConfDir is the one of containerd and CRI-O.
const defaultConfDir = "/etc/cni/net.d"

// defaultPorts is nat.ports where nobody has written another range.
const defaultPorts = "61000-65535"

// setting is the text of a key of the configuration.
func setting(c *api.ConfigView, key string) string {
	for _, s := range c.Settings {
		if s.Key == key {
			text, _ := s.Value.(string)
			return text
		}
	}
	return ""
}

// examination is every check.
func (m *machine) examination(ctx context.Context, e *examined, peers int) []finding {
	all := append(m.checkKernel(), checkAgent(e.status, e.err)...)
	if s := e.status; s == nil {
		all = append(all, m.checkUplinks(m.defaultUplinks(), "", 0)...)
	} else {
		all = append(all, m.checkUplinks(s.Uplinks, s.Encap, s.MTU)...)
	}
	if m.elsewhere == "" {
		all = append(all, m.checkForwarding(e.status)...)
		all = append(all, m.checkPorts(e.ports)...)
		all = append(all, m.checkDevices(e.status)...)
	}
	all = append(all, m.checkCNI(e)...)
	if e.status != nil && m.elsewhere == "" {
		all = append(all, m.checkPeers(ctx, e.status, e.peers, peers)...)
	}
	return all
}

func printFindings(w io.Writer, all []finding) {
	for _, f := range all {
		fmt.Fprintf(w, "%-4s  %-18s %s\n", f.State, f.Check, f.Found)
		if f.Advice != "" {
			fmt.Fprintf(w, "%25s-> %s\n", "", f.Advice)
		}
	}
}

// verdict is an error when a check failed.
func verdict(all []finding) error {
	failed := 0
	for _, f := range all {
		if f.State == stateFail {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(all))
	}
	return nil
}

func checkAgent(s *api.Status, err error) []finding {
	var down *api.UnavailableError
	switch {
	case errors.As(err, &down):
		return []finding{{"agent", stateWarn, err.Error(), ""}}
	case err != nil:
		return []finding{{"agent", stateFail, err.Error(), "see the log of culvertd"}}
	case !s.Ready:
		return []finding{{"agent", stateFail, state(s), "'culvert status' shows more"}}
	}
	all := []finding{{"agent", stateOK, fmt.Sprintf("%s: ready, version %s", s.Node, orNA(s.Version)), ""}}
	for _, d := range s.Degraded {
		all = append(all, finding{"agent", stateWarn, d, ""})
	}
	return all
}
