// Package drop names every reason for which Culvert discards a frame.
//
// It is the ground floor's only vocabulary: one enum, its stable snake_case
// names (metrics, JSON, captures) and one sentence of advice each. Nothing
// here counts, logs or decides; counters live with the ports in dataplane.
package drop

// Reason says why a frame was discarded. The zero value None means that it was
// not: functions on the packet path return a Reason beside their verdict and
// never an error value.
type Reason uint8

// The reasons, in the order a frame can meet them. Names are part of the
// metrics' surface: add at the end of a group, never rename.
const (
	None Reason = iota

	// Ethernet and IP parsing.
	FrameTooShort
	EthertypeUnsupported
	NotForUs
	IPVersion
	IPv4HeaderInvalid
	IPv4Checksum
	IPv4Options
	IPLength
	IPv6HeaderInvalid
	L4Truncated
	L4Invalid
	MartianSource
	MartianDestination
	Multicast
	IPv6SourceRoute
	L4Checksum

	// Tunnel decapsulation.
	OuterFragment
	TunnelNotOurs
	TunnelTruncated
	VXLANFlags
	VXLANUnknownVNI
	VXLANInnerMAC
	VXLANLoop
	TunnelUnknownPeer
	TunnelECN
	OuterChecksum

	// Forwarding decision.
	SpoofedMAC
	SpoofedSource
	TunnelSourceMismatch
	RoutedSource
	NoRoute
	Blackhole
	Reject
	HostUnreachable
	NeighbourUnresolved
	TTLExceeded
	TooBig
	FlowTableFull
	PortGone
	FlowInvalid
	FlowLimit
	NATExhausted
	NATUntracked
	ICMPUnrelated

	// Fragments, which follow the first of their datagram.
	FragmentTiny
	FragmentLength
	FragmentOversize
	FragmentEnd
	FragmentOverlap
	FragmentDuplicate
	FragmentOrphan
	FragmentTableFull

	// Responders.
	ARPIgnored
	ARPInvalid
	NDIgnored
	ICMPIgnored
	FragmentToNode
	ExceptionBudget

	// Resources and devices.
	NoBuffer
	NoHeadroom
	CannotSegment
	TxRingFull
	TxRefused
	TxLinkDown
	RxRingFull
	RxFillEmpty
	RxTooLong
	RxInvalid
	TxInvalid
	RxShare
	RxFailed

	// A defect of Culvert itself.
	Bug

	// Count is the number of reasons, for arrays indexed by Reason.
	Count
)

type text struct{ name, what, advice string }

var texts = [Count]text{
	None: {"none", "the frame was not dropped", "nothing to do"},

	FrameTooShort:        {"frame_too_short", "the frame ends inside its Ethernet header", "look for a broken sender with 'culvert port' and a capture on that port"},
	EthertypeUnsupported: {"ethertype_unsupported", "the EtherType is neither IPv4, IPv6 nor ARP", "expected for LLDP, STP and the like; nothing else is forwarded between pods"},
	NotForUs:             {"not_for_us", "the destination MAC is not the gateway's", "the pod has a stale neighbour entry for 169.254.1.1, or sends multicast; check 'ip neigh' in the pod"},
	IPVersion:            {"ip_version", "the IP version nibble contradicts the EtherType", "a broken or hostile sender; capture the port"},
	IPv4HeaderInvalid:    {"ipv4_header_invalid", "the IPv4 header length is below 20 bytes or beyond the frame", "a broken or hostile sender; capture the port"},
	IPv4Checksum:         {"ipv4_checksum", "the IPv4 header checksum is wrong (RFC 1812 5.2.2)", "corruption on the way or a broken offload of the sender"},
	IPv4Options:          {"ipv4_options", "the packet carries source routing options (RFC 7126 4.3)", "nothing to do: source-routed packets are refused on purpose"},
	IPLength:             {"ip_length", "the IP length field is larger than the frame or smaller than the header", "a truncating link or a broken sender"},
	IPv6HeaderInvalid:    {"ipv6_header_invalid", "the IPv6 header or an extension header runs past the packet", "a broken or hostile sender; capture the port"},
	L4Truncated:          {"l4_truncated", "the packet ends inside its TCP, UDP, SCTP or ICMP header", "a broken or hostile sender; capture the port"},
	L4Invalid:            {"l4_invalid", "a TCP data offset or UDP length contradicts the packet", "a broken or hostile sender; capture the port"},
	MartianSource:        {"martian_source", "the source address can never be a source (RFC 1812 5.3.7)", "a misconfigured pod; check its addresses"},
	MartianDestination:   {"martian_destination", "the destination address is never routed (0/8, 127/8, 240/4)", "a misconfigured application in the pod"},
	Multicast:            {"multicast", "multicast and broadcast are not forwarded between pods", "expected for mDNS, MLD and DHCP; use unicast"},
	IPv6SourceRoute:      {"ipv6_source_route", "the packet carries a type 0 routing header (RFC 5095 3)", "nothing to do: source-routed packets are refused on purpose"},
	L4Checksum:           {"l4_checksum", "the ICMP checksum of a packet that is to be answered is wrong", "corruption on the way or a broken offload of the sender"},

	OuterFragment:     {"outer_fragment", "a tunnel packet that came in fragments, and that the kernel put together faster than such packets are taken", "the peer's pod MTU is too large for the path: 'culvert peer -o json' says how long its fragments are; lower it there"},
	TunnelNotOurs:     {"tunnel_not_ours", "a tunnel packet for an address or port that is not this node's", "compare 'culvert status' with the peer's forwarding entry"},
	TunnelTruncated:   {"tunnel_truncated", "the packet ends inside its tunnel headers", "a broken or hostile sender on the underlay"},
	VXLANFlags:        {"vxlan_flags", "VXLAN flags other than I, or reserved bits, are set (RFC 7348 5)", "the peer uses GBP or GPE; turn that off"},
	VXLANUnknownVNI:   {"vxlan_unknown_vni", "the VNI is not this node's", "all nodes must share one VNI; compare 'culvert config' on both"},
	VXLANInnerMAC:     {"vxlan_inner_mac", "the inner destination MAC is not this node's VTEP MAC", "the peer's forwarding entry is stale; compare 'culvert status' with the peer's neighbour table"},
	VXLANLoop:         {"vxlan_loop", "the inner source MAC is this node's own VTEP MAC", "two nodes share one VTEP MAC, or a frame looped"},
	TunnelUnknownPeer: {"tunnel_unknown_peer", "the outer source is not a known node", "the node object is missing or has another InternalIP; see 'culvert peer'"},
	TunnelECN:         {"tunnel_ecn", "outer CE on an inner packet that cannot carry ECN (RFC 6040 4.2)", "a congested router marked a tunnel whose inner traffic is not ECN-capable"},

	OuterChecksum: {"outer_checksum", "the outer UDP checksum over IPv6 is missing or wrong (RFC 8200 8.1)", "the peer sends without (udp6zerocsumtx), which Linux refuses as well, or a link corrupts packets"},

	SpoofedMAC:           {"spoofed_mac", "the source MAC is not the pod's", "the pod changed its MAC; only the address the CNI gave may send"},
	SpoofedSource:        {"spoofed_source", "the source address is not the pod's", "the pod sends from an address that the CNI did not give it"},
	RoutedSource:         {"routed_source", "a packet came without a tunnel from an address that is no peer's reached without one", "the peer encapsulates differently (native.encap, native.crossSubnet, an IP pool), or the address is spoofed; see 'culvert route get ADDRESS'"},
	TunnelSourceMismatch: {"tunnel_source_mismatch", "the inner source does not belong to the peer that sent the tunnel packet", "pod CIDRs of two nodes overlap, or an inner address is spoofed"},
	NoRoute:              {"no_route", "no route matches the destination", "see 'culvert route get ADDRESS'"},
	Blackhole:            {"blackhole", "the route is a blackhole", "no pod has this address of the node's own range"},
	Reject:               {"reject", "the route rejects the destination", "see 'culvert route get ADDRESS'"},
	HostUnreachable:      {"host_unreachable", "the destination is the node itself, which has no host port", "the node's own addresses are not reachable from pods in this configuration"},
	NeighbourUnresolved:  {"neighbour_unresolved", "the next hop's MAC address is not known yet", "see 'culvert neigh'; check that the next hop answers ARP"},
	TTLExceeded:          {"ttl_exceeded", "the TTL or hop limit ran out here", "expected for traceroute; otherwise look for a routing loop"},
	TooBig:               {"too_big", "the packet exceeds the path's MTU and may not be fragmented", "the sender got ICMP fragmentation needed; check that it accepts it"},
	FlowTableFull:        {"flow_table_full", "no flow could be evicted to make room for a new one", "raise flows.capacity"},
	PortGone:             {"port_gone", "the egress port was removed while the frame was on its way", "expected while a pod is deleted"},
	FlowInvalid:          {"flow_invalid", "the packet does not belong to its connection: its TCP flags, sequence numbers or SCTP tag do not fit", "late duplicates and forged packets; if connections hang, see whether their packets take another way in one direction"},
	NATExhausted:         {"nat_exhausted", "no port of the node's is left to translate a connection to that destination with", "widen nat.ports, or look for a pod that opens connections without end: see 'culvert flow'"},
	NATUntracked:         {"nat_untracked", "a pod's packet that leaves the cluster can begin no flow by which it would be translated: the end of a connection that is not known, or ICMP other than echo", "expected for a moment after a restart; if connections outside hang when idle, have them send keep-alives"},
	FlowLimit:            {"flow_limit", "the pod that the connection comes from, or for TCP and SCTP from the wire is for, has as many half-open ones as one pod may have, an eighth of flows.capacity", "the pod scans or floods: see 'culvert flow --state SYN_SENT'; otherwise raise flows.capacity"},
	ICMPUnrelated:        {"icmp_unrelated", "an ICMP error that quotes no packet of a known connection", "late or forged errors; expected for a moment after a restart"},

	FragmentTiny:      {"fragment_tiny", "a first fragment ends inside its transport header, or another begins inside the TCP header (RFC 1858, RFC 3128, RFC 7112)", "nobody but an attacker makes such fragments; capture the port"},
	FragmentLength:    {"fragment_length", "a fragment is empty, or not the last and no multiple of 8 bytes long (RFC 791 3.2, RFC 8200 4.5)", "a broken or hostile sender; capture the port"},
	FragmentOversize:  {"fragment_oversize", "the fragment ends beyond the 65,535 bytes of the longest packet: the ping of death", "a hostile sender; capture the port"},
	FragmentEnd:       {"fragment_end", "the fragments of a datagram do not agree on where it ends", "a broken or hostile sender, or one that uses identifications again too soon; capture the port"},
	FragmentOverlap:   {"fragment_overlap", "fragments of a datagram overlap: what is left of it is dropped (RFC 5722)", "a hostile sender, or one that uses identifications again too soon; capture the port"},
	FragmentDuplicate: {"fragment_duplicate", "a fragment brings only bytes that other fragments of its datagram have brought before", "the network duplicates packets, or the sender uses identifications again too soon"},
	FragmentOrphan:    {"fragment_orphan", "the first fragment of the datagram, which has the ports, did not come within 30 seconds (IPv6: 60)", "fragments get lost on the way, or those of one datagram arrive at different queues of a NIC; lower the sender's MTU"},
	FragmentTableFull: {"fragment_table_full", "too many datagrams are in fragments at once, or too many fragments came before the first of their datagram", "a flood of fragments; see 'culvert drops' for the port that it comes by"},

	ARPIgnored:      {"arp_ignored", "an ARP packet that is no request for an address behind the gateway", "expected for gratuitous ARP"},
	ARPInvalid:      {"arp_invalid", "an ARP packet with wrong lengths or a forged sender", "a broken or hostile sender; capture the port"},
	NDIgnored:       {"nd_ignored", "a neighbour discovery packet that needs no answer", "expected for duplicate address detection and router solicitations"},
	ICMPIgnored:     {"icmp_ignored", "an ICMP packet for the gateway that is no echo request", "nothing to do"},
	FragmentToNode:  {"fragment_to_node", "a fragment for the gateway or the node itself, which do not put fragments together", "send the node packets that fit the pod's MTU"},
	ExceptionBudget: {"exception_budget", "more ARP, ND and ICMP work arrived in one burst than is answered", "a pod floods the gateway; see 'culvert port' for which"},

	NoBuffer:      {"no_buffer", "the worker has no free frame", "raise xdp.ringSize or lower the number of pods a worker serves"},
	NoHeadroom:    {"no_headroom", "the frame has no room in front for the headers to push", "report this: every frame should have it"},
	CannotSegment: {"cannot_segment", "a big frame that cannot be cut into packets of the egress port's size", "the pod wrote such a frame itself, by a packet socket; capture the port"},
	TxRingFull:    {"tx_ring_full", "the egress port's transmit ring is full", "the receiver is slower than the sender"},
	TxRefused:     {"tx_refused", "the kernel took the frame and dropped it at the egress device", "the receiver's queue is full or its link has no carrier"},
	TxLinkDown:    {"tx_link_down", "the egress device is down", "bring the device up"},
	RxRingFull:    {"rx_ring_full", "the kernel found the receive ring full", "the worker is overloaded; give it a core or raise xdp.ringSize"},
	RxFillEmpty:   {"rx_fill_empty", "the kernel found no free frame in the fill ring", "raise xdp.ringSize"},
	RxTooLong:     {"rx_too_long", "the frame is longer than the receive buffers can hold", "the sender's GSO frames have more pieces than 64 KB take; report it with the sender's kernel"},
	RxInvalid:     {"rx_invalid", "the kernel handed over a buffer that was not the port's", "report this: it is a defect of Culvert or of the kernel"},
	TxInvalid:     {"tx_invalid", "the kernel would not accept the frame as Culvert built it", "report this: it is a defect of Culvert"},
	RxShare:       {"rx_share", "the port had its share of the receive queue that all pods use, and the worker was behind", "the pod floods, and costs others nothing; if it shall go faster, give culvertd more workers"},
	RxFailed:      {"rx_failed", "the steering program could not hand the frame to a worker", "expected while a port comes or goes; otherwise the kernel is out of memory"},

	Bug: {"bug", "Culvert failed while handling the frame; the frame was dropped and kept for the report", "report it with the log line that shows the frame"},
}

// String returns the stable snake_case name.
func (r Reason) String() string {
	if r >= Count {
		return "unknown"
	}
	return texts[r].name
}

// What says in one sentence what happened.
func (r Reason) What() string {
	if r >= Count {
		return ""
	}
	return texts[r].what
}

// Advice tells the operator what to do about it.
func (r Reason) Advice() string {
	if r >= Count {
		return ""
	}
	return texts[r].advice
}

// ByName finds a reason by its stable name.
func ByName(name string) (Reason, bool) {
	for r := range Count {
		if texts[r].name == name {
			return r, true
		}
	}
	return None, false
}

// All returns every reason but None, in order.
func All() []Reason {
	all := make([]Reason, 0, Count-1)
	for r := None + 1; r < Count; r++ {
		all = append(all, r)
	}
	return all
}
