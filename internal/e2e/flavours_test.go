package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"culvert/ctrl/api"
	"culvert/ctrl/flavour"
	"culvert/ctrl/podlink"
	"culvert/internal/lab"
)

// The clusters of the write-up that this project began with, with a Culvert node in
// the place of one of the kernel's. The manifests are those of ctrl/testdata.

const (
	macMaster  = "66:21:c3:1b:bf:6a"
	macWorker1 = "66:c0:2a:ba:db:54"
	macWorker2 = "66:61:0d:36:b4:86"
	macServer  = "be:7e:3c:5f:81:10"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

func manifestFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("../../ctrl/testdata/" + dir + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no manifests in %s: %v", dir, err)
	}
	return files
}

// calicoCluster is the cluster of three Calico nodes, of which Culvert runs worker1.
func calicoCluster(t *testing.T, mode string) *lab.Cluster {
	return &lab.Cluster{
		Mode: mode, Manifests: manifestFiles(t, "calico"), Underlay: prefix("192.168.0.0/24"), Pods: prefix("10.244.0.0/16"), VNI: 4096, Port: 4789,
		Nodes: []lab.ClusterNode{
			{Name: "master", Kind: lab.Calico, Addr: addr("192.168.0.40"), PodCIDR: prefix("10.244.186.128/26"), VTEPMAC: macMaster},
			{Name: "worker1", Kind: lab.Culvert, Addr: addr("192.168.0.41"), PodCIDR: prefix("10.244.127.64/26"), VTEPMAC: macWorker1,
				Pods: []lab.ClusterPod{{Name: "client", Addr: addr("10.244.127.75")}, {Name: "any"}}},
			{Name: "worker2", Kind: lab.Calico, Addr: addr("192.168.0.42"), PodCIDR: prefix("10.244.50.128/26"), VTEPMAC: macWorker2,
				Pods: []lab.ClusterPod{{Name: "server", Addr: addr("10.244.50.143")}}},
		},
	}
}

// flannelCluster is the cluster of two Flannel nodes, of which Culvert runs agent.
func flannelCluster(manifests []string, agentMAC string) *lab.Cluster {
	return &lab.Cluster{
		Mode: "auto", Manifests: manifests, Underlay: prefix("192.168.0.0/24"), Pods: prefix("10.42.0.0/16"), VNI: 1, Port: 8472,
		Nodes: []lab.ClusterNode{
			{Name: "server", Kind: lab.Flannel, Addr: addr("192.168.0.10"), PodCIDR: prefix("10.42.0.0/24"), VTEPMAC: macServer,
				Pods: []lab.ClusterPod{{Name: "s1", Addr: addr("10.42.0.7")}}},
			{Name: "agent", Kind: lab.Culvert, Addr: addr("192.168.0.11"), PodCIDR: prefix("10.42.1.0/24"), VTEPMAC: agentMAC,
				Pods: []lab.ClusterPod{{Name: "a1"}, {Name: "a2"}}},
		},
	}
}

// wants compares the lines of a command's table with those that must be in it.
func wants(t *testing.T, n *lab.Node, command string, want ...string) {
	t.Helper()
	out := culvert(t, n, strings.Fields(command)...)
	have := strings.Split(strings.TrimSpace(out), "\n")
	for _, w := range want {
		if !slices.ContainsFunc(have, func(line string) bool { return strings.Join(strings.Fields(line), " ") == w }) {
			t.Errorf("culvert %s has no line %q:\n%s", command, w, out)
		}
	}
}

// encapsulated is a VXLAN frame as a line, with the addresses and MACs outside and
// inside; empty if f is none with ICMP in it.
func encapsulated(f []byte) string {
	outer := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)
	udp, ok := outer.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok {
		return ""
	}
	inner := gopacket.NewPacket(udp.Payload, layers.LayerTypeVXLAN, gopacket.NoCopy) // whatever the port
	vxlan, ok := inner.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
	if !ok || !vxlan.ValidIDFlag || inner.Layer(layers.LayerTypeICMPv4) == nil {
		return ""
	}
	return fmt.Sprintf("%s, udp %d, vni %d, %s", ends(outer), uint16(udp.DstPort), vxlan.VNI, ends(inner))
}

// ends are the MACs and addresses of a packet's first headers.
func ends(p gopacket.Packet) string {
	eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	if eth == nil || ip == nil {
		return "no packet"
	}
	return fmt.Sprintf("%s > %s, %s > %s", eth.SrcMAC, eth.DstMAC, ip.SrcIP, ip.DstIP)
}

// arrives waits for a frame that is as the line says.
func arrives(t *testing.T, at *tap, want string) {
	t.Helper()
	var seen []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		line := encapsulated(at.receive(t, 500*time.Millisecond))
		if line == want {
			return
		}
		if line != "" && !slices.Contains(seen, line) {
			seen = append(seen, line)
		}
	}
	t.Errorf("no frame arrives as\n  %s\nbut\n  %s", want, strings.Join(seen, "\n  "))
}

func TestCalicoClusterOfTheWriteUp(t *testing.T) {
	for _, mode := range []string{"calico", "auto"} {
		t.Run(mode, func(t *testing.T) { testCalicoCluster(t, mode) })
	}
}

func testCalicoCluster(t *testing.T, mode string) {
	c := up(t, lab.Options{Cluster: calicoCluster(t, mode)})
	n, worker2 := c.Nodes[1], c.Nodes[2]
	client, other, server := n.Pods[0], n.Pods[1], worker2.Pods[0]
	if client.Addr != addr("10.244.127.75") {
		t.Fatalf("the client's address is %s", client.Addr)
	}
	if !n.PodCIDR.Contains(other.Addr) || other.Addr == addr("10.244.127.64") || other.Addr == client.Addr {
		t.Errorf("a pod that asks for nothing gets %s", other.Addr)
	}

	wants(t, n, "fdb", macMaster+" dst 192.168.0.40 self permanent", macWorker2+" dst 192.168.0.42 self permanent")
	wants(t, n, "neigh", "10.244.186.128 dev vxlan lladdr "+macMaster+" PERMANENT", "10.244.50.128 dev vxlan lladdr "+macWorker2+" PERMANENT")
	wants(t, n, "route", "10.244.186.128/26 via 192.168.0.40 dev eth0 encap vxlan id 4096 lladdr "+macMaster+" proto culvert mtu 1450",
		"10.244.50.128/26 via 192.168.0.42 dev eth0 encap vxlan id 4096 lladdr "+macWorker2+" proto culvert mtu 1450",
		"blackhole 10.244.127.64/26 proto culvert", "local 10.244.127.64 dev culvert0 proto kernel")
	routes := map[string]api.Route{}
	for _, r := range culvertJSON[[]api.Route](t, n, "route") {
		routes[r.Dst] = r
	}
	for dst, want := range map[string]string{
		"10.244.186.128/26": "vxlan via 192.168.0.40 mac " + macMaster + " vni 4096",
		"10.244.50.128/26":  "vxlan via 192.168.0.42 mac " + macWorker2 + " vni 4096",
		"10.244.127.64/26":  "blackhole via  mac  vni 0",
		"10.244.127.64/32":  "local via  mac  vni 0",
	} {
		r := routes[dst]
		if got := fmt.Sprintf("%s via %s mac %s vni %d", r.Kind, r.Via, r.MAC, r.VNI); got != want {
			t.Errorf("route %s is %s, want %s", dst, got, want)
		}
	}
	hostEnd := podlink.HostName("cali", lab.Namespace, "client", "")
	if r := routes["10.244.127.75/32"]; r.Kind != "pod" || r.Dev != hostEnd {
		t.Errorf("the client's route is %+v, want one to %s", r, hostEnd)
	}
	must(t, n.Netns, "ip", "link", "show", "dev", hostEnd)
	s := culvertJSON[api.Status](t, n, "status")
	if s.Mode != "calico" || s.Encap != "vxlan" || s.Peers != 2 || s.MTU != 1450 || len(s.Degraded) != 0 || s.VTEP.MAC != macWorker1 || s.VTEP.Address != "10.244.127.64" {
		t.Errorf("status %+v, VTEP %+v", s, s.VTEP)
	}

	// What goes over the wire, outside and inside, and what comes back.
	there, back := openTap(t, worker2.Netns), openTap(t, n.Netns)
	must(t, client.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", server.Addr.String())
	eth1, eth2 := mac(t, n.Netns), mac(t, worker2.Netns)
	arrives(t, there, fmt.Sprintf("%s > %s, 192.168.0.41 > 192.168.0.42, udp 4789, vni 4096, %s > %s, 10.244.127.75 > 10.244.50.143", eth1, eth2, macWorker1, macWorker2))
	arrives(t, back, fmt.Sprintf("%s > %s, 192.168.0.42 > 192.168.0.41, udp 4789, vni 4096, %s > %s, 10.244.50.143 > 10.244.127.75", eth2, eth1, macWorker2, macWorker1))
	transfer(t, client.Netns, server.Netns, server.Addr.String(), 1, 1<<20)
	transfer(t, server.Netns, client.Netns, client.Addr.String(), 1, 1<<20)
	must(t, other.Netns, "ping", "-n", "-c", "1", "-W", "2", server.Addr.String())
	must(t, other.Netns, "ping", "-n", "-c", "1", "-W", "2", client.Addr.String())
	if mode == "auto" {
		testCalicoChanges(t, c, n)
	}
}

func mac(t *testing.T, ns string) string {
	t.Helper()
	return strings.TrimSpace(must(t, ns, "cat", "/sys/class/net/eth0/address"))
}

// testCalicoChanges lends an address, makes the cluster look like another, and starts
// the agent again.
func testCalicoChanges(t *testing.T, c *cluster, n *lab.Node) {
	client, server := n.Pods[0], c.Nodes[2].Pods[0]
	blocks := filepath.Join(c.ManifestDir(), "blocks.yaml")
	text, err := os.ReadFile(blocks)
	if err != nil {
		t.Fatal(err)
	}
	// The last address of worker2's block goes to a pod of master.
	i := strings.LastIndex(string(text), "null]")
	lent := string(text[:i]) + "2]" + strings.TrimRight(string(text[i+5:]), "\n") + "\n" +
		"  - handle_id: k8s-pod-network.lent\n    secondary: {namespace: lab, node: master, pod: lent}\n"
	write(t, blocks, lent)
	eventually(t, "the lent address is routed to who has it", func() error {
		r := culvertJSON[api.Route](t, n, "route", "get", "10.244.50.191")
		if r.Dst != "10.244.50.191/32" || r.Via != "192.168.0.40" || r.MAC != macMaster {
			return fmt.Errorf("it is %+v", r)
		}
		return nil
	})
	write(t, blocks, string(text))
	eventually(t, "it is back", func() error {
		if r := culvertJSON[api.Route](t, n, "route", "get", "10.244.50.191"); r.Dst != "10.244.50.128/26" {
			return fmt.Errorf("it is %+v", r)
		}
		return nil
	})

	strange := filepath.Join(c.ManifestDir(), "strange.yaml")
	write(t, strange, "apiVersion: v1\nkind: Node\nmetadata:\n  name: strange\n  annotations: {flannel.alpha.coreos.com/kube-subnet-manager: \"true\"}\n")
	eventually(t, "another kind of cluster is told", func() error {
		s := culvertJSON[api.Status](t, n, "status")
		if s.Mode != "calico" || !slices.ContainsFunc(s.Degraded, func(d string) bool {
			return strings.Contains(d, "look like a cluster of mode flannel, and this node runs in mode calico")
		}) {
			return fmt.Errorf("mode %s, degraded %q", s.Mode, s.Degraded)
		}
		return nil
	})
	must(t, client.Netns, "ping", "-n", "-c", "1", "-W", "2", server.Addr.String())
	if err := os.Remove(strange); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is well again", func() error {
		if s := culvertJSON[api.Status](t, n, "status"); len(s.Degraded) != 0 {
			return fmt.Errorf("degraded %q", s.Degraded)
		}
		return nil
	})

	if err := c.StopAgent(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAgent(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	must(t, client.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", server.Addr.String())
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newcomer are the flannel cluster's manifests, before anybody has
// annotated the node agent.
func newcomer(t *testing.T) (files []string) {
	t.Helper()
	dir := t.TempDir()
	for _, from := range manifestFiles(t, "flannel") {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, filepath.Base(from))
		write(t, file, withoutAnnotations(string(text), "agent"))
		files = append(files, file)
	}
	return files
}

// A new node, of which the manifests say no more than an API server does when the
// kubelet has registered it, joins a flannel cluster.
func TestFlannelClusterOfTheWriteUp(t *testing.T) {
	files := newcomer(t)
	rule := flavour.VTEPMAC("agent").String()
	c := up(t, lab.Options{Cluster: flannelCluster(files, rule)})
	server, n := c.Nodes[0], c.Nodes[1]
	s1, a1 := server.Pods[0], n.Pods[0]
	check := func() {
		t.Helper()
		wants(t, n, "fdb", macServer+" dst 192.168.0.10 self permanent")
		wants(t, n, "neigh", "10.42.0.0 dev vxlan lladdr "+macServer+" PERMANENT")
		if r := culvertJSON[api.Route](t, n, "route", "get", "10.42.0.7"); r.Kind != "vxlan" || r.Dst != "10.42.0.0/24" || r.Via != "192.168.0.10" || r.MAC != macServer || r.VNI != 1 {
			t.Errorf("route %+v", r)
		}
		if r := culvertJSON[api.Route](t, n, "route", "get", "10.42.1.0"); r.Kind != "local" {
			t.Errorf("the base address is %+v", r)
		}
		s := culvertJSON[api.Status](t, n, "status")
		if s.Mode != "flannel" || s.Peers != 1 || s.VTEP.MAC != rule || s.VTEP.VNI != 1 || s.VTEP.Port != 8472 || len(s.Degraded) != 0 {
			t.Errorf("status %+v, VTEP %+v", s, s.VTEP)
		}
		must(t, a1.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", s1.Addr.String())
	}
	check()
	if a1.Addr != addr("10.42.1.2") {
		t.Errorf("the first pod's address is %s", a1.Addr)
	}
	must(t, n.Netns, "ip", "link", "show", "dev", podlink.HostName("cv", lab.Namespace, "a1", ""))
	there, back := openTap(t, server.Netns), openTap(t, n.Netns)
	must(t, a1.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", s1.Addr.String())
	ethA, ethS := mac(t, n.Netns), mac(t, server.Netns)
	arrives(t, there, fmt.Sprintf("%s > %s, 192.168.0.11 > 192.168.0.10, udp 8472, vni 1, %s > %s, %s > 10.42.0.7", ethA, ethS, rule, macServer, a1.Addr))
	arrives(t, back, fmt.Sprintf("%s > %s, 192.168.0.10 > 192.168.0.11, udp 8472, vni 1, %s > %s, 10.42.0.7 > %s", ethS, ethA, macServer, rule, a1.Addr))
	transfer(t, a1.Netns, s1.Netns, s1.Addr.String(), 1, 1<<20)
	transfer(t, s1.Netns, a1.Netns, a1.Addr.String(), 1, 1<<20)

	// What it would publish is kept, in flannel's exact form, and found again.
	published := func() map[string]string {
		var node struct {
			Kind     string
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
		}
		text, err := os.ReadFile(filepath.Join(c.Dir, n.Name, "state", "node.json"))
		if err == nil {
			err = json.Unmarshal(text, &node)
		}
		if err != nil || node.Kind != "Node" || node.Metadata.Name != "agent" {
			t.Fatalf("what is published: %v: %s", err, text)
		}
		return node.Metadata.Annotations
	}
	before := published()
	for key, want := range map[string]string{
		"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "192.168.0.11",
		"backend-data": `{"VNI":1,"VtepMAC":"` + rule + `"}`,
	} {
		if got := before["flannel.alpha.coreos.com/"+key]; got != want {
			t.Errorf("%s is published as %s, want %s", key, got, want)
		}
	}

	// A configuration that cannot be carried out changes nothing.
	conf := filepath.Join(c.ManifestDir(), "kube-flannel.yaml")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	write(t, conf, strings.ReplaceAll(string(text), `"Type": "vxlan"`, `"Type": "udp"`))
	eventually(t, "a backend that Culvert does not speak is told", func() error {
		s := culvertJSON[api.Status](t, n, "status")
		if !s.Ready || s.Peers != 1 || len(s.Degraded) != 1 || !strings.Contains(s.Degraded[0], "Backend.Type udp is nothing that Culvert speaks") {
			return fmt.Errorf("ready %t, peers %d, degraded %q", s.Ready, s.Peers, s.Degraded)
		}
		return nil
	})
	must(t, a1.Netns, "ping", "-n", "-c", "1", "-W", "2", s1.Addr.String())
	write(t, conf, string(text))
	eventually(t, "it is well again", func() error {
		if s := culvertJSON[api.Status](t, n, "status"); len(s.Degraded) != 0 {
			return fmt.Errorf("degraded %q", s.Degraded)
		}
		return nil
	})

	if err := c.StopAgent(n, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAgent(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	check()
	if after := published(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("after a restart it publishes %v, before %v", after, before)
	}
}

// withoutAnnotations removes those of one Node from manifests.
func withoutAnnotations(text, node string) string {
	docs := strings.Split(text, "---\n")
	for i, doc := range docs {
		if !strings.Contains(doc, "name: "+node+"\n") {
			continue
		}
		from, to := strings.Index(doc, "  annotations:\n"), strings.Index(doc, "spec:\n")
		docs[i] = doc[:from] + doc[to:]
	}
	return strings.Join(docs, "---\n")
}

// edited are manifests with one text in place of another.
func edited(t *testing.T, files []string, old, new string) (out []string) {
	t.Helper()
	dir, found := t.TempDir(), false
	for _, from := range files {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		found = found || strings.Contains(string(text), old)
		file := filepath.Join(dir, filepath.Base(from))
		write(t, file, strings.ReplaceAll(string(text), old, new))
		out = append(out, file)
	}
	if !found {
		t.Fatalf("no manifest has %q", old)
	}
	return out
}

// Where the cluster says that near nodes are reached without a tunnel, or all are,
// packets are plain on the wire, both ways, as they are between kernel nodes.
func TestPlainBetweenNearNodes(t *testing.T) {
	near := calicoCluster(t, "calico")
	near.Manifests = edited(t, near.Manifests, "vxlanMode: Always", "vxlanMode: CrossSubnet")
	near.Nodes = near.Nodes[1:]
	flannel := &lab.Cluster{
		Mode: "flannel", Underlay: prefix("192.168.0.0/24"), Pods: prefix("10.42.0.0/16"), VNI: 1, Port: 8472,
		Manifests: edited(t, manifestFiles(t, "flannel"), `"Type": "vxlan"`, `"Type": "vxlan", "DirectRouting": true`),
		Nodes: []lab.ClusterNode{
			{Name: "agent", Kind: lab.Culvert, Addr: addr("192.168.0.11"), PodCIDR: prefix("10.42.1.0/24"), Pods: []lab.ClusterPod{{Name: "a1"}}},
			{Name: "server", Kind: lab.Flannel, Addr: addr("192.168.0.10"), PodCIDR: prefix("10.42.0.0/24"), Pods: []lab.ClusterPod{{Name: "s1", Addr: addr("10.42.0.7")}}},
		},
	}
	gateway := *flannel
	gateway.Manifests = edited(t, edited(t, manifestFiles(t, "flannel"), `"Type": "vxlan"`, `"Type": "host-gw"`), "backend-type: vxlan", "backend-type: host-gw")
	for name, c := range map[string]*lab.Cluster{"calico": near, "flannel DirectRouting": flannel, "flannel host-gw": &gateway} {
		t.Run(name, func(t *testing.T) {
			c := up(t, lab.Options{Cluster: c, Encap: "none"})
			n, kernel := c.Nodes[0], c.Nodes[1]
			from, to := n.Pods[0], kernel.Pods[0]
			if r := culvertJSON[api.Route](t, n, "route", "get", to.Addr.String()); r.Kind != "direct" || r.Via != kernel.Addr.String() {
				t.Errorf("the route is %+v", r)
			}
			there, back := openTap(t, kernel.Netns), openTap(t, n.Netns)
			must(t, from.Netns, "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", to.Addr.String())
			plain(t, there, fmt.Sprintf("%s > %s, %s > %s", mac(t, n.Netns), mac(t, kernel.Netns), from.Addr, to.Addr))
			plain(t, back, fmt.Sprintf("%s > %s, %s > %s", mac(t, kernel.Netns), mac(t, n.Netns), to.Addr, from.Addr))
			transfer(t, from.Netns, to.Netns, to.Addr.String(), 1, 1<<20)
			transfer(t, to.Netns, from.Netns, from.Addr.String(), 1, 1<<20)
		})
	}
}

// plain waits for a frame without a tunnel that is as the line says.
func plain(t *testing.T, at *tap, want string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		f := at.receive(t, 500*time.Millisecond)
		if f != nil && ends(gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.NoCopy)) == want {
			return
		}
	}
	t.Errorf("no frame arrives as %s", want)
}
