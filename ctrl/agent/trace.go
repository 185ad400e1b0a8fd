package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"culvert/ctrl/api"
	"culvert/dataplane"
	"culvert/internal/packet"
)

// CNI implements apiserver.Backend. Before the pods of before are known, a DEL
// would find nothing to undo and an ADD might take what is somebody's.
func (a *Agent) CNI(ctx context.Context, req api.CNIRequest) api.CNIResponse {
	if !a.isRestored() {
		code := api.CNITryAgain
		if req.Command == api.CNIStatus {
			code = api.CNINotAvailable
		}
		return api.CNIResponse{Code: code, Msg: "culvertd is not ready for pods yet", Details: errRestoring.Error()}
	}
	return a.pods.CNI(ctx, req)
}

// Trace implements apiserver.Backend: it builds the packet that req describes
// and asks the dataplane what would become of it.
func (a *Agent) Trace(req api.TraceRequest) (api.TraceResult, error) {
	from, err := a.traceSource(&req)
	if err != nil {
		return api.TraceResult{}, err
	}
	f, err := traceFrame(&req, from)
	if err != nil {
		return api.TraceResult{}, api.Invalid("%v", err)
	}
	t, err := a.engine.Trace(from.Name, f)
	if err != nil {
		return api.TraceResult{}, api.Invalid("%v", err)
	}
	out := api.TraceResult{Verdict: t.Verdict, Port: t.Port, Packet: packetFields(&t.Info, from.Name), Steps: []api.TraceStep{}}
	for i, s := range t.Steps {
		out.Steps = append(out.Steps, api.TraceStep{Step: i + 1, Table: s.Table, Key: s.Key, Result: s.Result})
	}
	if t.Verdict == "drop" {
		out.Reason = t.Reason.String()
	}
	if t.Verdict == "forward" {
		out.Sent = sentFields(t.Header, &t.Info)
	}
	return out, nil
}

// traceSource finds the port that the packet arrives on.
func (a *Agent) traceSource(req *api.TraceRequest) (dataplane.PortSpec, error) {
	src, err := netip.ParseAddr(req.Src)
	if err != nil {
		return dataplane.PortSpec{}, api.Invalid("src: %q is no IP address", req.Src)
	}
	if req.Port != "" {
		spec, ok := a.podPortNamed(req.Port)
		if !ok {
			return spec, api.NotFound("there is no pod port %s: 'culvert pod' lists them", req.Port)
		}
		return spec, nil
	}
	for _, p := range a.engine.Ports() {
		for _, addr := range p.Spec.Addrs {
			if addr == src.Unmap() {
				return p.Spec, nil
			}
		}
	}
	return dataplane.PortSpec{}, api.NotFound("no pod of this node has the address %s: give the port that the packet arrives on", src)
}

// traceFrame builds the frame as the pod would send it.
func traceFrame(req *api.TraceRequest, from dataplane.PortSpec) ([]byte, error) {
	src := netip.MustParseAddr(req.Src).Unmap()
	dst, err := netip.ParseAddr(req.Dst)
	if err != nil {
		return nil, fmt.Errorf("dst: %q is no IP address", req.Dst)
	}
	dst = dst.Unmap()
	if !src.Is4() || !dst.Is4() {
		return nil, fmt.Errorf("src and dst: %s and %s: only IPv4 packets are traced", src, dst)
	}
	proto, err := traceProto(req.Proto)
	if err != nil {
		return nil, err
	}
	ip := &layers.IPv4{
		Version: 4, TTL: req.TTL, TOS: req.TOS, Protocol: proto, Id: 1,
		SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(dst.AsSlice()),
	}
	if ip.TTL == 0 {
		ip.TTL = 64
	}
	if req.DF {
		ip.Flags = layers.IPv4DontFragment
	}
	headers := []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: from.PeerMAC[:], DstMAC: from.MAC[:], EthernetType: layers.EthernetTypeIPv4}, ip,
	}
	transport, size, err := traceTransport(req, proto, ip)
	if err != nil {
		return nil, err
	}
	if transport != nil {
		headers = append(headers, transport)
	}
	if pad := req.Length - packet.IPv4Len - size; pad > 0 {
		if req.Length > 65535 {
			return nil, fmt.Errorf("length: %d: an IP packet has at most 65535 bytes", req.Length)
		}
		headers = append(headers, gopacket.Payload(make([]byte, pad)))
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, headers...); err != nil {
		return nil, fmt.Errorf("building the packet: %w", err)
	}
	return buf.Bytes(), nil
}

// traceTransport is the transport header and its length in bytes; none for
// protocols that are given by number.
func traceTransport(req *api.TraceRequest, proto layers.IPProtocol, ip *layers.IPv4) (gopacket.SerializableLayer, int, error) {
	switch proto {
	case layers.IPProtocolTCP:
		h := &layers.TCP{SrcPort: layers.TCPPort(req.Sport), DstPort: layers.TCPPort(req.Dport), Window: 65535}
		if err := setTCPFlags(h, req.Flags); err != nil {
			return nil, 0, err
		}
		return h, packet.TCPLen, h.SetNetworkLayerForChecksum(ip)
	case layers.IPProtocolUDP:
		h := &layers.UDP{SrcPort: layers.UDPPort(req.Sport), DstPort: layers.UDPPort(req.Dport)}
		return h, packet.UDPLen, h.SetNetworkLayerForChecksum(ip)
	case layers.IPProtocolSCTP:
		return &layers.SCTP{SrcPort: layers.SCTPPort(req.Sport), DstPort: layers.SCTPPort(req.Dport)}, packet.SCTPLen, nil
	case layers.IPProtocolICMPv4:
		h := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: req.Sport, Seq: 1}
		return h, packet.ICMPLen, nil
	}
	return nil, 0, nil
}

func traceProto(s string) (layers.IPProtocol, error) {
	switch strings.ToLower(s) {
	case "tcp":
		return layers.IPProtocolTCP, nil
	case "udp":
		return layers.IPProtocolUDP, nil
	case "sctp":
		return layers.IPProtocolSCTP, nil
	case "", "icmp":
		return layers.IPProtocolICMPv4, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("proto: %q is none of tcp, udp, sctp, icmp and no number from 0 to 255", s)
	}
	return layers.IPProtocol(n), nil
}

func setTCPFlags(h *layers.TCP, names string) error {
	if names == "" {
		names = "syn"
	}
	for name := range strings.SplitSeq(names, ",") {
		switch strings.TrimSpace(strings.ToLower(name)) {
		case "syn":
			h.SYN = true
		case "ack":
			h.ACK = true
		case "fin":
			h.FIN = true
		case "rst":
			h.RST = true
		case "psh":
			h.PSH = true
		case "urg":
			h.URG = true
		default:
			return fmt.Errorf("flags: %q is none of syn, ack, fin, rst, psh, urg", name)
		}
	}
	return nil
}

// packetFields is a parsed packet for people.
func packetFields(info *packet.Info, port string) []api.TraceField {
	out := []api.TraceField{{Name: "in_port", Value: port}}
	add := func(name string, value any) { out = append(out, api.TraceField{Name: name, Value: fmt.Sprint(value)}) }
	if info.Flags&(packet.V4|packet.V6) == 0 {
		return out
	}
	add("src", info.Key.Src)
	add("dst", info.Key.Dst)
	add("proto", packet.ProtoName(info.Proto))
	if info.Key.SrcPort != 0 || info.Key.DstPort != 0 {
		add("sport", info.Key.SrcPort)
		add("dport", info.Key.DstPort)
	}
	add("ttl", info.TTL)
	add("length", info.L3Len)
	return out
}

// sentFields takes the headers apart that the packet would leave with.
func sentFields(header []byte, info *packet.Info) []api.TraceField {
	out := []api.TraceField{}
	add := func(name string, value any) { out = append(out, api.TraceField{Name: name, Value: fmt.Sprint(value)}) }
	p := gopacket.NewPacket(header, layers.LayerTypeEthernet, gopacket.Default)
	for _, l := range p.Layers() {
		switch h := l.(type) {
		case *layers.Ethernet:
			add("eth_src", h.SrcMAC)
			add("eth_dst", h.DstMAC)
		case *layers.IPv4:
			add("ip_src", h.SrcIP)
			add("ip_dst", h.DstIP)
			add("ip_ttl", h.TTL)
			add("ip_length", h.Length)
		case *layers.UDP:
			add("udp_sport", uint16(h.SrcPort))
			add("udp_dport", uint16(h.DstPort))
		case *layers.VXLAN:
			add("vni", h.VNI)
		}
	}
	add("ttl", info.TTL-1)
	return out
}
