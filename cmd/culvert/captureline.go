package main

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// describer puts a frame into one line, as tcpdump does.
type describer struct {
	vxlan []uint16 // the UDP ports of tunnels
}

// describe is the frame's packets, those inside tunnels behind the outer ones.
func (d *describer) describe(b []byte) string {
	return d.from(b, layers.LayerTypeEthernet)
}

// from describes what begins with a layer of a type.
func (d *describer) from(b []byte, first gopacket.Decoder) string {
	p := gopacket.NewPacket(b, first, gopacket.DecodeOptions{NoCopy: true})
	var words []string
	all := p.Layers()
	for i := 0; i < len(all); i++ {
		text, inside := d.layer(all, &i)
		if text != "" {
			words = append(words, text)
		}
		if inside != "" {
			return strings.Join(append(words, inside), ": ")
		}
	}
	if len(words) == 0 {
		return fmt.Sprintf("%d bytes that are no packet", len(b))
	}
	return strings.Join(words, ": ")
}

// layer describes the layer at *i, and with it the transport header behind an IP
// header. inside is what a tunnel carries, where gopacket does not see it itself.
func (d *describer) layer(all []gopacket.Layer, i *int) (text, inside string) {
	switch l := all[*i].(type) {
	case *layers.Ethernet:
		if *i+1 < len(all) {
			if _, undecoded := all[*i+1].(gopacket.ErrorLayer); !undecoded {
				return "", ""
			}
		}
		return fmt.Sprintf("%s > %s, ethertype 0x%04x", l.SrcMAC, l.DstMAC, uint16(l.EthernetType)), ""
	case *layers.Dot1Q:
		return fmt.Sprintf("vlan %d", l.VLANIdentifier), ""
	case *layers.ARP:
		return arpText(l), ""
	case *layers.IPv4:
		if l.FragOffset != 0 {
			return fmt.Sprintf("IP %s > %s: %s fragment at %d, length %d", l.SrcIP, l.DstIP, l.Protocol, l.FragOffset*8, len(l.Payload)), ""
		}
		return d.packet("IP", l.SrcIP, l.DstIP, l.Protocol, int(l.Length)-int(l.IHL)*4, all, i)
	case *layers.IPv6:
		return d.packet("IP6", l.SrcIP, l.DstIP, l.NextHeader, int(l.Length), all, i)
	case *layers.VXLAN:
		return fmt.Sprintf("VXLAN, vni %d", l.VNI), ""
	case gopacket.ErrorLayer, *gopacket.Payload, *gopacket.Fragment:
		return "", ""
	}
	return all[*i].LayerType().String(), ""
}

// packet describes an IP packet, of which the header is at *i, with its transport
// header. size is what is behind the header by what that says: the capture may have less.
func (d *describer) packet(family string, src, dst net.IP, proto layers.IPProtocol, size int, all []gopacket.Layer, i *int) (text, inside string) {
	for *i+1 < len(all) && slices.Contains(extensions, all[*i+1].LayerType()) {
		*i++
		size -= len(all[*i].LayerContents())
	}
	if *i+1 == len(all) {
		return fmt.Sprintf("%s %s > %s: %s", family, src, dst, proto), ""
	}
	*i++
	switch t := all[*i].(type) {
	case *layers.TCP:
		return fmt.Sprintf("%s %s.%d > %s.%d: %s", family, src, t.SrcPort, dst, t.DstPort, tcpText(t, size-int(t.DataOffset)*4)), ""
	case *layers.UDP:
		text = fmt.Sprintf("%s %s.%d > %s.%d: UDP, length %d", family, src, t.SrcPort, dst, t.DstPort, max(int(t.Length)-8, 0))
		if slices.Contains(d.vxlan, uint16(t.DstPort)) {
			*i = len(all)
			return text, d.from(t.Payload, layers.LayerTypeVXLAN)
		}
		*i = len(all) // what is in there is nobody's business
		return text, ""
	case *layers.SCTP:
		return fmt.Sprintf("%s %s.%d > %s.%d: SCTP", family, src, t.SrcPort, dst, t.DstPort), ""
	case *layers.ICMPv4:
		*i = len(all) // an error's quote looks like a packet
		text = t.TypeCode.String()
		switch t.TypeCode.Type() {
		case layers.ICMPv4TypeEchoRequest:
			text = fmt.Sprintf("echo request, id %d, seq %d", t.Id, t.Seq)
		case layers.ICMPv4TypeEchoReply:
			text = fmt.Sprintf("echo reply, id %d, seq %d", t.Id, t.Seq)
		}
		return fmt.Sprintf("%s %s > %s: ICMP %s, length %d", family, src, dst, text, size), ""
	case *layers.ICMPv6:
		text = t.TypeCode.String()
		if *i+1 < len(all) {
			if e, ok := all[*i+1].(*layers.ICMPv6Echo); ok {
				text = fmt.Sprintf("%s, id %d, seq %d", map[uint8]string{128: "echo request", 129: "echo reply"}[t.TypeCode.Type()], e.Identifier, e.SeqNumber)
			}
		}
		*i = len(all)
		return fmt.Sprintf("%s %s > %s: ICMP6, %s, length %d", family, src, dst, text, size), ""
	}
	*i--
	return fmt.Sprintf("%s %s > %s", family, src, dst), ""
}

// extensions are headers between that of IPv6 and the transport's.
var extensions = []gopacket.LayerType{layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Routing, layers.LayerTypeIPv6Destination}

// tcpText is a TCP header as tcpdump has it.
func tcpText(t *layers.TCP, length int) string {
	var flags strings.Builder
	for _, f := range []struct {
		set  bool
		text string
	}{{t.FIN, "F"}, {t.SYN, "S"}, {t.RST, "R"}, {t.PSH, "P"}, {t.ACK, "."}, {t.URG, "U"}, {t.ECE, "E"}, {t.CWR, "W"}} {
		if f.set {
			flags.WriteString(f.text)
		}
	}
	if flags.Len() == 0 {
		flags.WriteString("none")
	}
	text := fmt.Sprintf("Flags [%s], seq %d", &flags, t.Seq)
	if t.ACK {
		text += fmt.Sprintf(", ack %d", t.Ack)
	}
	return text + fmt.Sprintf(", win %d, length %d", t.Window, max(length, 0))
}

func arpText(a *layers.ARP) string {
	switch a.Operation {
	case layers.ARPRequest:
		return fmt.Sprintf("ARP, Request who-has %s tell %s", net.IP(a.DstProtAddress), net.IP(a.SourceProtAddress))
	case layers.ARPReply:
		return fmt.Sprintf("ARP, Reply %s is-at %s", net.IP(a.SourceProtAddress), net.HardwareAddr(a.SourceHwAddress))
	}
	return fmt.Sprintf("ARP, operation %d", a.Operation)
}
