package intake

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"

	"github.com/vishvananda/netlink"
)

// The node's address on its uplink, and an endpoint there for each family.
var (
	node4 = netip.MustParseAddr("10.7.0.1")
	node6 = netip.MustParseAddr("fd07::1")
	ends  = []xsk.Endpoint{{Addr: node4, Port: 8472}, {Addr: node6, Port: 8472}}
)

// addUplink makes a peer, at the other end of an uplink of the node's that is
// attached as port 7, with addresses of both families.
func (r *rig) addUplink() *pod {
	r.t.Helper()
	r.node.Sysctl(r.t, "net.ipv6.conf.default.disable_ipv6", "0")
	p := r.addVeth()
	p.ns.Sysctl(r.t, "net.ipv6.conf.eth0.disable_ipv6", "0")
	r.node.AddAddr(r.t, p.name, "10.7.0.1/24")
	r.node.AddAddr(r.t, p.name, "fd07::1/64")
	p.ns.AddAddr(r.t, "eth0", "10.7.0.2/24")
	p.ns.AddAddr(r.t, "eth0", "fd07::2/64")
	r.node.Do(r.t, func() {
		var err error
		if p.attach, err = r.in.AttachUplink(ifindex(r.t, p.name), p.name, 7, ends); err != nil {
			r.t.Fatal(err)
		}
	})
	return p
}

// withVLAN puts a VLAN tag into a frame behind a virtio_net_hdr.
func withVLAN(b []byte, protocol uint16) []byte {
	tag := binary.BigEndian.AppendUint16(nil, protocol)
	return append(b[:22:22], append(append(tag, 0, 5), b[22:]...)...)
}

// Datagrams to an endpoint are taken, also behind IP options and VLAN tags, and
// bring their port. The tags do not arrive.
func TestUplinkTakes(t *testing.T) {
	r := newRig(t, 1)
	p := r.addUplink()
	plain := datagram(p.mac, node4.AsSlice(), 8472, 100)
	options := bytes.Clone(plain)
	options[24] = 0x46
	options = append(options[:44:44], append([]byte{1, 1, 1, 0}, options[44:]...)...)
	for name, b := range map[string][]byte{
		"IPv4":       plain,
		"IPv6":       datagram(p.mac, node6.AsSlice(), 8472, 100),
		"options":    options,
		"one VLAN":   withVLAN(plain, 0x8100),
		"two VLANs":  withVLAN(withVLAN(plain, 0x8100), 0x88a8),
		"no payload": datagram(p.mac, node4.AsSlice(), 8472, 0),
	} {
		p.send(t, b)
		got := r.expect(1)[0]
		if !got.tagged || got.tag.Port != 7 || !got.tag.Genuine {
			t.Errorf("%s: tagged %t, %+v", name, got.tagged, got.tag)
		}
		want := b[10:]
		if name == "one VLAN" || name == "two VLANs" {
			want = plain[10:]
		}
		copy(got.bytes[6:], p.mac[:])
		if !bytes.Equal(got.bytes, want) {
			t.Errorf("%s: sent\n% x, received\n% x", name, want, got.bytes)
		}
	}
}

// What is not ours is the kernel's: it answers pings, resolves neighbours, and
// delivers datagrams to other ports and TCP.
func TestUplinkLeaves(t *testing.T) {
	r := newRig(t, 1)
	p := r.addUplink()
	p.ns.MustPing(t, "10.7.0.1")
	p.ns.MustPing(t, "fd07::1")
	r.node.MustPing(t, "10.7.0.2")
	if err := p.ns.Ping(t, "10.7.0.1", 8000, time.Second); err != nil { // in fragments
		t.Error(err)
	}
	for _, addr := range []string{"10.7.0.1:9999", "[fd07::1]:9999"} {
		var l net.PacketConn
		r.node.Do(t, func() {
			var err error
			if l, err = net.ListenPacket("udp", addr); err != nil {
				t.Fatal(err)
			}
		})
		defer l.Close()
		var c net.Conn
		p.ns.Do(t, func() {
			var err error
			if c, err = net.Dial("udp", addr); err != nil {
				t.Fatal(err)
			}
		})
		defer c.Close()
		msg := make([]byte, 100)
		c.Write(msg)
		buf := make([]byte, 9000)
		l.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, _, err := l.ReadFrom(buf); n != len(msg) {
			t.Errorf("%s: %d of %d bytes arrived: %v", addr, n, len(msg), err)
		}
	}
	var l net.Listener
	r.node.Do(t, func() { l, _ = net.Listen("tcp", "10.7.0.1:8472") })
	go func() { c, _ := l.Accept(); c.Write([]byte("hello")); c.Close() }()
	p.ns.Do(t, func() {
		c, err := net.DialTimeout("tcp", "10.7.0.1:8472", 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		buf := make([]byte, 10)
		if n, _ := c.Read(buf); string(buf[:n]) != "hello" {
			t.Errorf("%q arrived", buf[:n])
		}
	})
	l.Close()
	r.expect(0)
}

// What is left has the bytes it came with.
func TestUplinkLeavesBytesAlone(t *testing.T) {
	r := newRig(t, 1)
	p := r.addUplink()
	// A macvlan takes frames behind the program, by their destination.
	mac := [6]byte{2, 0, 0, 0, 0, 9}
	r.node.Do(t, func() {
		parent, err := netlink.LinkByName(p.name)
		if err != nil {
			t.Fatal(err)
		}
		l := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "behind", ParentIndex: parent.Attrs().Index,
			HardwareAddr: mac[:]}, Mode: netlink.MACVLAN_MODE_VEPA}
		if err := netlink.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
	})
	r.node.Sysctl(t, "net.ipv6.conf.behind.disable_ipv6", "1")
	r.node.Up(t, "behind")
	seen := packetSocketAll(t, r.node, "behind")
	tooShort := datagram(p.mac, node4.AsSlice(), 8472, 0)
	fragment := datagram(p.mac, node4.AsSlice(), 8472, 100)
	fragment[30] = 0x20
	for _, b := range [][]byte{
		datagram(p.mac, node4.AsSlice(), 8473, 100),
		datagram(p.mac, net.ParseIP("10.7.0.9"), 8472, 100),
		datagram(p.mac, net.ParseIP("fd07::9"), 8472, 100),
		segment(p.mac, 1, 1, 10, 0),
		segment(p.mac, 1, 1, 3000, 1000),
		fragment,
		tooShort[:len(tooShort)-1],
		tooShort[:10+14+19],
	} {
		p.send(t, b)
		if got := seen.wait(t, 1)[0]; !bytes.Equal(got, b[10:]) {
			t.Errorf("sent\n% x, behind the program\n% x", b[10:][:60], got[:min(len(got), 60)])
		}
	}
	p.send(t, datagram(p.mac, node4.AsSlice(), 8472, 100))
	r.expect(1)
}

// A node's kernel that sends through a VXLAN device sends GSO frames whole: the
// segment size and the inner checksum's place come with them.
func TestUplinkTakesTunnelGSO(t *testing.T) {
	r := newRig(t, 1)
	p := r.addUplink()
	p.ns.Do(t, func() {
		l := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx", MTU: 1450}, VxlanId: 1, Port: 8472, Group: node4.AsSlice()}
		if err := netlink.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
	})
	p.ns.Sysctl(t, "net.ipv6.conf.vx.disable_ipv6", "1")
	p.ns.Up(t, "vx")
	p.ns.MustPing(t, "10.7.0.1") // the neighbour is known
	inner := &pod{sock: packetSocket(t, p.ns, "vx", 0)}
	var mac [6]byte
	copy(mac[:], p.ns.Attrs(t, "vx").HardwareAddr)
	sent := segment(mac, 1, 1, 30000, 1398)
	inner.send(t, sent)
	got := r.expect(1)[0]
	if !bytes.Equal(got.bytes[50:], sent[10:]) {
		t.Errorf("of %d bytes came %d, or others", len(sent)-10, len(got.bytes)-50)
	}
	if got.SegSize != 1398 || got.Flags&frame.SegTCP4 == 0 || got.CsumStart != 50+34 || got.CsumOffset != 16 {
		t.Errorf("%+v", got.Frame)
	}
}

// Headers that are not in the linear part of a frame are read all the same.
func TestUplinkTakesScatteredFrames(t *testing.T) {
	r := newRig(t, 1)
	p := r.addUplink()
	b := datagram(p.mac, node4.AsSlice(), 8472, 30000)
	b[1] = 5 // VIRTIO_NET_HDR_GSO_UDP_L4: without a header length only Ethernet's 14 bytes are linear
	b[0] = 1
	binary.NativeEndian.PutUint16(b[4:], 1000)
	binary.NativeEndian.PutUint16(b[6:], 34)
	binary.NativeEndian.PutUint16(b[8:], 6)
	p.send(t, b)
	if got := r.expect(1)[0]; got.tag.Port != 7 || len(got.bytes) != len(b)-10 || got.SegSize != 1000 || got.Flags&frame.SegUDP == 0 {
		t.Errorf("%d of %d bytes, %+v", len(got.bytes), len(b)-10, got.Frame)
	}
}

// Endpoints come and go while frames do; those of another uplink are its own.
func TestEndpoints(t *testing.T) {
	r := newRig(t, 1)
	p := r.addUplink()
	other := r.addVeth()
	r.node.Do(t, func() {
		var err error
		other.attach, err = r.in.AttachUplink(ifindex(t, other.name), other.name, 8, []xsk.Endpoint{{Addr: node4, Port: 4789}})
		if err != nil {
			t.Fatal(err)
		}
	})
	takes := func(p *pod, port uint16, want int) {
		t.Helper()
		p.send(t, datagram(p.mac, node4.AsSlice(), port, 100))
		r.expect(want)
	}
	takes(p, 8472, 1)
	takes(p, 4789, 0)
	takes(other, 8472, 0)
	takes(other, 4789, 1)
	if err := p.attach.SetEndpoints([]xsk.Endpoint{{Addr: node4, Port: 4789}}); err != nil {
		t.Fatal(err)
	}
	takes(p, 8472, 0)
	takes(p, 4789, 1)
	if err := p.attach.SetEndpoints(nil); err != nil {
		t.Fatal(err)
	}
	takes(p, 4789, 0)
	takes(other, 4789, 1)
	if err := other.attach.Close(); err != nil {
		t.Fatal(err)
	}
	takes(other, 4789, 0)
	if err := other.attach.SetEndpoints(ends); err == nil {
		t.Error("a closed attachment took endpoints")
	}
	var key intakeEndpoint
	var value uint8
	if m := r.in.coll.Maps[intakeMapEndpoints].Iterate(); m.Next(&key, &value) {
		t.Errorf("an endpoint is left: %+v", key)
	}
	pod := r.addPod()
	if err := pod.attach.SetEndpoints(ends); err == nil {
		t.Error("a pod's device took endpoints")
	}
}

// Packets for pods' prefixes and in IPIP are taken while they are asked for, and are the
// kernel's before and afterwards.
func TestUplinkTakesPrefixesAndIPIP(t *testing.T) {
	r := newRig(t, 1)
	p := r.addUplink()
	ipip := datagram(p.mac, node4.AsSlice(), 8472, 100)
	ipip[10+14+9] = 4
	fragment := datagram(p.mac, netip.MustParseAddr("10.244.1.9").AsSlice(), 9, 100)
	fragment[30] = 0x20
	frames := map[string][]byte{
		"IPIP":     ipip,
		"IPv4":     datagram(p.mac, netip.MustParseAddr("10.244.1.9").AsSlice(), 8472, 100),
		"IPv6":     datagram(p.mac, netip.MustParseAddr("fd44:1::9").AsSlice(), 9, 100),
		"a VLAN":   withVLAN(datagram(p.mac, netip.MustParseAddr("10.244.1.9").AsSlice(), 9, 100), 0x8100),
		"fragment": fragment,
	}
	check := func(want int) {
		t.Helper()
		for name, b := range frames {
			p.send(t, b)
			for _, got := range r.expect(want) {
				if !got.tagged || got.tag.Port != 7 {
					t.Errorf("%s: tagged %t, %+v", name, got.tagged, got.tag)
				}
			}
		}
		p.send(t, datagram(p.mac, netip.MustParseAddr("10.244.2.9").AsSlice(), 8472, 100)) // nobody's
		r.expect(0)
	}
	set := func(prefixes []netip.Prefix, ends ...xsk.Endpoint) {
		t.Helper()
		if err := errors.Join(p.attach.SetPrefixes(prefixes), p.attach.SetEndpoints(ends)); err != nil {
			t.Fatal(err)
		}
	}
	check(0)
	set([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd44:1::/64")}, xsk.Endpoint{Addr: node4})
	check(1)
	if err := p.attach.Merging(); err != nil {
		t.Errorf("without a UDP port: %v", err)
	}
	p.ns.MustPing(t, "10.7.0.1")
	set(nil)
	check(0)
	pod := r.addPod()
	if err := pod.attach.SetPrefixes(nil); err == nil {
		t.Error("a pod took prefixes")
	}
}
