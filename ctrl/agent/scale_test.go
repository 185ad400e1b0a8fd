package agent

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/config"
	"culvert/ctrl/flavour"
	"culvert/ctrl/program"
	"culvert/ctrl/source"
	"culvert/fib"
	"culvert/internal/packet"
	"culvert/internal/testnet"
)

// A cluster of manyNodes, of which this node is n7; in calico mode with two blocks
// for each node, every address of which is given.
const (
	manyNodes = 5000
	ownNode   = 7
)

func nodeAddr(i int) string { return fmt.Sprintf("172.16.%d.%d", i/250, 1+i%250) }

// bigNode is one of them, as its mode has it, with a VTEP MAC that ends in mac.
func bigNode(mode string, i int, mac uint16) *corev1.Node {
	n := &corev1.Node{}
	n.Name = fmt.Sprintf("n%d", i)
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddr(i)}}
	vtep := fmt.Sprintf("66:%02x:%02x:01:%02x:%02x", i>>8, i&255, mac>>8, mac&255)
	cidr := fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)
	switch mode {
	case flavour.ModeNative:
		n.Spec.PodCIDRs = []string{cidr}
		n.Annotations = map[string]string{source.AnnotationVTEPMAC: vtep}
	case flavour.ModeFlannel:
		n.Spec.PodCIDRs = []string{cidr}
		const fl = "flannel.alpha.coreos.com/"
		n.Annotations = map[string]string{fl + "kube-subnet-manager": "true", fl + "backend-type": "vxlan", fl + "public-ip": nodeAddr(i),
			fl + "backend-data": fmt.Sprintf(`{"VNI":1,"VtepMAC":%q}`, vtep)}
	case flavour.ModeCalico:
		const pc = "projectcalico.org/"
		n.Annotations = map[string]string{pc + "IPv4Address": nodeAddr(i) + "/12", pc + "VXLANTunnelMACAddr": vtep,
			pc + "IPv4VXLANTunnelAddr": fmt.Sprintf("10.%d.%d.0", i/250, i%250)}
	}
	return n
}

// bigBlock is a block of node i's, with 64 addresses that are given to pods there.
func bigBlock(i, k int) *source.IPAMBlock {
	host := fmt.Sprintf("n%d", i)
	affinity := "host:" + host
	b := &source.IPAMBlock{}
	b.Name = fmt.Sprintf("10-%d-%d-%d-26", i/250, i%250, k*64)
	b.Spec.CIDR, b.Spec.Affinity = fmt.Sprintf("10.%d.%d.%d/26", i/250, i%250, k*64), &affinity
	for o := range 64 {
		attrs := map[string]string{"node": host, "namespace": "default", "pod": fmt.Sprintf("pod-%d", o)}
		if o == 0 && k == 0 {
			attrs = map[string]string{"node": host, "type": "vxlanTunnelAddress"}
		}
		b.Spec.Attributes = append(b.Spec.Attributes, source.IPAMBlockAttribute{Secondary: attrs})
		b.Spec.Allocations = append(b.Spec.Allocations, &o)
	}
	return b
}

// bigCluster is the set of objects. With whole, blocks say of every address whose it
// is, as a directory has them; otherwise other nodes' blocks say nothing of addresses
// that go where the block goes, as source kube keeps them.
func bigCluster(mode string, whole bool) *source.Objects {
	o := &source.Objects{}
	for i := range manyNodes {
		o.Nodes = append(o.Nodes, bigNode(mode, i, 0))
	}
	switch mode {
	case flavour.ModeFlannel:
		cm := &corev1.ConfigMap{}
		cm.Namespace, cm.Name = "kube-flannel", "kube-flannel-cfg"
		cm.Data = map[string]string{"net-conf.json": `{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}`}
		o.ConfigMaps = append(o.ConfigMaps, cm)
	case flavour.ModeCalico:
		p := &source.IPPool{}
		p.Name, p.Spec.CIDR, p.Spec.VXLANMode = "p", "10.0.0.0/8", "Always"
		o.IPPools = append(o.IPPools, p)
		for i := range manyNodes {
			for k := range 2 {
				block := bigBlock(i, k)
				if !whole && i != ownNode {
					block.Spec.Allocations, block.Spec.Attributes = nil, nil
				}
				o.IPAMBlocks = append(o.IPAMBlocks, block)
			}
		}
	}
	return o
}

// withMAC is the set after node i has another VTEP MAC.
func withMAC(o *source.Objects, mode string, i int, mac uint16) *source.Objects {
	next := *o
	next.Nodes = slices.Clone(o.Nodes)
	next.Nodes[i] = bigNode(mode, i, mac)
	return &next
}

// bigAgent is an agent in a namespace of its own, whose underlay has a gateway to all
// nodes; f runs there. It is not run: sets of objects are applied by hand.
func bigAgent(t testing.TB, mode string, f func(a *Agent)) {
	node, gw := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Veth(t, node, "eth0", gw, "eth0")
	node.AddAddr(t, "eth0", nodeAddr(ownNode)+"/12")
	dir := t.TempDir()
	node.Do(t, func() {
		text := fmt.Sprintf("mode: %s\nnode: n%d\nuplinks: [eth0]\nworkers: 1\nxdp: {mode: generic, ringSize: 256}\nflows: {capacity: 4096}\n"+
			"native: {clusterCIDRs: [10.0.0.0/8]}\nsource: dir:%s\nstateDir: %s\nsocket: %s/s\n", mode, ownNode, dir, dir, dir)
		cfg, err := config.Parse("c", []byte(text), nil)
		if err != nil {
			t.Error(err)
			return
		}
		a, err := New(cfg, slog.New(slog.DiscardHandler), "test")
		if err != nil {
			t.Error(err)
			return
		}
		up := a.underlay.Uplinks()[0]
		a.program.SetUplink(program.Uplink{Ifindex: up.Index, Name: up.Name})
		f(a)
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
}

// vtep is the MAC that packets for a pod of node i go to.
func vtep(s *fib.Snapshot, i int) packet.MAC {
	_, adj, ok := s.Lookup(packet.AddrFrom(netip.AddrFrom4([4]byte{10, byte(i / 250), byte(i % 250), 9})))
	if !ok {
		return packet.MAC{}
	}
	return adj.MAC
}

var modes = []string{flavour.ModeNative, flavour.ModeFlannel, flavour.ModeCalico}

// From objects to tables, in each mode: the first set, and one node's change in the
// next.
func TestApplyAtScale(t *testing.T) {
	for _, mode := range modes {
		bigAgent(t, mode, func(a *Agent) {
			objects := bigCluster(mode, true)
			a.apply(objects)
			first := a.program.Snapshot()
			d := a.program.Desired()
			if got := d.Nodes(); got != manyNodes-1 || len(d.Conflicts) != 0 {
				t.Errorf("%s: %d peers, %d conflicts", mode, got, len(d.Conflicts))
				return
			}
			if got := first.RouteCount(); got < manyNodes || mode == flavour.ModeCalico && got < 2*manyNodes {
				t.Errorf("%s: %d routes", mode, got)
			}
			a.apply(withMAC(objects, mode, 4321, 0x0102))
			s := a.program.Snapshot()
			if got := vtep(s, 4321); got != (packet.MAC{0x66, 4321 >> 8, 4321 & 255, 1, 1, 2}) {
				t.Errorf("%s: the changed node is reached at %s", mode, got)
			}
			if s.Gen() != first.Gen()+1 {
				t.Errorf("%s: one change was published in %d steps", mode, s.Gen()-first.Gen())
			}
			a.apply(withMAC(objects, mode, 4321, 0x0102))
			if a.program.Snapshot() != s {
				t.Errorf("%s: the same again was published", mode)
			}
		})
	}
}

// nodeChange applies one node's new MAC after the other, with the whole agent but no
// device, and reports percentiles.
func nodeChange(b *testing.B, mode string) {
	bigAgent(b, mode, func(a *Agent) {
		objects := bigCluster(mode, false)
		a.apply(objects)
		var took []time.Duration
		for i := 0; b.Loop(); i++ {
			next := withMAC(objects, mode, 100+i%4000, uint16(1+i))
			start := time.Now()
			a.apply(next)
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
		b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
		b.ReportMetric(heapMB(), "heap-MB")
		runtime.KeepAlive(objects)
	})
}

func heapMB() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

func BenchmarkNodeChangeNative5000(b *testing.B)  { nodeChange(b, flavour.ModeNative) }
func BenchmarkNodeChangeFlannel5000(b *testing.B) { nodeChange(b, flavour.ModeFlannel) }
func BenchmarkNodeChangeCalico5000(b *testing.B)  { nodeChange(b, flavour.ModeCalico) }

// BenchmarkBlockChangeCalico5000 is an address given out of one block, whose cluster is
// read anew: with a directory each pod, with source kube those of this node alone.
func BenchmarkBlockChangeCalico5000(b *testing.B) {
	bigAgent(b, flavour.ModeCalico, func(a *Agent) {
		objects := bigCluster(flavour.ModeCalico, true)
		a.apply(objects)
		for i := 0; b.Loop(); i++ {
			next := *objects
			next.IPAMBlocks = slices.Clone(objects.IPAMBlocks)
			at := 100 + i%9000
			block := *next.IPAMBlocks[at]
			block.Spec.Allocations = slices.Clone(block.Spec.Allocations)
			block.Spec.Allocations[9+i%50] = nil
			next.IPAMBlocks[at] = &block
			a.apply(&next)
		}
	})
}

// BenchmarkFlapping is a second of a thousand node updates, of which as many are applied
// together as come while the source rests: after a run of t it waits 2t. It reports
// the cores that takes, the collector of garbage included.
func BenchmarkFlapping(b *testing.B) {
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			bigAgent(b, mode, func(a *Agent) {
				objects := bigCluster(mode, false)
				a.apply(objects)
				before, start, sets, mac := usedCPU(b), time.Now(), 0, 0
				for b.Loop() {
					for second := time.Now(); time.Since(second) < time.Second; sets++ {
						next := *objects
						next.Nodes = slices.Clone(objects.Nodes)
						began := time.Now()
						for due := int(time.Since(start).Milliseconds()); mac < due; mac++ {
							next.Nodes[100+mac%4000] = bigNode(mode, 100+mac%4000, uint16(1+mac))
						}
						objects = &next
						a.apply(objects)
						time.Sleep(2 * time.Since(began))
					}
				}
				wall := time.Since(start)
				b.ReportMetric((usedCPU(b)-before).Seconds()/wall.Seconds(), "cores")
				b.ReportMetric(float64(sets)/wall.Seconds(), "sets/s")
			})
		})
	}
}

// usedCPU is the processor time of this process.
func usedCPU(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFirstSet is from the first set of objects to the published tables.
func BenchmarkFirstSet(b *testing.B) {
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			bigAgent(b, mode, func(a *Agent) {
				objects, nothing := bigCluster(mode, true), &source.Objects{Nodes: []*corev1.Node{bigNode(mode, ownNode, 0)}}
				for b.Loop() {
					b.StopTimer()
					a.apply(nothing)
					b.StartTimer()
					a.apply(objects)
				}
			})
		})
	}
}

// BenchmarkApplySteps is each step of Agent.applyLocked on one node's change.
func BenchmarkApplySteps(b *testing.B) {
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			bigAgent(b, mode, func(a *Agent) {
				objects := bigCluster(mode, false)
				a.apply(objects)
				spent := map[string]time.Duration{}
				n := 0
				for ; b.Loop(); n++ {
					next := withMAC(objects, mode, 100+n%4000, uint16(1+n))
					last := time.Now()
					step := func(name string) {
						now := time.Now()
						spent[name] += now.Sub(last)
						last = now
					}
					d := a.desire(next)
					step("desire")
					_ = a.kept.put(d.Annotations)
					step("kept")
					a.localize(d)
					step("localize")
					a.logChanges(a.program.Desired(), d)
					a.noteConflicts(d.Conflicts)
					step("log")
					if peers := peersOf(d); !slices.Equal(peers, a.peers) {
						b.Error("the peers are others")
					}
					step("peers")
					a.measureMTU()
					step("mtu")
					a.program.SetDesired(d)
					step("program")
					a.listen()
					step("listen")
					a.setPools(d.Local)
					step("pools")
					a.steer(true)
					step("steer")
				}
				for _, name := range slices.Sorted(maps.Keys(spent)) {
					b.ReportMetric(float64(spent[name].Microseconds())/float64(n), name+"-µs")
				}
			})
		})
	}
}
