package packet_test

import (
	"os/exec"
	"regexp"
	"testing"
)

// The small helpers of the packet path must be inlined: a call costs more than
// what they do. The compiler says what it can inline.
func TestInlining(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the compiler")
	}
	out, err := exec.Command("go", "build", "-gcflags=-m", "culvert/internal/packet").CombinedOutput()
	if err != nil {
		t.Fatalf("no Go compiler to ask: %v\n%s", err, out)
	}
	inlined := map[string]bool{}
	for _, m := range regexp.MustCompile(`can inline (\S+)`).FindAllSubmatch(out, -1) {
		inlined[string(m[1])] = true
	}
	if len(inlined) == 0 {
		t.Fatalf("the compiler said nothing:\n%s", out)
	}
	for _, name := range []string{
		"AddrFrom4", "(*Addr).Is4", "(*Addr).V4", "(*Addr).Fold", "(*Addr).SetV4", "(*Addr).setV4",
		"(*Info).Has", "(*Info).PayloadLen", "(*Key).Reverse",
		"Fold", "fold64", "congruent0", "Checksum", "PseudoSum4", "UpdateSum", "DecrementTTL4", "StoreChecksum",
		"CheckOK20", "partial", "checkAddresses4", "checkSource4",
		"Ethernet.Dst", "Ethernet.Src", "Ethernet.EtherType", "Ethernet.SetDst", "Ethernet.SetSrc", "Ethernet.SetEtherType",
		"IPv4.Version", "IPv4.HeaderLen", "IPv4.TOS", "IPv4.TotalLen", "IPv4.ID", "IPv4.Frag", "IPv4.TTL", "IPv4.Proto",
		"IPv4.Check", "IPv4.Src", "IPv4.Dst", "IPv4.SetTotalLen", "IPv4.SetID", "IPv4.SetTTL", "IPv4.UpdateTOS",
		"IPv6.Version", "IPv6.TrafficClass", "IPv6.PayloadLen", "IPv6.NextHeader", "IPv6.HopLimit", "IPv6.SetTrafficClass", "IPv6.SetHopLimit",
		"UDP.SrcPort", "UDP.DstPort", "UDP.Len", "UDP.Check",
		"TCP.SrcPort", "TCP.DstPort", "TCP.Seq", "TCP.Ack", "TCP.HeaderLen", "TCP.Flags", "TCP.Window", "TCP.Check",
		"(*Merge).Closed", "(*Merge).Segments", "(*Merge).Size", "(*Merge).Len", "(*Merge).continuesID", "continuesTCP", "sameOptions",
		"VXLAN.Flags", "VXLAN.VNI", "ICMPv4.ID", "ICMPv4.Seq", "ICMPv6.ID", "ARP.Op", "ARP.SenderMAC", "ARP.TargetIP",
	} {
		if !inlined[name] {
			t.Errorf("%s is not inlined any more", name)
		}
	}
}
