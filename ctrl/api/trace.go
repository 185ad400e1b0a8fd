package api

// TraceRequest describes a packet for POST /v1/trace: a dry run through the
// published tables that sends nothing and keeps no flow.
type TraceRequest struct {
	// Port is the name of the port it arrives on. Empty: that of the pod with
	// address Src.
	Port  string `json:"port,omitempty"`
	Src   string `json:"src"`
	Dst   string `json:"dst"`
	Proto string `json:"proto"` // tcp, udp, sctp, icmp or a number
	Sport uint16 `json:"sport,omitempty"`
	Dport uint16 `json:"dport,omitempty"`
	// TTL is 64 when 0.
	TTL uint8 `json:"ttl,omitempty"`
	TOS uint8 `json:"tos,omitempty"`
	// Length is that of the IP packet; 0 is the headers alone.
	Length int  `json:"length,omitempty"`
	DF     bool `json:"df,omitempty"`
	// Flags are TCP's, as in "syn,ack"; empty is syn.
	Flags string `json:"flags,omitempty"`
}

// TraceResult is what would happen to it.
type TraceResult struct {
	// Packet is the packet as it was parsed, field by field in order.
	Packet []TraceField `json:"packet"`
	Steps  []TraceStep  `json:"steps"`
	// Verdict is forward, deliver, answer or drop.
	Verdict string `json:"verdict"`
	// Reason is the drop reason's name, with verdict drop.
	Reason string `json:"reason,omitempty"`
	// Port is where it would leave, with verdict forward.
	Port string `json:"port,omitempty"`
	// Sent is the packet as it would leave, outermost header first.
	Sent []TraceField `json:"sent,omitempty"`
}

// TraceField is one named value of a packet.
type TraceField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TraceStep is one table that was asked, or one stage that was passed.
type TraceStep struct {
	Step  int    `json:"step"`
	Table string `json:"table"` // spoof, flow, fib, adjacency, ttl, mtu, encap, …
	// Key is what was looked up.
	Key string `json:"key"`
	// Result is what was found and, where it decided, what follows from it.
	Result string `json:"result"`
}
