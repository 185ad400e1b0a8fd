package bench

import (
	"bytes"
	"fmt"
	"net"

	"culvert/bench/testbed"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// checkSamples makes sure that the device did the work: that what arrived are
// the generator's packets, routed, and in the right tunnel.
func checkSamples(o Options, podMAC net.HardwareAddr, samples [][]byte) error {
	if len(samples) == 0 {
		return fmt.Errorf("the sink kept no frame to check")
	}
	ports := make(map[layers.UDPPort]bool)
	for _, s := range samples {
		check := checkInner
		if o.Direction == Encap {
			check = checkOuter
		}
		if err := check(s, podMAC, ports); err != nil {
			return fmt.Errorf("a delivered frame is wrong: %w\n% x", err, s)
		}
	}
	if o.Flows >= 16 && len(samples) >= 16 && len(ports) < 2 {
		return fmt.Errorf("%d samples of %d flows have one UDP source port", len(samples), o.Flows)
	}
	return nil
}

// checkOuter checks a VXLAN frame on the wire.
func checkOuter(frame []byte, _ net.HardwareAddr, ports map[layers.UDPPort]bool) error {
	eth, ip, udp, err := headers(frame)
	if err != nil {
		return fmt.Errorf("outer %w", err)
	}
	switch {
	case !bytes.Equal(eth.DstMAC, testbed.WireMAC) || !bytes.Equal(eth.SrcMAC, testbed.UplinkMAC):
		return fmt.Errorf("outer MACs are %s to %s", eth.SrcMAC, eth.DstMAC)
	case !ip.SrcIP.Equal(testbed.NodeAddr.AsSlice()) || !ip.DstIP.Equal(testbed.PeerAddr.AsSlice()):
		return fmt.Errorf("outer addresses are %s to %s", ip.SrcIP, ip.DstIP)
	case udp.DstPort != testbed.Port:
		return fmt.Errorf("outer port is %d", udp.DstPort)
	}
	ports[udp.SrcPort] = true
	var vxlan layers.VXLAN
	if err := vxlan.DecodeFromBytes(udp.Payload, gopacket.NilDecodeFeedback); err != nil {
		return fmt.Errorf("VXLAN: %w", err)
	}
	if vxlan.VNI != testbed.VNI || !vxlan.ValidIDFlag {
		return fmt.Errorf("VNI is %d", vxlan.VNI)
	}
	return checkRouted(vxlan.Payload, testbed.NodeVTEP, testbed.PeerVTEP, testbed.PodAddr.AsSlice(), testbed.PeerPod.AsSlice(), nil)
}

// checkInner checks a frame that the pod got.
func checkInner(frame []byte, podMAC net.HardwareAddr, ports map[layers.UDPPort]bool) error {
	return checkRouted(frame, testbed.GatewayMAC, podMAC, testbed.PeerPod.AsSlice(), testbed.PodAddr.AsSlice(), ports)
}

// checkRouted checks one of the generator's packets after one hop.
func checkRouted(frame []byte, srcMAC, dstMAC net.HardwareAddr, src, dst net.IP, ports map[layers.UDPPort]bool) error {
	eth, ip, udp, err := headers(frame)
	if err != nil {
		return err
	}
	switch {
	case !bytes.Equal(eth.SrcMAC, srcMAC) || !bytes.Equal(eth.DstMAC, dstMAC):
		return fmt.Errorf("MACs are %s to %s, want %s to %s", eth.SrcMAC, eth.DstMAC, srcMAC, dstMAC)
	case !ip.SrcIP.Equal(src) || !ip.DstIP.Equal(dst):
		return fmt.Errorf("addresses are %s to %s", ip.SrcIP, ip.DstIP)
	case ip.TTL != 63:
		return fmt.Errorf("TTL is %d, want 63", ip.TTL)
	}
	if ports != nil {
		ports[udp.SrcPort] = true
	}
	if int(ip.Length) > len(frame)-14 {
		return nil // the sample ends before the datagram
	}
	if got := udpSum(ip, udp); got != 0xffff {
		return fmt.Errorf("UDP checksum is wrong: everything adds up to %#x", got)
	}
	return nil
}

// headers decodes Ethernet, IPv4 and UDP and checks the IPv4 checksum.
func headers(frame []byte) (*layers.Ethernet, *layers.IPv4, *layers.UDP, error) {
	eth, ip, udp := &layers.Ethernet{}, &layers.IPv4{}, &layers.UDP{}
	if err := eth.DecodeFromBytes(frame, gopacket.NilDecodeFeedback); err != nil {
		return nil, nil, nil, fmt.Errorf("header of Ethernet: %w", err)
	}
	if eth.EthernetType != layers.EthernetTypeIPv4 {
		return nil, nil, nil, fmt.Errorf("EtherType is %s", eth.EthernetType)
	}
	if err := ip.DecodeFromBytes(eth.Payload, gopacket.NilDecodeFeedback); err != nil {
		return nil, nil, nil, fmt.Errorf("header of IPv4: %w", err)
	}
	if got := sum16(ip.Contents); got != 0xffff {
		return nil, nil, nil, fmt.Errorf("IPv4 header checksum is wrong: everything adds up to %#x", got)
	}
	if err := udp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback); err != nil {
		return nil, nil, nil, fmt.Errorf("header of UDP: %w", err)
	}
	return eth, ip, udp, nil
}

// udpSum is the sum of the pseudo-header and the datagram (RFC 768).
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
