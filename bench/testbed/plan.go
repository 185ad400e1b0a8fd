package testbed

import (
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// Names of the testbed's devices and nodes.
const (
	PodDevice  = "eth0"  // in the first pod
	HostDevice = "cvbp0" // its veth on the node, unless the device under test makes its own
	Uplink     = "cvbu0" // on the node
	WireDevice = "cvbu1" // the far end of the uplink
	NodeName   = "cvb-1" // Kubernetes name of the node
	PeerName   = "cvb-2" // ... and of the first node beyond the wire
)

// MTUs of the underlay and of pods behind VXLAN and IPIP.
const (
	UnderlayMTU = 1500
	PodMTU      = 1450
	PodMTUIPIP  = 1480
)

// The tunnel, with Flannel's numbers.
const (
	VNI  = 1
	Port = 8472
)

// MaxPods and MaxPeers are how many a testbed has room for.
const (
	MaxPods  = 250
	MaxPeers = 1 + 52*256 // 10.244.2.0/24, and all /24s of 10.192.0.0 to 10.243.255.255
)

// peersOnLink is how many peers are in the node's own subnet. The others are
// behind a router there, as the nodes of other racks and zones are.
const peersOnLink = 200

// Addresses, those of the pods and peers being the first one's.
var (
	PodAddr     = netip.MustParseAddr("10.244.1.2")
	PodCIDR     = netip.MustParsePrefix("10.244.1.0/24")
	GatewayAddr = netip.MustParseAddr("169.254.1.1") // every pod's, as in Calico and Culvert
	NodeAddr    = netip.MustParseAddr("192.168.77.1")
	RouterAddr  = netip.MustParseAddr("192.168.77.254")
	PeerPod     = netip.MustParseAddr("10.244.2.2")
	PeerCIDR    = netip.MustParsePrefix("10.244.2.0/24")
	PeerAddr    = netip.MustParseAddr("192.168.77.2")
	ClusterCIDR = netip.MustParsePrefix("10.192.0.0/10")

	farSubnet = netip.MustParsePrefix("172.16.0.0/14") // of the peers behind the router
)

// UnderlayBits is the length of the prefix of the node's subnet.
const UnderlayBits = 24

// MACs. The gateway's is the one that Calico and Culvert give every pod.
var (
	PodMAC     = net.HardwareAddr{0x02, 0xcb, 0, 0, 0, 0x02}
	GatewayMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	UplinkMAC  = net.HardwareAddr{0x02, 0xcb, 0, 0, 1, 0x01}
	WireMAC    = net.HardwareAddr{0x02, 0xcb, 0, 0, 1, 0x02}
	NodeVTEP   = VTEP(NodeName)
	PeerVTEP   = VTEP(PeerName)
)

// VTEP is the tunnel MAC of a node by its name, by Culvert's rule: 66: and the
// first five bytes of the name's SHA-1.
func VTEP(node string) net.HardwareAddr {
	sum := sha1.Sum([]byte(node))
	return append(net.HardwareAddr{0x66}, sum[:5]...)
}

// Pod is a pod of the node.
type Pod struct {
	Name   string
	Device string // in Bed.Pod
	Host   string // its veth on the node, unless the device under test names it
	Addr   netip.Addr
	MAC    net.HardwareAddr
	// Ifindex of Device, in Bed.Pod; 0 until Bed.FindPods.
	Ifindex int
}

// Peer is a node beyond the wire.
type Peer struct {
	Name string
	Addr netip.Addr // on the underlay
	VTEP net.HardwareAddr
	CIDR netip.Prefix // of its pods
}

// Pod is the address of the peer's first pod. Later ones follow it.
func (p Peer) Pod() netip.Addr { return after(p.CIDR.Addr(), 2) }

// pods plans n pods.
func pods(n int) ([]Pod, error) {
	if n < 1 || n > MaxPods {
		return nil, fmt.Errorf("%d pods: must be 1 to %d", n, MaxPods)
	}
	all := make([]Pod, n)
	for i := range all {
		all[i] = Pod{
			Name: fmt.Sprintf("bench-%d", i), Device: fmt.Sprintf("eth%d", i), Host: fmt.Sprintf("cvbp%d", i),
			Addr: after(PodAddr, i), MAC: net.HardwareAddr{0x02, 0xcb, 0, 0, 0, byte(2 + i)},
		}
	}
	return all, nil
}

// peers plans n peers. All but the first have the /24s from the start of the
// cluster's prefix.
func peers(n int) ([]Peer, error) {
	if n < 1 || n > MaxPeers {
		return nil, fmt.Errorf("%d peers: must be 1 to %d", n, MaxPeers)
	}
	all := make([]Peer, n)
	for i := range all {
		p := Peer{Name: fmt.Sprintf("cvb-%d", 2+i), Addr: after(PeerAddr, i), CIDR: PeerCIDR}
		if i >= peersOnLink {
			p.Addr = after(farSubnet.Addr(), 1+i-peersOnLink)
		}
		if i > 0 {
			p.CIDR = netip.PrefixFrom(after(ClusterCIDR.Addr(), (i-1)<<8), PeerCIDR.Bits())
		}
		p.VTEP = VTEP(p.Name)
		all[i] = p
	}
	return all, nil
}

// after is the n-th IPv4 address after a.
func after(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}
