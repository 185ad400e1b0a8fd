//go:build kube

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"culvert/ctrl/api"
	"culvert/internal/kubetest"
	"culvert/internal/lab"
)

var (
	scaleNodes = flag.Int("scale", 300, "TestKubeScale: nodes of the cluster, two blocks each")
	scaleFlap  = flag.Duration("flap", 3*time.Second, "TestKubeScale: how long nodes flap")
)

// A cluster of many nodes at a real API server: how long the first tables take, how
// soon a node's change is in them, and what a thousand changes a second cost. The
// figures are for a quiet machine; what fails is a lost packet, or far from the goal.
func TestKubeScale(t *testing.T) {
	n := *scaleNodes
	s := serve(t)
	s.InstallCalico(t, kubetest.CalicoV1)
	began := time.Now()
	load(t, s, n)
	t.Logf("%d nodes, %d blocks: loaded in %s", n, 2*n, time.Since(began).Round(time.Second))

	cluster := calicoCluster(t, "calico")
	cluster.Nodes[1].Pods = cluster.Nodes[1].Pods[1:]
	c := up(t, lab.Options{Cluster: cluster, Source: func(l *lab.Lab, node *lab.Node) (string, error) {
		must(t, node.Netns, "ip", "route", "add", "172.16.0.0/12", "via", "192.168.0.40") // to all of the others
		return s.source(l, node)
	}})
	node, server := c.Nodes[1], c.Nodes[2].Pods[0]
	waitStatus(t, node, "complete", func(st api.Status) bool { return st.Peers == n+2 && st.Routes >= 2*n })
	t.Logf("first tables: %s; %s", firstTables(t, node), resident(t, node))

	took := changes(t, s, node, n)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	t.Logf("%d changes, each of one node, from the API server's answer to the tables: half within %s, 99 of 100 within %s", len(took), p50, p99)
	if p50 > time.Second {
		t.Errorf("half of the changes took more than %s", p50)
	}

	ping := startPing(node.Pods[0].Netns, server.Addr.String())
	cpu, start := cpuOf(t, node), time.Now()
	wrote := flap(t, s, n, *scaleFlap)
	used, wall := cpuOf(t, node)-cpu, time.Since(start)
	sent, received := ping.result(t)
	t.Logf("%d changes in %s: culvertd took %.2f cores; %d of %d pings came back; %s",
		wrote, wall.Round(time.Millisecond), used.Seconds()/wall.Seconds(), received, sent, resident(t, node))
	if received < sent-1 { // the last one may be on its way
		t.Errorf("%d of %d pings came back while other nodes flapped", received, sent)
	}
}

func scaleName(i int) string { return fmt.Sprintf("scale-%d", i) }

// scaleMAC is node i's VTEP in its k-th state.
func scaleMAC(i, k int) string {
	return fmt.Sprintf("66:01:%02x:%02x:%02x:%02x", i>>8, i&255, k>>8&255, k&255)
}

// load fills the API server, many objects at once.
func load(t *testing.T, s *apiServer, n int) {
	t.Helper()
	s.Apply(t, `{apiVersion: crd.projectcalico.org/v1, kind: IPPool, metadata: {name: scale}, spec: {cidr: 10.0.0.0/9, blockSize: 26, vxlanMode: Always}}`)
	client := s.Objects(t)
	var numbers []string
	for i := range 64 {
		numbers = append(numbers, strconv.Itoa(i))
	}
	every := strings.Join(numbers, ",")
	parallel(t, n, func(ctx context.Context, i int) error {
		name := scaleName(i)
		err := create(ctx, client, fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q,"annotations":{"projectcalico.org/IPv4Address":"172.16.%d.%d/12",
			"projectcalico.org/IPv4VXLANTunnelAddr":"10.%d.%d.0","projectcalico.org/VXLANTunnelMACAddr":%q}}}`, name, i/250, 1+i%250, i/250, i%250, scaleMAC(i, 0)))
		for k := range 2 {
			cidr := fmt.Sprintf("10.%d.%d.%d/26", i/250, i%250, 64*k)
			object := strings.NewReplacer(".", "-", "/", "-").Replace(cidr)
			err = errors.Join(err, create(ctx, client, fmt.Sprintf(`{"apiVersion":"crd.projectcalico.org/v1","kind":"IPAMBlock","metadata":{"name":%q},"spec":{"cidr":%q,
				"affinity":"host:%s","strictAffinity":false,"deleted":false,"sequenceNumber":1,"allocations":[%s],"unallocated":[],"attributes":[%s]}}`,
				object, cidr, name, every, attributes(name, i, k))),
				create(ctx, client, fmt.Sprintf(`{"apiVersion":"crd.projectcalico.org/v1","kind":"BlockAffinity","metadata":{"name":"%s-%s"},"spec":{"cidr":%q,
				"deleted":"false","node":%q,"state":"confirmed"}}`, name, object, cidr, name)))
		}
		return err
	})
}

// attributes are those of 64 addresses: pods', and in the first block the tunnel's.
func attributes(node string, i, k int) string {
	var all []string
	for o := range 64 {
		if o == 0 && k == 0 {
			all = append(all, fmt.Sprintf(`{"handle_id":"vxlan-tunnel-addr-%s","secondary":{"node":%q,"type":"vxlanTunnelAddress"}}`, node, node))
			continue
		}
		all = append(all, fmt.Sprintf(`{"handle_id":"k8s-pod-network.%016x","secondary":{"node":%q,"namespace":"default","pod":"pod-%d"}}`, i<<8|k<<6|o, node, o))
	}
	return strings.Join(all, ",")
}

func create(ctx context.Context, client dynamic.Interface, text string) error {
	var u unstructured.Unstructured
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		return err
	}
	_, err := client.Resource(kubetest.Resource(&u)).Create(ctx, &u, metav1.CreateOptions{})
	return err
}

// parallel calls f for 0 to n-1, many at once.
func parallel(t *testing.T, n int, f func(ctx context.Context, i int) error) {
	t.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
				if err := f(t.Context(), i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// firstTables is how long a node's agent took from the end of the lists to the tables.
func firstTables(t *testing.T, n *lab.Node) string {
	t.Helper()
	log, err := os.ReadFile(n.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	var read, peers time.Time
	for line := range strings.Lines(string(log)) {
		at, err := time.Parse(time.RFC3339Nano, strings.TrimPrefix(strings.Fields(line)[0], "time="))
		switch {
		case err != nil:
		case strings.Contains(line, `msg="objects read"`) && read.IsZero():
			read = at
		case strings.Contains(line, `msg="peer is `), strings.Contains(line, "msg=peers"):
			peers = at // the last step of the first set that is logged
		}
	}
	if read.IsZero() || peers.IsZero() {
		t.Fatalf("the log does not say when objects were read:\n%s", log)
	}
	return peers.Sub(read).String()
}

// resident is the memory of a node's agent.
func resident(t *testing.T, n *lab.Node) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") || strings.HasPrefix(line, "RssShmem") {
			out = append(out, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(out, ", ")
}

// cpuOf is the processor time that a node's agent has used.
func cpuOf(t *testing.T, n *lab.Node) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ
}

// changes gives one node after the other another MAC and returns how long each took to
// be in the tables, in order.
func changes(t *testing.T, s *apiServer, node *lab.Node, n int) (took []time.Duration) {
	t.Helper()
	client, agent := s.Objects(t).Resource(nodeResource), api.NewClient(node.Socket)
	for k := range 200 {
		i := k * 7 % n
		if _, err := client.Patch(t.Context(), scaleName(i), types.MergePatchType, macPatch(i, 1+k), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for {
			var r api.Route
			err := agent.Get(t.Context(), fmt.Sprintf("/v1/route?address=10.%d.%d.9", i/250, i%250), &r)
			if err == nil && r.MAC == scaleMAC(i, 1+k) {
				break
			}
			if time.Since(start) > 20*time.Second {
				t.Fatalf("node %s: %v, route %+v, want MAC %s", scaleName(i), err, r, scaleMAC(i, 1+k))
			}
			time.Sleep(500 * time.Microsecond) // there are two cores, and an API server
		}
		took = append(took, time.Since(start))
		time.Sleep(100 * time.Millisecond) // changes that come at once are applied together, after a pause
	}
	slices.Sort(took)
	return took
}

func macPatch(i, k int) []byte {
	return fmt.Appendf(nil, `{"metadata":{"annotations":{"projectcalico.org/VXLANTunnelMACAddr":%q}}}`, scaleMAC(i, k))
}

// flap changes nodes, up to a thousand a second, and returns how many it did.
func flap(t *testing.T, s *apiServer, n int, d time.Duration) int {
	t.Helper()
	client, start := s.Objects(t).Resource(nodeResource), time.Now()
	most := int(d.Milliseconds())
	var done atomic.Int64
	parallel(t, most, func(ctx context.Context, k int) error {
		due := start.Add(time.Duration(k) * time.Millisecond)
		if time.Since(start) > d {
			return nil
		}
		time.Sleep(time.Until(due))
		done.Add(1)
		_, err := client.Patch(ctx, scaleName(k%n), types.MergePatchType, macPatch(k%n, 1000+k), metav1.PatchOptions{})
		return err
	})
	return int(done.Load())
}
