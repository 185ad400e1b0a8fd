package flow

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/internal/packet"
	"culvert/internal/testnet"
)

// oracle is a router of the real kernel: a namespace with two TUN devices, which
// forwards between them what its conntrack does not call INVALID.
type oracle struct {
	t      *testing.T
	tun    [2]*os.File // by direction: where its packets go in
	buf    [2048]byte
	marker uint16
	wild   bool // the ends say what no TCP would
}

var oracleAddr = [2][4]byte{{10, 9, 0, 2}, {10, 9, 1, 2}}

const oracleRules = `table ip t { chain f { type filter hook forward priority 0; ct state invalid drop; }; }`

// withOracle runs f with a router, on a thread inside its namespace.
func withOracle(t *testing.T, f func(o *oracle)) {
	t.Helper()
	ns := testnet.NewNS(t)
	for _, key := range []string{"net.ipv4.ip_forward=1", "net.netfilter.nf_conntrack_checksum=0", "net.ipv4.conf.all.rp_filter=0"} {
		k, v, _ := strings.Cut(key, "=")
		ns.Sysctl(t, k, v)
	}
	ns.Do(t, func() {
		o := &oracle{t: t}
		for i := range o.tun {
			o.tun[i] = openTun(t, fmt.Sprintf("cvt%d", i), fmt.Sprintf("10.9.%d.1/24", i))
			defer o.tun[i].Close()
		}
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(oracleRules)
		if out, err := nft.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
		f(o)
	})
}

// openTun makes a TUN device that is up, with an address.
func openTun(t *testing.T, name, cidr string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("opening /dev/net/tun: %v", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatalf("making TUN %s: %v", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name)
}

// ip4 is an IPv4 packet of a direction.
func ip4(dir Direction, proto uint8, l4 []byte) []byte {
	p := make([]byte, 20, 20+len(l4))
	p[0], p[8], p[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(l4)))
	copy(p[12:], oracleAddr[dir][:])
	copy(p[16:], oracleAddr[dir.Other()][:])
	packet.IPv4(p).SetCheck()
	return append(p, l4...)
}

// pass sends a packet and reports whether the router forwarded it: whether it came
// out before a datagram that was sent behind it.
func (o *oracle) pass(dir Direction, proto uint8, l4 []byte) (passed bool) {
	o.t.Helper()
	o.marker++
	mark := make([]byte, 10)
	binary.BigEndian.PutUint16(mark, 7)
	binary.BigEndian.PutUint16(mark[2:], 9)
	binary.BigEndian.PutUint16(mark[4:], 10)
	binary.BigEndian.PutUint16(mark[8:], o.marker)
	for _, p := range [][]byte{ip4(dir, proto, l4), ip4(dir, packet.ProtoUDP, mark)} {
		if _, err := o.tun[dir].Write(p); err != nil {
			o.t.Fatalf("sending: %v", err)
		}
	}
	out := o.tun[dir.Other()]
	if err := out.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		o.t.Fatal(err)
	}
	for {
		n, err := out.Read(o.buf[:])
		if err != nil {
			o.t.Fatalf("the marker did not come out: %v", err)
		}
		switch got := o.buf[:n]; {
		case got[0]>>4 != 4:
		case got[9] == packet.ProtoUDP && n == 30 && binary.BigEndian.Uint16(got[28:]) == o.marker:
			return passed
		case got[9] == proto:
			passed = true
		}
	}
}

// kernelFlow is what the kernel's table says of a flow.
type kernelFlow struct {
	state              string
	timeout            int
	unreplied, assured bool
}

// flow reads the kernel's entry; ok is false when there is none in that direction.
func (o *oracle) flow(proto string, sport uint16) (f kernelFlow, ok bool) {
	o.t.Helper()
	all, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
	if err != nil {
		o.t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		w := strings.Fields(line)
		if len(w) < 11 || w[2] != proto || w[6] != "src=10.9.0.2" || w[8] != fmt.Sprintf("sport=%d", sport) {
			continue
		}
		f.timeout, _ = strconv.Atoi(w[4])
		f.state = w[5]
		f.unreplied, f.assured = strings.Contains(line, "[UNREPLIED]"), strings.Contains(line, "[ASSURED]")
		return f, true
	}
	return f, false
}

// compare says how the kernel's opinion of a flow differs from ours, if it does.
// renewed says that the last packet has set a timeout; otherwise ours and the
// kernel's clock differ, and a stalled connection's timeout is shortened with the
// next packet there, at once here.
func (o *oracle) compare(e *Entry, proto string, sport uint16, now uint32, renewed bool) (diff string, gone bool) {
	k, ok := o.flow(proto, sport)
	killed := renewed && e.Expiry() == now
	if !ok || killed {
		if ok || !killed {
			return fmt.Sprintf("there in the kernel: %v; killed here: %v", ok, killed), true
		}
		return "", true
	}
	ours := kernelFlow{e.State().String(), int(e.Expiry() - now), !e.Replied(), e.Assured()}
	if o.wild && k.state == "ESTABLISHED" {
		// Whether something is unacknowledged is told there by what a packet
		// changed and here by what is so: different for ends that contradict
		// themselves, such as a client that acknowledges less than the SYN.
		k.timeout = ours.timeout
	}
	if d := ours.timeout - k.timeout; !renewed || d >= 0 && d <= 3 { // the kernel's clock goes on
		k.timeout = ours.timeout
	}
	if ours != k {
		return fmt.Sprintf("kernel %+v, ours %+v", k, ours), false
	}
	return "", false
}

// tcpLine is one line of a conversation.
type tcpLine struct {
	dir     Direction
	h       []byte
	payload int
}

func (l *tcpLine) String() string {
	s := readSegment(l.h, l.payload)
	return fmt.Sprintf("%-8s flags %02x seq %d end %d ack %d win %d sack %d", l.dir, s.flags, s.seq, s.end, s.ack, s.win, s.sackTo)
}

// runTCP plays a conversation to both and fails where they differ.
func (o *oracle) runTCP(sport uint16, next func(i int, m *modelTCP) (tcpLine, bool)) bool {
	now := uint32(1000)
	e := mustInsert(o.t, heapTable(o.t, 1), packet.ProtoTCP, sport, 80, now)
	m := newModelTCP(now) // only to make segments
	var said []string
	for i := 0; ; i++ {
		l, more := next(i, m)
		if !more {
			return true
		}
		l4 := append(append([]byte(nil), l.h...), make([]byte, l.payload)...)
		src, dst := sport, uint16(80)
		if l.dir == Reply {
			src, dst = dst, src
		}
		binary.BigEndian.PutUint16(l4, src)
		binary.BigEndian.PutUint16(l4[2:], dst)
		now++
		before := control(e.ctl.Load())
		if known(m, &l) {
			return true
		}
		passed := o.pass(l.dir, packet.ProtoTCP, l4)
		result := sendTCP(e, l.dir, l.h, l.payload, now)
		m.packet(l.dir, readSegment(l.h, l.payload), now)
		said = append(said, fmt.Sprintf("%s -> %s %d", &l, e.State(), result))
		if passed != (result == Pass) {
			o.t.Errorf("kernel passes: %v, ours: %v\n%s", passed, result == Pass, strings.Join(said, "\n"))
			return false
		}
		diff, gone := o.compare(e, "tcp", sport, now, control(e.ctl.Load()).expiry() != before.expiry())
		if diff != "" {
			o.t.Errorf("%s\n%s", diff, strings.Join(said, "\n"))
			return false
		}
		if gone {
			return true
		}
	}
}

// known reports whether Culvert is known, and meant, to see a segment otherwise.
func known(m *modelTCP, l *tcpLine) bool {
	s := readSegment(l.h, l.payload)
	switch {
	case l.dir == Reply && s.ev == evSYN && m.state == TimeWait:
		return true // our flow keeps its directions: see tcpNext
	case s.ev != evRST:
		return false
	case m.last == evSYN && s.ack == 0:
		return true // the kernel compares with what it has not yet set, 0, and lets it pass
	}
	// A reset behind the data: the kernel compares with the last segment, which may
	// be a keep-alive, and Culvert with the highest.
	return m.lastDir == l.dir && m.last == evACK && s.seq == m.side[l.dir].end && s.seq != m.bare[l.dir][2]
}

// TestTCPAsTheKernel plays conversations, mostly sensible and always begun by a
// SYN, to the kernel's conntrack and to ours.
func TestTCPAsTheKernel(t *testing.T) {
	withOracle(t, func(o *oracle) {
		bad := 0
		for seed := range uint64(300) {
			r := rand.New(rand.NewPCG(seed, 3))
			o.wild = seed%3 != 1 || seed%4 == 0
			ok := o.runTCP(uint16(10000+seed), func(i int, m *modelTCP) (tcpLine, bool) {
				dir := Direction(r.IntN(2))
				flags := []uint8{tcpACK, tcpACK, tcpACK, tcpACK | tcpPSH, tcpACK, tcpSYN, tcpSYN | tcpACK, tcpFIN | tcpACK, tcpRST,
					tcpRST | tcpACK, tcpACK | tcpURG, tcpACK, tcpACK, tcpSYN | tcpFIN, tcpFIN | tcpACK, tcpFIN}[r.IntN(16)]
				how, amount := uint8(r.IntN(12)*b2i(r.IntN(3) != 0)), uint8(r.IntN(256)>>r.IntN(8))
				if !o.wild {
					flags = []uint8{tcpACK, tcpACK | tcpPSH, tcpACK, tcpFIN | tcpACK}[r.IntN(3+i/20)]
					how = []uint8{0, 0, 1, 2, 4, 9, 11}[r.IntN(7)]
				}
				if seed%4 != 0 && i < 3 { // a handshake
					dir, flags, how = Direction(i&1), []uint8{tcpSYN, tcpSYN | tcpACK, tcpACK}[i], 0
				}
				if i == 0 {
					dir, flags = Original, tcpSYN
				}
				if dir == Original && flags == tcpSYN|tcpACK {
					amount = 0 // without options: the kernel scales its windows whatever the other end said
				}
				h, payload := m.segment(dir, flags, how, amount)
				return tcpLine{dir, h, min(payload, 1400)}, i < 30
			})
			if !ok {
				if bad++; bad == 5 {
					t.FailNow()
				}
			}
		}
	})
}
