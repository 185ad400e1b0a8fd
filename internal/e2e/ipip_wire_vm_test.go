//go:build vm

package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"culvert/ctrl/podlink"
	"culvert/internal/lab"
	"culvert/internal/packet"
	kit "culvert/internal/pkttest"
)

// wirePacket is what of a packet in IPIP must be the same, whoever sends it. The
// addresses are not here, nor is the outer identification, which nobody can foresee.
type wirePacket struct {
	TOS, TTL, Proto byte
	HeaderLen       int
	Len, Fragment   uint16 // Fragment is the word of flags and offset
	SumOK           bool
	Inner           innerPacket
}

type innerPacket struct {
	TOS, TTL, Proto   byte
	Len, ID, Fragment uint16
	SumOK             bool
	Data              string // what follows the header
}

// ipv4 reads a header.
func ipv4(b []byte) (h innerPacket, headerLen int, ok bool) {
	if len(b) < packet.IPv4Len || b[0]>>4 != 4 || len(b) < int(b[0]&15)*4 {
		return h, 0, false
	}
	be := binary.BigEndian
	headerLen = int(b[0]&15) * 4
	h = innerPacket{TOS: b[1], TTL: b[8], Proto: b[9], Len: be.Uint16(b[2:]), ID: be.Uint16(b[4:]), Fragment: be.Uint16(b[6:])}
	h.SumOK = packet.Checksum(b[:headerLen], 0) == 0
	h.Data = string(b[headerLen:min(len(b), int(h.Len))])
	return h, headerLen, true
}

// onWire reads a frame that holds IPIP.
func onWire(f []byte) (w wirePacket, id uint16, ok bool) {
	if len(f) < packet.EthernetLen || binary.BigEndian.Uint16(f[12:]) != packet.EtherTypeIPv4 {
		return w, 0, false
	}
	outer, headerLen, ok := ipv4(f[packet.EthernetLen:])
	if !ok || outer.Proto != unix.IPPROTO_IPIP {
		return w, 0, false
	}
	w = wirePacket{TOS: outer.TOS, TTL: outer.TTL, Proto: outer.Proto, HeaderLen: headerLen, Len: outer.Len, Fragment: outer.Fragment, SumOK: outer.SumOK}
	w.Inner, _, ok = ipv4([]byte(outer.Data))
	return w, outer.ID, ok
}

// sniffer keeps the frames that a device receives and sends.
type sniffer struct {
	fd   int
	done chan struct{}

	mu  sync.Mutex
	all []sniffed
}

type sniffed struct {
	frame    []byte
	outgoing bool
}

func sniff(t *testing.T, ns, dev string) *sniffer {
	t.Helper()
	s := &sniffer{done: make(chan struct{})}
	err := inside(ns, func() (err error) {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		tv := unix.Timeval{Usec: 50000}
		if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	go s.read(stop)
	t.Cleanup(func() {
		close(stop)
		<-s.done
		unix.Close(s.fd)
	})
	return s
}

func (s *sniffer) read(stop chan struct{}) {
	defer close(s.done)
	b := make([]byte, 1<<16)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(s.fd, b, 0)
		if err != nil {
			continue // nothing came
		}
		ll, _ := from.(*unix.SockaddrLinklayer)
		s.mu.Lock()
		s.all = append(s.all, sniffed{slices.Clone(b[:n]), ll != nil && ll.Pkttype == unix.PACKET_OUTGOING})
		s.mu.Unlock()
	}
}

// frames are those so far.
func (s *sniffer) frames() []sniffed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// crossing is one of the pods' packets and what it becomes: of each, as many
// frames as the packet needs.
type crossing struct {
	name   string
	frames int // how many it takes in the tunnel
	opts   []func(*layers.IPv4)
	rest   []kit.Layer
}

// crossings are the packets that both nodes send. The TTLs are those that the
// pods give: forwarding takes one off.
func crossings() (list []crossing) {
	udp := func(n int) []kit.Layer { return []kit.Layer{kit.UDP(40000, 40001), kit.Payload(n)} }
	with := func(name string, rest []kit.Layer, opts ...func(*layers.IPv4)) {
		list = append(list, crossing{name, 1, opts, rest})
	}
	for ecn := range uint8(4) {
		for _, dscp := range []uint8{0, 0x20, 0xb8, 0xfc} {
			with(fmt.Sprintf("TOS %#02x", dscp|ecn), udp(20), kit.TOS(dscp|ecn))
			with(fmt.Sprintf("TOS %#02x, DF", dscp|ecn), udp(20), kit.TOS(dscp|ecn), kit.DF())
		}
	}
	for _, ttl := range []uint8{2, 3, 63, 64, 65, 128, 255} {
		with(fmt.Sprint("TTL ", ttl), udp(8), kit.TTL(ttl))
		with(fmt.Sprint("TTL ", ttl, ", DF"), udp(8), kit.TTL(ttl), kit.DF())
	}
	for _, n := range []int{0, 1, 17, 18, 19, 500, 1000, 1451, 1452} {
		with(fmt.Sprint("UDP of ", n), udp(n))
		with(fmt.Sprint("UDP of ", n, ", DF"), udp(n), kit.DF())
	}
	with("ICMP echo", []kit.Layer{kit.ICMP4(8, 0, 77, 1), kit.Payload(56)}, kit.DF())
	with("TCP SYN", []kit.Layer{kit.TCP(40000, 40002, kit.Flags("S")), kit.Payload(0)}, kit.DF())
	with("SCTP", []kit.Layer{kit.SCTP(40000, 40003), kit.Payload(20)})
	with("an unknown protocol", []kit.Layer{kit.Payload(33)}, kit.Proto(253))
	list = append(list, crossing{"too big, to be cut", 2, nil, udp(1472)})
	list = append(list, crossing{"too big by one, to be cut", 2, []func(*layers.IPv4){kit.TOS(0xb9)}, udp(1453)})
	return list
}

// What our node puts on the wire is what the kernel puts there for the same
// packet of a pod, field by field.
func TestVMIPIPOnTheWire(t *testing.T) {
	_, ours, kernel := upIPIP(t, lab.Options{Pods: 1})
	a, b := ours.Pods[0], kernel.Pods[0]
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "5", b.Addr.String()) // the neighbours are known
	setPodMTU(t, ours, a, 1500)
	setPodMTU(t, kernel, b, 1500)
	wire := sniff(t, kernel.Netns, nic0)
	list := crossings()
	for i, x := range list {
		for _, way := range []struct{ from, to *lab.Pod }{{a, b}, {b, a}} {
			ip := kit.IP4(way.from.Addr.String(), way.to.Addr.String(), append(x.opts, kit.ID(crossingID(i)))...)
			ls := append([]kit.Layer{kit.Eth(devMAC(t, way.from.Netns, "eth0"), podlink.HostMAC.String()), ip}, x.rest...)
			rawSend(t, way.from.Netns, "eth0", kit.Frame(t, ls...))
		}
		time.Sleep(time.Millisecond)
	}
	ids := map[bool]map[uint16]string{true: {}, false: {}} // by who sent it: the outer identifications
	for i, x := range list {
		var got map[bool][]wirePacket
		eventually(t, x.name+" crosses the wire both ways", func() error {
			got = crossed(wire, crossingID(i), ids, x.name)
			if len(got[false]) < x.frames || len(got[true]) < x.frames {
				return fmt.Errorf("%d frames of ours and %d of the kernel's, want %d", len(got[false]), len(got[true]), x.frames)
			}
			return nil
		})
		if our, theirs := fmt.Sprintf("%+v", got[false]), fmt.Sprintf("%+v", got[true]); our != theirs {
			t.Errorf("%s: we send\n%.600q\nthe kernel\n%.600q", x.name, our, theirs)
		}
	}
	// A packet that may be cut on its way needs an identification of its own (RFC
	// 6864 4.2). The kernel gives one to all (iptunnel_xmit, __ip_select_ident),
	// and so do we.
	for kernel, seen := range ids {
		if len(seen) < len(list) || seen[0] != "" {
			t.Errorf("%d packets (the kernel's: %t) have %d identifications, 0 for %q", len(list), kernel, len(seen), seen[0])
		}
	}
}

// crossingID tells the packets apart.
func crossingID(i int) uint16 { return uint16(0x4000 + i) }

// isAnswer: an ICMP error of a node about one of the packets, whose identification ours
// take over, or a pod's echo reply, whose identification is of chance.
func (p innerPacket) isAnswer() bool {
	return p.Proto == packet.ProtoICMP && p.Data != "" && (p.Data[0] == 0 || p.Data[0] == 3 || p.Data[0] == 11)
}

// crossed finds the frames of one packet, the kernel's own (which leave the
// device) under true.
func crossed(wire *sniffer, inner uint16, ids map[bool]map[uint16]string, name string) map[bool][]wirePacket {
	got := map[bool][]wirePacket{}
	for _, s := range wire.frames() {
		if w, id, ok := onWire(s.frame); ok && w.Inner.ID == inner && !w.Inner.isAnswer() {
			got[s.outgoing] = append(got[s.outgoing], w)
			ids[s.outgoing][id] = name
		}
	}
	return got
}

// What comes out of the tunnel is what the kernel gets out of it, for all
// congestion marks of both headers, and for outer headers of all kinds.
func TestVMIPIPOutOfTheTunnel(t *testing.T) {
	_, ours, kernel := upIPIP(t, lab.Options{Pods: 1})
	a, b := ours.Pods[0], kernel.Pods[0]
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "5", b.Addr.String())
	type arrival struct {
		name         string
		outer, inner []func(*layers.IPv4)
	}
	var list []arrival
	for outer := range uint8(4) {
		for inner := range uint8(4) {
			list = append(list, arrival{fmt.Sprintf("ECN %d in %d", inner, outer),
				[]func(*layers.IPv4){kit.TOS(0xb8 | outer)}, []func(*layers.IPv4){kit.TOS(0x28 | inner)}})
		}
	}
	for _, ttl := range []uint8{1, 2, 64, 255} {
		list = append(list, arrival{fmt.Sprint("outer TTL ", ttl), []func(*layers.IPv4){kit.TTL(ttl)}, nil})
		list = append(list, arrival{fmt.Sprint("inner TTL ", ttl), nil, []func(*layers.IPv4){kit.TTL(ttl)}})
	}
	list = append(list, arrival{"DF outside", []func(*layers.IPv4){kit.DF()}, nil},
		arrival{"DF inside", nil, []func(*layers.IPv4){kit.DF()}})
	results := map[*lab.Pod][]string{}
	for _, way := range []struct {
		from, to *lab.Node
		src, dst *lab.Pod
	}{{kernel, ours, b, a}, {ours, kernel, a, b}} {
		in := sniff(t, way.dst.Netns, "eth0")
		for i, x := range list {
			outer := append([]func(*layers.IPv4){kit.Proto(unix.IPPROTO_IPIP), kit.ID(uint16(i + 1))}, x.outer...)
			f := kit.Frame(t, kit.Eth(devMAC(t, way.from.Netns, nic0), devMAC(t, way.to.Netns, nic0)),
				kit.IP4(way.from.Addr.String(), way.to.Addr.String(), outer...),
				kit.IP4(way.src.Addr.String(), way.dst.Addr.String(), append(x.inner, kit.ID(crossingID(i)))...),
				kit.UDP(40000, 40001), kit.Payload(32))
			rawSend(t, way.from.Netns, nic0, f)
		}
		last := crossingID(len(list) - 1) // they come in order
		eventually(t, "the last packet arrives", func() error {
			if arrived(in, last) == "nothing" {
				return fmt.Errorf("at %s", way.dst.Name)
			}
			return nil
		})
		for i := range list {
			results[way.dst] = append(results[way.dst], arrived(in, crossingID(i)))
		}
	}
	dropped := 0
	for i, x := range list {
		if results[a][i] != results[b][i] {
			t.Errorf("%s: our pod gets\n%q\nthe kernel's\n%q", x.name, results[a][i], results[b][i])
		}
		if results[b][i] == "nothing" {
			dropped++
		}
	}
	if dropped != 2 { // Not-ECT in CE (RFC 6040 4.2), and the TTL that ends
		t.Errorf("the kernel drops %d of these, not 2: %q", dropped, results[b])
	}
}

// arrived is the packet of that identification, as the pod got it.
func arrived(in *sniffer, id uint16) string {
	for _, s := range in.frames() {
		if len(s.frame) < packet.EthernetLen || s.outgoing {
			continue
		}
		if h, _, ok := ipv4(s.frame[packet.EthernetLen:]); ok && h.ID == id && h.Proto == unix.IPPROTO_UDP {
			return fmt.Sprintf("%+v", h)
		}
	}
	return "nothing"
}
