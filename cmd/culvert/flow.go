package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

// flowProtocols are offered by completion; the filter takes numbers, too.
var flowProtocols = []string{"tcp", "udp", "sctp", "icmp", "icmpv6"}

func (a *app) flowCommand() *cobra.Command {
	var filter api.FlowFilter
	c := &cobra.Command{
		Use:   "flow",
		Short: "The connections, as 'conntrack -L' prints them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flows, err := a.flows(cmd, &filter)
			if err != nil {
				return err
			}
			if err := emit(a, cmd, flows, printFlows); err != nil {
				return err
			}
			if !a.json() {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d flow entries have been shown.\n", len(flows))
			}
			return nil
		},
	}
	filterFlags(c, &filter)
	c.AddCommand(a.flowFlushCommand(), a.flowWatchCommand())
	return c
}

func (a *app) flows(cmd *cobra.Command, filter *api.FlowFilter) ([]api.Flow, error) {
	path := "/v1/flows"
	if q := filter.Query(); len(q) > 0 {
		path += "?" + q.Encode()
	}
	flows := []api.Flow{}
	err := a.client().Get(cmd.Context(), path, &flows)
	return flows, err
}

func (a *app) flowFlushCommand() *cobra.Command {
	var filter api.FlowFilter
	c := &cobra.Command{
		Use:   "flush",
		Short: "Forget the flows that match, all without a filter",
		Long: "Forget the flows that match. A connection that goes on is picked up again with its\n" +
			"next packet, under the policy and routes of that moment.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done api.Flushed
			if err := a.client().Post(cmd.Context(), "/v1/flows/flush", &filter, &done); err != nil {
				return err
			}
			return emit(a, cmd, done, func(w io.Writer, done api.Flushed) {
				fmt.Fprintf(w, "%d flow entries have been deleted.\n", done.Flushed)
			})
		},
	}
	filterFlags(c, &filter)
	return c
}

func filterFlags(c *cobra.Command, filter *api.FlowFilter) {
	f := c.Flags()
	f.VarP(&parsedFlag{&filter.Proto, api.ParseProto}, "proto", "p", "protocol: tcp, udp, sctp, icmp, icmpv6, or a number")
	f.Var(&parsedFlag{&filter.State, api.ParseFlowState}, "state", "state, as in ESTABLISHED")
	f.VarP((*prefixFlag)(&filter.Src), "src", "s", "original source")
	f.VarP((*prefixFlag)(&filter.Dst), "dst", "d", "original destination")
	f.Var((*prefixFlag)(&filter.Addr), "addr", "either end, in either direction")
	f.Uint16Var(&filter.Sport, "sport", 0, "original source port")
	f.Uint16Var(&filter.Dport, "dport", 0, "original destination port")
	completeEnum(c, "proto", flowProtocols)
	completeEnum(c, "state", api.FlowStates())
}

// parsedFlag is text that must make sense.
type parsedFlag struct {
	value *string
	parse func(string) (string, error)
}

func (p *parsedFlag) Type() string   { return "string" }
func (p *parsedFlag) String() string { return *p.value }

func (p *parsedFlag) Set(s string) (err error) {
	*p.value, err = p.parse(s)
	return err
}

// protocolNumbers is the second column of conntrack's lines.
var protocolNumbers = map[string]int{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}

func printFlows(w io.Writer, flows []api.Flow) {
	for i := range flows {
		fmt.Fprintln(w, flowLine(&flows[i]))
	}
}

// flowLine is one line of conntrack -L with accounting on.
func flowLine(f *api.Flow) string {
	number, known := protocolNumbers[f.Proto]
	name := f.Proto
	if n, err := strconv.Atoi(f.Proto); err == nil && !known {
		name, number = "unknown", n
	}
	state, unreplied, assured, zone := "", "", "", ""
	if f.Proto == "tcp" || f.Proto == "sctp" {
		state = f.State
	}
	if f.Unreplied {
		unreplied = "[UNREPLIED]"
	}
	if f.Assured {
		assured = "[ASSURED]"
	}
	if f.Zone != 0 {
		zone = fmt.Sprintf("zone=%d", f.Zone)
	}
	orig := api.Tuple{Src: f.Src, Dst: f.Dst, Sport: f.Sport, Dport: f.Dport,
		Packets: f.Packets - f.Reply.Packets, Bytes: f.Bytes - f.Reply.Bytes}
	return line(fmt.Sprintf("%-8s %d %d", name, number, f.Timeout), state,
		tupleText(f.Proto, &orig, false), unreplied, tupleText(f.Proto, &f.Reply, true), assured, zone)
}

// tupleText is one direction. ICMP has a type and an identifier for ports.
func tupleText(proto string, t *api.Tuple, reply bool) string {
	ports := fmt.Sprintf("sport=%d dport=%d", t.Sport, t.Dport)
	switch proto {
	case "icmp":
		ports = fmt.Sprintf("type=%d code=0 id=%d", pick(reply, 0, 8), t.Sport)
	case "icmpv6":
		ports = fmt.Sprintf("type=%d code=0 id=%d", pick(reply, 129, 128), t.Sport)
	case "tcp", "udp", "sctp":
	default:
		ports = ""
	}
	return line(fmt.Sprintf("src=%s dst=%s", t.Src, t.Dst), ports, fmt.Sprintf("packets=%d bytes=%d", t.Packets, t.Bytes))
}

func pick(second bool, yes, no int) int {
	if second {
		return yes
	}
	return no
}
