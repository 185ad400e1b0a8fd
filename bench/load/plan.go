package load

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Ports of flows: the lower 15 bits of its number choose the source port, the
// others the destination's.
const (
	FirstPort       = 1024
	DestinationPort = 5000
	PortBits        = 15
)

// Source ports of VXLAN: as many as there are ports for such use (RFC 6335,
// section 6).
const (
	TunnelPort  = 0xc000
	TunnelPorts = 0x4000
)

// Plan is a configuration, checked, and all that follows from it. It is not
// changed once it is made.
type Plan struct {
	Config
	// Template is the beginning of all frames without what varies: the MAC and
	// address of the source, the destination, lengths, ports, checksums, and the
	// tunnel's source. What follows it in a frame is zero.
	Template []byte
	// IP and UDP are the offsets of the flow's own headers.
	IP, UDP int
	// Lens are the lengths of whole frames, tunnel included, one after the other
	// and again; Largest is the largest of them.
	Lens    []int
	Largest int
	// Order holds the numbers by which Zipf takes the flows; nil for in turn.
	Order []uint32
	// Every is NewEvery, or what follows from NewFlows.
	Every uint32
	// Sums of what checksums cover (RFC 1071): of the flow's IPv4 header, its
	// datagram and the tunnel's IPv4 header. They lack what the template lacks.
	IPSum, UDPSum, TunnelSum uint32
}

// Plan checks the configuration and works out its frames.
func (c Config) Plan() (*Plan, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	p := &Plan{Config: c, Every: c.newEvery()}
	p.build()
	p.Lens = pattern(c.Sizes)
	for i := range p.Lens {
		p.Lens[i] += p.IP - lenEthernet
	}
	p.Largest = slices.Max(p.Lens)
	if c.Zipf > 0 {
		n := c.Draws
		if n == 0 {
			n = maxDraws
		}
		p.Order = draws(n, c.Flows, c.Zipf, c.Seed)
	}
	return p, nil
}

// build makes the template and its sums.
func (p *Plan) build() {
	b := make([]byte, 128)
	at := 0
	if t := p.Tunnel; t != nil {
		putEthernet(b, t.SrcMAC, t.DstMAC)
		at = lenEthernet + lenIPv4
		if t.Kind == IPIP {
			putIPv4(b[lenEthernet:], protoIPIP)
		} else {
			putIPv4(b[lenEthernet:], protoUDP)
			putVXLAN(b[at:], t.Port, t.VNI)
			at += lenUDP + lenVXLAN
		}
		copy(b[lenEthernet+16:], t.Dst.AsSlice())
		p.TunnelSum = Sum(0, b[lenEthernet:lenEthernet+lenIPv4])
	}
	if p.Tunnel == nil || p.Tunnel.Kind == VXLAN {
		putEthernet(b[at:], nil, p.NextHop)
		at += lenEthernet
	}
	p.IP, p.UDP = at, at+lenIPv4
	putIPv4(b[p.IP:], protoUDP)
	end := p.UDP + lenUDP + copy(b[p.UDP+lenUDP:], payload)
	p.IPSum = Sum(0, b[p.IP:p.UDP])
	p.UDPSum = Sum(protoUDP, b[p.UDP:end])
	p.Template = b[:end]
}

// Out is the number of the end that sends a flow.
func (p *Plan) Out(flow uint32) int { return int(flow) % len(p.Outs) }

// Destination is the number of the destination of a flow.
func (p *Plan) Destination(flow uint32) int {
	return int(flow) / len(p.Outs) % len(p.Destinations)
}

// Ports are the ports of a flow.
func Ports(flow uint32) (src, dst uint16) {
	return FirstPort + uint16(flow&(1<<PortBits-1)), DestinationPort + uint16(flow>>PortBits)
}

// Put writes the beginning of a flow's frame of the given whole length to b,
// which holds at least the Template. The rest of the frame is zero.
func (p *Plan) Put(b []byte, flow uint32, n int) {
	copy(b, p.Template)
	out, dst := &p.Outs[p.Out(flow)], p.Destinations[p.Destination(flow)]
	if p.Tunnel != nil {
		putLengths(b[lenEthernet:n], p.TunnelSum, out.Peer, netip.Addr{})
	}
	if p.Tunnel == nil || p.Tunnel.Kind == VXLAN {
		copy(b[p.IP-8:], out.MAC)
	}
	if p.IP > lenEthernet+lenIPv4 { // VXLAN
		udp := b[lenEthernet+lenIPv4 : n]
		binary.BigEndian.PutUint16(udp, uint16(TunnelPort+flow%TunnelPorts))
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp))) // no checksum, as RFC 7348 has it
	}
	putLengths(b[p.IP:n], p.IPSum, out.Addr, dst)
	udp := b[p.UDP:n]
	src, port := Ports(flow)
	binary.BigEndian.PutUint16(udp, src)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	sum := p.UDPSum + uint32(src) + uint32(port) + 2*uint32(len(udp)) // the pseudo-header has it, too (RFC 768)
	sum = Sum(sum, b[p.IP+12:p.IP+20])
	checksum := ^Fold(sum)
	if checksum == 0 {
		checksum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], checksum)
}

// putLengths writes the addresses that are valid, the length, which is b's, and
// the checksum of an IPv4 header, whose fixed part adds up to sum.
func putLengths(b []byte, sum uint32, src, dst netip.Addr) {
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	sum += uint32(len(b))
	for at, addr := range [...]netip.Addr{src, dst} {
		if addr.IsValid() {
			a := addr.As4()
			copy(b[12+4*at:], a[:])
			sum = Sum(sum, a[:])
		}
	}
	binary.BigEndian.PutUint16(b[10:], ^Fold(sum))
}

// Frame is a whole frame of a flow.
func (p *Plan) Frame(flow uint32, n int) []byte {
	b := make([]byte, n)
	p.Put(b, flow, n)
	return b
}
