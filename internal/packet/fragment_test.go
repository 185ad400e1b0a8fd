package packet_test

import (
	"bytes"
	"testing"

	"culvert/internal/drop"
	"culvert/internal/packet"
	"culvert/internal/pkttest"
)

// reassemble puts fragments of one packet together and checks each.
func reassemble(t *testing.T, frags [][]byte, mtu, base int, lastMore bool) []byte {
	t.Helper()
	var payload []byte
	for i, f := range frags {
		more := i < len(frags)-1 || lastMore
		if len(f) > mtu {
			t.Errorf("fragment %d has %d bytes, MTU %d", i, len(f), mtu)
		}
		pkttest.CheckPacket(t, etherFrame(f), pkttest.WithFragment(base+len(payload), more), pkttest.WithID(77), pkttest.WithTTL(9), pkttest.WithTOS(4))
		if r := packet.Parse(etherFrame(f), 14+len(f), new(packet.Info)); r != drop.None && r != drop.L4Truncated {
			t.Errorf("fragment %d is refused: %s", i, r)
		}
		payload = append(payload, f[packet.IPv4(f).HeaderLen():]...)
	}
	return payload
}

func cut(t *testing.T, f []byte, mtu int) ([][]byte, drop.Reason) {
	t.Helper()
	info := parsed(t, f)
	bufs, lens := make([][]byte, 200), make([]int, 200)
	for i := range bufs {
		bufs[i] = make([]byte, mtu)
	}
	n, r := packet.Fragment4(bufs, lens, f[info.L3:], info, mtu)
	for i := range n {
		bufs[i] = bufs[i][:lens[i]]
	}
	return bufs[:n], r
}

func TestFragment4(t *testing.T) {
	ip := func(opts ...func(o *ip4)) *ip4 {
		h := pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.ID(77), pkttest.TTL(9), pkttest.TOS(4))
		for _, o := range opts {
			o(h)
		}
		return h
	}
	for _, mtu := range []int{68, 576, 1280, 1400, 1499, 1500} {
		for _, n := range []int{0, 1, 7, 8, 40, 1372, 1373, 1472, 3000, 8000} {
			f := pkttest.Pad(pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), ip(), pkttest.UDP(1, 2), pkttest.Payload(n)), 5)
			frags, r := cut(t, f, mtu)
			if r != drop.None {
				t.Fatal(r)
			}
			if want := (8 + n + (mtu-20)&^7 - 1) / ((mtu - 20) &^ 7); 8+n > mtu-20 && len(frags) != want {
				t.Errorf("MTU %d, %d bytes: %d fragments, want %d", mtu, n, len(frags), want)
			}
			if got := reassemble(t, frags, mtu, 0, false); !bytes.Equal(got, f[34:len(f)-5]) {
				t.Errorf("MTU %d, %d bytes: payload differs", mtu, n)
			}
		}
	}
	// A fragment in the middle of a packet is cut again.
	f := pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), ip(pkttest.Fragment(1480, true), pkttest.Proto(17)), pkttest.Payload(1480))
	frags, _ := cut(t, f, 600)
	if got := reassemble(t, frags, 600, 1480, true); !bytes.Equal(got, f[34:]) || len(frags) != 3 {
		t.Errorf("cut again: %d fragments", len(frags))
	}
	// Record route (7) is not copied, security (130) is.
	opts := ip(pkttest.Option(7, 8, 1, 2, 3, 4), pkttest.Option(130, 9, 9, 9, 9, 9, 9, 9, 9, 9))
	f = pkttest.Frame(t, pkttest.Eth(podMAC, gwMAC), opts, pkttest.UDP(1, 2), pkttest.Payload(1000))
	frags, _ = cut(t, f, 600)
	if got := reassemble(t, frags, 600, 0, false); !bytes.Equal(got, f[14+40:]) {
		t.Error("with options: payload differs")
	}
	if !bytes.Equal(frags[0][20:40], f[34:54]) {
		t.Errorf("options of the first fragment: % x", frags[0][20:40])
	}
	if want := append([]byte{1, 1, 1, 1, 1, 1, 1}, f[41:54]...); !bytes.Equal(frags[1][20:40], want) {
		t.Errorf("options of the second fragment: % x, want % x", frags[1][20:40], want)
	}
}

func TestFragment4Refusals(t *testing.T) {
	eth := pkttest.Eth(podMAC, gwMAC)
	plain := pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3"), pkttest.UDP(1, 2), pkttest.Payload(1000))
	tests := []struct {
		name   string
		frame  []byte
		mtu    int
		reason drop.Reason
	}{
		{"DF", pkttest.Frame(t, eth, pkttest.IP4("10.1.0.2", "10.1.1.3", pkttest.DF()), pkttest.UDP(1, 2), pkttest.Payload(1000)), 500, drop.TooBig},
		{"IPv6", pkttest.Frame(t, eth, pkttest.IP6("fd00::1", "fd00::2"), pkttest.UDP(1, 2), pkttest.Payload(1000)), 500, drop.TooBig},
		{"MTU 27", plain, 27, drop.TooBig},
		{"no end of fragments", plain, 28, drop.None},
	}
	for _, tt := range tests {
		if _, r := cut(t, tt.frame, tt.mtu); r != tt.reason {
			t.Errorf("%s: %s, want %s", tt.name, r, tt.reason)
		}
	}
	info := parsed(t, plain)
	if _, r := packet.Fragment4(make([][]byte, 1), make([]int, 0), plain[14:], info, 500); r != drop.NoBuffer {
		t.Errorf("too few buffers: %s", r)
	}
}
