package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/config"
	"culvert/dataplane"
	"culvert/dataplane/flow"
	"culvert/internal/packet"
	"net/netip"
)

// agentWithFlows is an agent of which nothing is there but the flow table.
func agentWithFlows(t *testing.T, dir string) *Agent {
	t.Helper()
	e, err := dataplane.New(dataplane.Config{Workers: 1, FrameSize: 4096, RingSize: 64, Chunks: 1024, FlowCapacity: 1024})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return &Agent{cfg: &config.Config{StateDir: dir}, log: slog.New(slog.DiscardHandler), engine: e}
}

func tcpKey(src, dst string) packet.Key {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	k := packet.Key{Src: packet.AddrFrom(s.Addr()), Dst: packet.AddrFrom(d.Addr()), SrcPort: s.Port(), DstPort: d.Port(), Proto: packet.ProtoTCP, Family: 4}
	if s.Addr().Is6() {
		k.Family = 6
	}
	return k
}

// What the node's stack began and what is translated is there again after a restart; what
// can be seen from the next packet, and what is old, is not.
func TestFlowsAreKept(t *testing.T) {
	dir := t.TempDir()
	a := agentWithFlows(t, dir)
	hosts, natted, plain := tcpKey("10.244.1.2:4711", "10.244.2.2:80"), tcpKey("10.244.1.2:4712", "203.0.113.5:443"), tcpKey("10.244.1.2:1", "10.244.1.3:2")
	answers := tcpKey("203.0.113.5:443", "192.168.0.1:61000")
	six := tcpKey("[fd00::1]:7", "[fd00::2]:8")
	now := a.engine.Now()
	for _, f := range []struct {
		orig, reply packet.Key
		owner       uint16
	}{{hosts, hosts.Reverse(), flow.Host}, {natted, answers, flow.Wire}, {plain, plain.Reverse(), 3}, {six, six.Reverse(), flow.Host}} {
		if !a.engine.FlowTable().Restore(&f.orig, &f.reply, f.owner, now) {
			t.Fatalf("%s is not taken", f.orig)
		}
	}
	if err := a.keepFlows(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, flowsName))
	if err != nil {
		t.Fatal(err)
	}
	next := agentWithFlows(t, dir)
	next.restoreFlows()
	seen := map[string]flow.View{}
	next.engine.FlowTable().Range(func(v flow.View) bool { seen[v.Orig.String()] = v; return true })
	if len(seen) != 3 || !seen[hosts.String()].FromHost || seen[natted.String()].FromHost || seen[natted.String()].Reply != answers || !seen[six.String()].FromHost {
		t.Errorf("restored: %+v", seen)
	}
	if v := seen[hosts.String()]; v.State != flow.Established || !v.Assured {
		t.Errorf("%+v", v)
	}
	if _, err := os.Stat(filepath.Join(dir, flowsName)); err == nil {
		t.Error("the file is still there: the next start would take up what is over")
	}
	for name, text := range map[string]string{
		"old":      strings.Replace(string(text), time.Now().Format("2006"), "2001", 1),
		"nonsense": "{", "addresses": `{"saved":"` + time.Now().Format(time.RFC3339Nano) + `","flows":[{"orig":{"src":"10.0.0.1:1","dst":"[fd00::1]:2"},"reply":{}}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, flowsName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		other := agentWithFlows(t, dir)
		other.restoreFlows()
		if n := other.engine.FlowTable().Len(); n != 0 {
			t.Errorf("%s: %d flows", name, n)
		}
	}
}
