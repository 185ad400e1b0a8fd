package lab

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The addresses of a lab. Its namespaces are cut off from everything, so that
// they can be the same in every lab.
var (
	underlayNet  = netip.MustParsePrefix("192.168.50.0/24")
	underlayNet6 = netip.MustParsePrefix("fd50::/64")
	clusterNet   = netip.MustParsePrefix("10.244.0.0/16")
	clusterNet6  = netip.MustParsePrefix("fd44::/48")
)

// What tunnels add to an IP packet.
const (
	overhead4    = 50 // VXLAN over IPv4
	overhead6    = 70 // over IPv6
	overheadIPIP = 20
)

// Encaps are the values of Options.Encap, for help and completion.
var Encaps = []string{"vxlan", "ipip", "none"}

// PodMTU is the MTU of the lab's pods.
func (l *Lab) PodMTU() int {
	return l.MTU - overhead(l.Encap, l.underlay6())
}

// overhead is what an encapsulation adds to an IP packet.
func overhead(encap string, underlay6 bool) int {
	switch {
	case encap == "none":
		return 0
	case encap == "ipip":
		return overheadIPIP
	case underlay6:
		return overhead6
	}
	return overhead4
}

// underlay6 reports whether the nodes' addresses are IPv6.
func (l *Lab) underlay6() bool { return l.Nodes[0].Addr.Is6() }

// underlay is the nodes' network.
func (l *Lab) underlay() netip.Prefix {
	if l.cluster != nil {
		return l.cluster.Underlay
	}
	if l.underlay6() {
		return underlayNet6
	}
	return underlayNet
}

// What a lab can be.
const (
	MaxNodes = 26 // letters name them
	MaxPods  = 100
	MinMTU   = 576
	MaxMTU   = 9000
	minMTU6  = 1280 // of a link with IPv6 (RFC 8200 5)
)

// complete puts the defaults in place of what is not set.
func (o Options) complete() Options {
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.Pods == 0 {
		o.Pods = 2
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Peer == "" {
		o.Peer = Culvert
	}
	if o.Family == "" {
		o.Family = IPv4
	}
	if o.Underlay == "" {
		o.Underlay = IPv4
	}
	if o.Encap == "" {
		o.Encap = "vxlan"
	}
	if len(o.Interfaces) == 0 {
		o.Interfaces = []string{"veth"}
	}
	return o
}

// Check says what about the options cannot be built.
func (o Options) Check() error {
	o = o.complete()
	switch {
	case o.Nodes < 1 || o.Nodes > MaxNodes:
		return fmt.Errorf("a lab of %d nodes: 1 to %d are possible", o.Nodes, MaxNodes)
	case o.Pods < 1 || o.Pods > MaxPods:
		return fmt.Errorf("%d pods a node: 1 to %d are possible", o.Pods, MaxPods)
	case o.MTU < MinMTU || o.MTU > MaxMTU:
		return fmt.Errorf("an underlay with MTU %d: %d to %d is possible", o.MTU, MinMTU, MaxMTU)
	case !slices.Contains(Kinds, o.Peer):
		return fmt.Errorf("a peer of kind %q: one of %v is possible", o.Peer, Kinds)
	case !slices.Contains(Families, o.Family):
		return fmt.Errorf("pods of family %q: one of %v is possible", o.Family, Families)
	case o.Underlay != IPv4 && o.Underlay != IPv6:
		return fmt.Errorf("an underlay of family %q: 4 and 6 are possible", o.Underlay)
	case o.Family != IPv4 && o.MTU-o.overhead() < minMTU6:
		return fmt.Errorf("pods with IPv6 over an underlay with MTU %d: they need %d", o.MTU, minMTU6+o.overhead())
	case !slices.Contains(Encaps, o.Encap):
		return fmt.Errorf("encapsulation %q: one of %v is possible", o.Encap, Encaps)
	case o.Encap == "none" && o.CrossSubnet:
		return errors.New("across subnets without an encapsulation: choose vxlan or ipip")
	case o.Encap == "ipip" && (o.Family != IPv4 || o.Underlay != IPv4):
		return errors.New("IPIP carries IPv4 over IPv4: leave pods and underlay at family 4")
	case o.Peer != Culvert && (o.Encap == "ipip" || o.CrossSubnet):
		return fmt.Errorf("a %s peer: the kernel nodes of a lab have vxlan to all, or with none routes", o.Peer)
	case o.Peer != Culvert && o.Encap == "none" && (o.Family != IPv4 || o.Underlay != IPv4):
		return fmt.Errorf("a %s peer without an encapsulation: its routes are IPv4", o.Peer)
	case o.Peer != Culvert && o.Nodes < 2:
		return fmt.Errorf("a %s peer is the second node: ask for at least 2 nodes", o.Peer)
	}
	if n := len(o.NICs); n != 0 && (n != o.Nodes || o.Bridge) {
		return fmt.Errorf("%d NICs: each of the %d nodes has one, and no bridge joins them", n, o.Nodes)
	}
	for _, i := range o.Interfaces {
		if i != "veth" && i != "tap" {
			return fmt.Errorf("pods with interface %q: veth and tap are possible", i)
		}
	}
	return nil
}

// overhead is what the tunnel adds to an IP packet.
func (o *Options) overhead() int { return overhead(o.Encap, o.Underlay == IPv6) }

// plan lays out a lab without building anything.
func plan(o Options) (*Lab, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o = o.complete()
	bin, err := binDir(o.BinDir)
	if err != nil {
		return nil, err
	}
	l := &Lab{
		Name: "cvl-" + randomHex(3), BinDir: bin, Created: time.Now().Truncate(time.Second), MTU: o.MTU,
		Encap: o.Encap, CrossSubnet: o.CrossSubnet, VNI: 4096, Port: 4789, NICs: o.NICs, progress: o.Progress, config: o.Config, source: o.Source,
	}
	if o.Cluster != nil {
		l.planCluster(o.Cluster, o)
		return l, nil
	}
	if o.Family != IPv6 {
		l.Clusters = append(l.Clusters, clusterNet)
	}
	if o.Family != IPv4 {
		l.Clusters = append(l.Clusters, clusterNet6)
	}
	kinds := o.NodeKinds
	if kinds == nil {
		kinds = slices.Repeat([]Kind{Culvert}, o.Nodes)
		kinds[o.Nodes-1] = o.Peer
	}
	if slices.Contains(kinds, Flannel) {
		l.VNI, l.Port = 1, 8472 // flannel's defaults
	}
	if o.Bridge || len(kinds) > 2 && o.NICs == nil {
		l.Bridge = l.Name + "-net"
	}
	for i, kind := range kinds {
		l.Nodes = append(l.Nodes, l.planNode(i, kind, o))
	}
	return l, nil
}

func (l *Lab) planNode(i int, kind Kind, o Options) *Node {
	letter := string(rune('a' + i))
	name := "node-" + letter
	n := &Node{
		Name: name, Kind: kind, Netns: l.Name + "-" + name, Addr: nth(underlayNet.Addr(), i+1),
		VTEPMAC: vtepMAC(name),
	}
	if o.Underlay == IPv6 {
		n.Addr = nth(underlayNet6.Addr(), i+1)
	}
	for _, c := range l.Clusters {
		n.PodCIDRs = append(n.PodCIDRs, podCIDR(c, byte(i+1)))
	}
	n.PodCIDR = n.PodCIDRs[0]
	for p := range o.Pods {
		pod := &Pod{
			Name: fmt.Sprint(letter, p+1), Node: name, Netns: fmt.Sprint(l.Name, "-", letter, p+1),
			ContainerID: fmt.Sprint(l.Name, "-", letter, p+1, "-", randomHex(8)),
		}
		for _, c := range n.PodCIDRs { // of Culvert's pods the plugin says it
			pod.Addrs = append(pod.Addrs, nth(c.Addr(), p+2))
		}
		pod.Addr = pod.Addrs[0]
		if kind == Culvert {
			pod.Interface = o.Interfaces[p%len(o.Interfaces)]
		}
		n.Pods = append(n.Pods, pod)
	}
	return n
}

// podCIDR is the part of a cluster's network that a node has.
func podCIDR(cluster netip.Prefix, node byte) netip.Prefix {
	if cluster.Addr().Is4() {
		a := cluster.Addr().As4()
		a[2] = node
		return netip.PrefixFrom(netip.AddrFrom4(a), 24)
	}
	a := cluster.Addr().As16()
	a[7] = node
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// vtepMAC is the rule of the native mode: 66 and five bytes of SHA-1(name).
// Kernel nodes announce theirs by annotation; it may as well be that one.
func vtepMAC(node string) string {
	sum := sha1.Sum([]byte(node))
	return net.HardwareAddr(append([]byte{0x66}, sum[:5]...)).String()
}

// nth counts addresses up.
func nth(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

func binDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("own program: %w", err)
	}
	return filepath.Dir(exe), nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return hex.EncodeToString(b)
}
