package dataplane

import (
	"strings"
	"testing"

	"culvert/internal/drop"
	kit "culvert/internal/pkttest"
)

// A trace says how a packet would be translated, and then how it is.
func TestTraceNAT(t *testing.T) {
	h := mapPorts(t)
	c := h.pods["c"]
	pod := func(src, dst string, l4 kit.Layer) []byte {
		mac := macA
		if src != ipA {
			mac = c.mac.String()
		}
		return kit.Frame(t, kit.Eth(mac, gwMAC), kit.IP4(src, dst), l4, kit.Payload(8))
	}
	nat := func(f []byte) (all []string) {
		t.Helper()
		trace, err := h.e.Trace("", f)
		if err != nil || trace.Verdict != "forward" {
			t.Fatalf("%+v, %v", trace, err)
		}
		for _, s := range trace.Steps {
			if s.Table == "nat" {
				all = append(all, s.Result)
			}
		}
		return all
	}
	want := func(f []byte, parts ...string) {
		t.Helper()
		got := nat(f)
		if len(got) != len(parts) {
			t.Fatalf("nat: %q, want %q", got, parts)
		}
		for i, part := range parts {
			if !strings.Contains(got[i], part) {
				t.Errorf("nat: %q, want %q", got[i], part)
			}
		}
	}
	leaves := pod(ipA, outside, kit.UDP(4711, 53))
	want(leaves, "leaves with 192.168.0.1 and a free port from 61000 to 61009")
	h.fromPod("a", leaves)
	want(leaves, "becomes udp 192.168.0.1:61")
	want(pod(ipA, client, kit.UDP(4711, 53)))
	want(pod(ipA, c.addr.String(), kit.UDP(4711, 53)))

	mapped := pod(c.addr.String(), node1, kit.UDP(4711, 8080))
	want(mapped, "a mapped port: it becomes udp 10.244.1.3:4711 > 10.244.1.2:80")
	h.fromPod("c", mapped)
	want(mapped, "becomes udp 10.244.1.3:4711 > 10.244.1.2:80")
	want(pod(ipA, c.addr.String(), kit.UDP(80, 4711)), "becomes udp 192.168.0.1:8080 > 10.244.1.3:4711")
	want(pod(ipA, node1, kit.UDP(4711, 8080)), "10.244.1.2:4711 > 10.244.1.2:80", "leaves with 192.168.0.1 and a free port")
	h.pods["a"].dev.TakeSent()
	h.wantDrops(drop.None, 0)
}
