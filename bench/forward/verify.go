package forward

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"culvert/bench/peer"
	"culvert/bench/testbed"
	"culvert/bench/xdpgen"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// checker knows what may arrive from an instance: the generator's packets,
// routed once, between any of its pods and any of its peers.
type checker struct {
	ttl     uint8
	encap   peer.Encap
	arrived map[int]testbed.Pod           // pods by the index of their device
	pods    map[netip.Addr]testbed.Pod    // ... by their address
	peers   map[netip.Prefix]testbed.Peer // by the prefix of their pods
	bits    int                           // length of all these
	ports   map[layers.UDPPort]bool       // source ports by which flows differ
}

func newChecker(i *peer.Instance) *checker {
	c := &checker{
		encap: i.Options.Encap, bits: testbed.PeerCIDR.Bits(),
		arrived: make(map[int]testbed.Pod), pods: make(map[netip.Addr]testbed.Pod),
		peers: make(map[netip.Prefix]testbed.Peer), ports: make(map[layers.UDPPort]bool),
	}
	for _, p := range i.Bed.Pods {
		c.arrived[p.Ifindex], c.pods[p.Addr] = p, p
	}
	for _, p := range i.Bed.Peers {
		c.peers[p.CIDR] = p
	}
	return c
}

// checkSamples makes sure that the device did the work: that what arrived are
// the generator's packets, routed, in the right tunnel or at the right pod.
func checkSamples(l Load, ttl uint8, i *peer.Instance, samples []xdpgen.Sample) error {
	if len(samples) == 0 {
		return errors.New("the sink kept no frame to check")
	}
	c := newChecker(i)
	c.ttl = ttl
	for _, s := range samples {
		check := c.atPod
		if l.Direction == Encap {
			check = c.onWire
		}
		if err := check(s); err != nil {
			return fmt.Errorf("a delivered frame is wrong: %w\n% x", err, s.Data)
		}
	}
	if l.Flows >= 16 && len(samples) >= 16 && len(c.ports) < 2 {
		return fmt.Errorf("%d samples of %d flows have one UDP source port", len(samples), l.Flows)
	}
	return nil
}

// onWire checks a tunnel's frame on the wire.
func (c *checker) onWire(s xdpgen.Sample) error {
	eth, outer, err := headers(s.Data)
	if err != nil {
		return fmt.Errorf("outer %w", err)
	}
	if !bytes.Equal(eth.DstMAC, testbed.WireMAC) || !bytes.Equal(eth.SrcMAC, testbed.UplinkMAC) {
		return fmt.Errorf("outer MACs are %s to %s", eth.SrcMAC, eth.DstMAC)
	}
	inner, port, macs, err := c.popped(outer)
	if err != nil {
		return err
	}
	udp, err := c.routed(inner)
	if err != nil {
		return err
	}
	node, ok := c.peerOf(inner.DstIP)
	if _, ours := c.pods[addrOf(inner.SrcIP)]; !ok || !ours {
		return fmt.Errorf("addresses are %s to %s", inner.SrcIP, inner.DstIP)
	}
	if addrOf(outer.SrcIP) != testbed.NodeAddr || addrOf(outer.DstIP) != node.Addr {
		return fmt.Errorf("outer addresses are %s to %s, want %s to %s", outer.SrcIP, outer.DstIP, testbed.NodeAddr, node.Addr)
	}
	if macs != nil && (!bytes.Equal(macs.SrcMAC, testbed.NodeVTEP) || !bytes.Equal(macs.DstMAC, node.VTEP)) {
		return fmt.Errorf("inner MACs are %s to %s, want %s to %s", macs.SrcMAC, macs.DstMAC, testbed.NodeVTEP, node.VTEP)
	}
	if port == 0 {
		port = udp.SrcPort // IPIP has none of its own
	}
	c.ports[port] = true
	return nil
}

// popped takes the tunnel's headers off. What VXLAN has more than IPIP is the
// outer source port and the inner MACs.
func (c *checker) popped(outer *layers.IPv4) (inner *layers.IPv4, port layers.UDPPort, macs *layers.Ethernet, err error) {
	if c.encap == peer.IPIP {
		if outer.Protocol != ipip {
			return nil, 0, nil, fmt.Errorf("outer protocol is %s", outer.Protocol)
		}
		inner, err = ipv4(outer.Payload)
		return inner, 0, nil, err
	}
	udp, vxlan := &layers.UDP{}, &layers.VXLAN{}
	if outer.Protocol != layers.IPProtocolUDP {
		return nil, 0, nil, fmt.Errorf("outer protocol is %s", outer.Protocol)
	}
	if err := udp.DecodeFromBytes(outer.Payload, gopacket.NilDecodeFeedback); err != nil {
		return nil, 0, nil, fmt.Errorf("outer header of UDP: %w", err)
	}
	if udp.DstPort != testbed.Port {
		return nil, 0, nil, fmt.Errorf("outer port is %d", udp.DstPort)
	}
	if err := vxlan.DecodeFromBytes(udp.Payload, gopacket.NilDecodeFeedback); err != nil {
		return nil, 0, nil, fmt.Errorf("VXLAN: %w", err)
	}
	if vxlan.VNI != testbed.VNI || !vxlan.ValidIDFlag {
		return nil, 0, nil, fmt.Errorf("VNI is %d", vxlan.VNI)
	}
	macs, inner, err = headers(vxlan.Payload)
	return inner, udp.SrcPort, macs, err
}

// atPod checks a frame at a pod's device.
func (c *checker) atPod(s xdpgen.Sample) error {
	eth, ip, err := headers(s.Data)
	if err != nil {
		return err
	}
	udp, err := c.routed(ip)
	if err != nil {
		return err
	}
	pod, ok := c.arrived[s.Ifindex]
	if _, known := c.peerOf(ip.SrcIP); !ok || !known || addrOf(ip.DstIP) != pod.Addr {
		return fmt.Errorf("addresses are %s to %s, at the device of pod %s", ip.SrcIP, ip.DstIP, pod.Addr)
	}
	if !bytes.Equal(eth.SrcMAC, testbed.GatewayMAC) || !bytes.Equal(eth.DstMAC, pod.MAC) {
		return fmt.Errorf("MACs are %s to %s, want %s to %s", eth.SrcMAC, eth.DstMAC, testbed.GatewayMAC, pod.MAC)
	}
	c.ports[udp.SrcPort] = true
	return nil
}

// peerOf is the peer that has a pod with this address.
func (c *checker) peerOf(ip net.IP) (testbed.Peer, bool) {
	prefix, err := addrOf(ip).Prefix(c.bits)
	p, ok := c.peers[prefix]
	return p, ok && err == nil
}

// routed checks one of the generator's packets after one hop.
func (c *checker) routed(ip *layers.IPv4) (*layers.UDP, error) {
	udp := &layers.UDP{}
	if ip.TTL != c.ttl || ip.Protocol != layers.IPProtocolUDP {
		return nil, fmt.Errorf("TTL is %d, want %d, and protocol %s", ip.TTL, c.ttl, ip.Protocol)
	}
	if err := udp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback); err != nil {
		return nil, fmt.Errorf("header of UDP: %w", err)
	}
	if int(ip.Length) > len(ip.Contents)+len(ip.Payload) {
		return udp, nil // the sample ends before the datagram
	}
	if got := udpSum(ip, udp); got != 0xffff {
		return nil, fmt.Errorf("UDP checksum is wrong: everything adds up to %#x", got)
	}
	return udp, nil
}

// headers parses a frame to its IPv4 header.
func headers(frame []byte) (*layers.Ethernet, *layers.IPv4, error) {
	eth := &layers.Ethernet{}
	if err := eth.DecodeFromBytes(frame, gopacket.NilDecodeFeedback); err != nil {
		return nil, nil, fmt.Errorf("header of Ethernet: %w", err)
	}
	if eth.EthernetType != layers.EthernetTypeIPv4 {
		return nil, nil, fmt.Errorf("EtherType is %s", eth.EthernetType)
	}
	ip, err := ipv4(eth.Payload)
	return eth, ip, err
}

// ipv4 parses an IPv4 header and checks its checksum.
func ipv4(packet []byte) (*layers.IPv4, error) {
	ip := &layers.IPv4{}
	if err := ip.DecodeFromBytes(packet, gopacket.NilDecodeFeedback); err != nil {
		return nil, fmt.Errorf("header of IPv4: %w", err)
	}
	if got := sum16(ip.Contents); got != 0xffff {
		return nil, fmt.Errorf("IPv4 header checksum is wrong: everything adds up to %#x", got)
	}
	return ip, nil
}

// addrOf is the same address; zero if it is none.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}

// udpSum adds up the pseudo header and the datagram: 0xffff if the checksum is
// right (RFC 768).
func udpSum(ip *layers.IPv4, udp *layers.UDP) uint16 {
	all := bytes.Join([][]byte{
		ip.SrcIP.To4(), ip.DstIP.To4(), {0, 17, byte(udp.Length >> 8), byte(udp.Length)}, udp.Contents, udp.Payload,
	}, nil)
	return sum16(all)
}

// sum16 is the one's complement sum of b (RFC 1071).
func sum16(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
