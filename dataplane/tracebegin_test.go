package dataplane

import (
	"slices"
	"testing"

	"culvert/internal/drop"
	kit "culvert/internal/pkttest"
)

// A trace says of what belongs to no flow, and of ICMP errors, what then happens to it.
func TestTraceOfWhatBelongsToNoFlow(t *testing.T) {
	answer := func(t *testing.T, sport uint16, n int) kit.Layer { // what pod a quotes has come from b
		return kit.Bytes(kit.Frame(t, kit.Eth(gwMAC, macA), kit.IP4(ipB, ipA), kit.TCP(80, sport, kit.Flags("A"), kit.Seq(5000), kit.Ack(1001)))[14 : 14+n]...)
	}
	for name, c := range map[string]struct {
		frame func(t *testing.T) []byte
		want  drop.Reason
		table string // the step that says so
	}{
		"SYN":          {func(t *testing.T) []byte { return other(t, "S") }, drop.None, "begin"},
		"reset":        {func(t *testing.T) []byte { return other(t, "R") }, drop.None, "begin"},
		"no flags":     {func(t *testing.T) []byte { return other(t, "") }, drop.FlowInvalid, "begin"},
		"SYN and FIN":  {func(t *testing.T) []byte { return other(t, "SF") }, drop.FlowInvalid, "begin"},
		"of a flow":    {func(t *testing.T) []byte { return toB(t, "A", 1101, 5001, 0) }, drop.None, "flow"},
		"an error":     {func(t *testing.T) []byte { return errorToB(t, answer(t, 4711, 40)) }, drop.None, "related"},
		"of no flow":   {func(t *testing.T) []byte { return errorToB(t, answer(t, 4712, 40)) }, drop.ICMPUnrelated, "related"},
		"quotes short": {func(t *testing.T) []byte { return errorToB(t, answer(t, 4711, 20)) }, drop.ICMPUnrelated, "related"},
	} {
		t.Run(name, func(t *testing.T) {
			n := opened(t)
			trace, err := n.e.Trace("cva", c.frame(t))
			if err != nil || trace.Reason != c.want || (trace.Verdict == "drop") != (c.want != drop.None) {
				t.Fatalf("traced to %s %s, %v; want %s\n%+v", trace.Verdict, trace.Reason, err, c.want, trace.Steps)
			}
			if !slices.ContainsFunc(trace.Steps, func(s TraceStep) bool { return s.Table == c.table }) {
				t.Errorf("no step %s: %+v", c.table, trace.Steps)
			}
			if n.e.FlowTable().Len() != 1 {
				t.Error("the trace has made a flow")
			}
			sent := n.fromPod("a", c.frame(t))
			if c.want == drop.None {
				one(t, sent)
				n.wantDrops(drop.None, 0)
				return
			}
			n.wantDrops(c.want, 1)
		})
	}
}

// other is a segment of pod a that belongs to no flow.
func other(t *testing.T, flags string) []byte {
	t.Helper()
	return kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.TCP(999, 80, kit.Flags(flags)))
}

// errorToB is an ICMP error of pod a to pod b.
func errorToB(t *testing.T, quote kit.Layer) []byte {
	t.Helper()
	return kit.Frame(t, kit.Eth(macA, gwMAC), kit.IP4(ipA, ipB), kit.ICMP4(3, 3, 0, 0), quote)
}
