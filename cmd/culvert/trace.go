package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
	"culvert/internal/drop"
)

func (a *app) traceCommand() *cobra.Command {
	var req api.TraceRequest
	c := &cobra.Command{
		Use:   "trace",
		Short: "What would happen to a packet, table by table",
		Long: "Run a described packet through the tables in force, without sending anything or\n" +
			"keeping a flow. Without --port it comes from the pod that has the source address.",
		Example: "  culvert trace --src 10.244.1.2 --dst 10.244.2.3 --proto tcp --dport 80\n" +
			"  culvert trace --src 10.244.1.2 --dst 10.244.2.3 --proto icmp --length 1500 --df",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var res api.TraceResult
			if err := a.client().Post(cmd.Context(), "/v1/trace", &req, &res); err != nil {
				return err
			}
			return emit(a, cmd, res, printTrace)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Port, "port", "", "port the packet arrives on")
	f.StringVarP(&req.Src, "src", "s", "", "source address")
	f.StringVarP(&req.Dst, "dst", "d", "", "destination address")
	f.StringVarP(&req.Proto, "proto", "p", "icmp", "protocol: tcp, udp, sctp, icmp, or a number")
	f.Uint16Var(&req.Sport, "sport", 0, "source port, or the identifier of ICMP echo")
	f.Uint16Var(&req.Dport, "dport", 0, "destination port")
	f.Uint8Var(&req.TTL, "ttl", 64, "time to live")
	f.Uint8Var(&req.TOS, "tos", 0, "type of service, ECN included")
	f.IntVar(&req.Length, "length", 0, "length of the IP packet; 0 is its headers alone")
	f.BoolVar(&req.DF, "df", false, "don't fragment")
	f.StringVar(&req.Flags, "tcp-flags", "", "TCP flags as in syn,ack; default syn")
	completeEnum(c, "proto", flowProtocols)
	for _, name := range []string{"src", "dst"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flag does not exist: a mistake in this package
		}
	}
	return c
}

func printTrace(w io.Writer, r api.TraceResult) {
	fmt.Fprintf(w, "packet: %s\n\n", fields(r.Packet))
	for _, s := range r.Steps {
		fmt.Fprintf(w, "%2d. %s: %s\n    %s\n", s.Step, s.Table, orNA(s.Key), s.Result)
	}
	fmt.Fprintf(w, "\nverdict: %s\n", line(r.Verdict, pair("to", r.Port), r.Reason))
	if reason, ok := drop.ByName(r.Reason); ok && r.Reason != "" {
		fmt.Fprintf(w, "reason: %s\nadvice: %s\n", reason.What(), reason.Advice())
	}
	if len(r.Sent) > 0 {
		fmt.Fprintf(w, "sent: %s\n", fields(r.Sent))
	}
}

func fields(all []api.TraceField) string {
	words := make([]string, len(all))
	for i, f := range all {
		words[i] = f.Name + "=" + f.Value
	}
	return strings.Join(words, ",")
}
