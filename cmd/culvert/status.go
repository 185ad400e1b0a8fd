package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

func (a *app) statusCommand() *cobra.Command {
	var brief bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Whether this node carries pod traffic, and if not, why",
		Long:  "Show the agent's state. Exits with 3 when the agent answers but is not ready.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s api.Status
			if err := a.client().Get(cmd.Context(), "/v1/status", &s); err != nil {
				return err
			}
			table := printStatus
			if brief {
				table = printBrief
			}
			if err := emit(a, cmd, s, table); err != nil {
				return err
			}
			if !s.Ready {
				return &notReadyError{state(&s)}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&brief, "brief", false, "one line, for probes")
	return c
}

// state is "ready", or "not ready" with every reason.
func state(s *api.Status) string {
	if s.Ready {
		return "ready"
	}
	if len(s.Reasons) == 0 {
		return "not ready: starting"
	}
	return "not ready: " + strings.Join(s.Reasons, "; ")
}

func printBrief(w io.Writer, s api.Status) {
	fmt.Fprintf(w, "%s %s\n", s.Node, state(&s))
}

func printStatus(w io.Writer, s api.Status) {
	row := func(key, format string, args ...any) {
		fmt.Fprintf(w, "%-9s %s\n", key, fmt.Sprintf(format, args...))
	}
	row("node", "%s", s.Node)
	row("state", "%s", state(&s))
	for _, d := range s.Degraded {
		row("degraded", "%s", d)
	}
	row("mode", "%s, encap %s, pod mtu %d", s.Mode, s.Encap, s.MTU)
	row("podcidrs", "%s", orNA(strings.Join(s.PodCIDRs, " ")))
	if v := s.VTEP; v != nil {
		row("vtep", "%s", line(pair("lladdr", v.MAC), pair("address", v.Address), pair("local", v.Local),
			pair("id", nonZero(int(v.VNI))), pair("dstport", nonZero(int(v.Port)))))
	}
	for _, u := range s.Uplinks {
		row("uplink", "%s", line(u.Name, u.State, "mtu", strconv.Itoa(u.MTU), "queues", strconv.Itoa(u.Queues),
			pair("xdp", u.XDPMode), merging(u.Merging), strings.Join(u.Addrs, " ")))
	}
	if in := s.Intake; in != nil {
		row("intake", "queues %d lost: ring full %d, no free frame %d", in.Queues, in.RingFull["rx"], in.RingFull["fill"])
	}
	for _, k := range s.Workers {
		row("worker", "%d busy %.0f%% frames %d free of %d, big %d whole %d cut %d merged", k.ID, k.Busy*100,
			k.Frames.Free, k.Frames.Total, k.Big.Whole, k.Big.Cut, k.Big.Merged)
	}
	row("peers", "%d", s.Peers)
	row("pods", "%d", s.Pods)
	row("routes", "%d", s.Routes)
	row("flows", "%d", s.Flows)
	stale := ""
	if s.Stale {
		stale = " (stale: its last version was not taken)"
	}
	row("source", "%s%s", s.Source, stale)
	if len(s.Objects) > 0 {
		row("objects", "%s", objects(s.Objects))
	}
	row("agent", "%s, started %s", orNA(s.Version), s.Started.UTC().Format(time.RFC3339))
}

func nonZero(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// objects says how many there are of each kind, and when the source was last heard of.
func objects(kinds []api.SourceObjects) string {
	var words []string
	var heard time.Time
	for _, k := range kinds {
		words = append(words, fmt.Sprintf("%s %d", k.Kind, k.Objects))
		if k.Heard != nil && k.Heard.After(heard) {
			heard = *k.Heard
		}
	}
	text := strings.Join(words, ", ")
	if !heard.IsZero() {
		text += ", heard " + heard.UTC().Format(time.RFC3339)
	}
	return text
}

// merging is the word for whether the kernel merges an uplink's segments.
func merging(is *bool) string {
	switch {
	case is == nil:
		return ""
	case *is:
		return "merging"
	}
	return "not-merging"
}
