package testbed

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// Names of the testbed's devices.
const (
	PodDevice  = "eth0"  // in the pod
	HostDevice = "cvbp0" // the pod's veth on the node, unless the device under test makes its own
	Uplink     = "cvbu0" // on the node
	WireDevice = "cvbu1" // the far end of the uplink
	NodeName   = "cvb-1" // Kubernetes name of the node
	PeerName   = "cvb-2" // ... and of the node beyond the wire
)

// MTUs of the underlay and of pods behind VXLAN.
const (
	UnderlayMTU = 1500
	PodMTU      = 1450
)

// The tunnel, with Flannel's numbers.
const (
	VNI  = 1
	Port = 8472
)

// Addresses.
var (
	PodAddr     = netip.MustParseAddr("10.244.1.2")
	PodCIDR     = netip.MustParsePrefix("10.244.1.0/24")
	NodeAddr    = netip.MustParseAddr("192.168.77.1")
	PeerPod     = netip.MustParseAddr("10.244.2.2")
	PeerCIDR    = netip.MustParsePrefix("10.244.2.0/24")
	PeerAddr    = netip.MustParseAddr("192.168.77.2")
	ClusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
)

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

// Bed is the network around one device under test.
type Bed struct {
	Pod, Node, Wire *Space
	// Dir is a directory for the device's files.
	Dir string
}

// New makes the three namespaces and the wire, and gives the uplink the node's
// underlay address if asked to. The pod is not connected yet.
func New(underlayAddr bool) (*Bed, error) {
	b := &Bed{}
	if err := b.make(underlayAddr); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: %w", err), b.Close())
	}
	return b, nil
}

func (b *Bed) make(underlayAddr bool) (err error) {
	if b.Dir, err = os.MkdirTemp("", "cvb"); err != nil {
		return err
	}
	for _, s := range []**Space{&b.Pod, &b.Node, &b.Wire} {
		if *s, err = NewSpace(); err != nil {
			return err
		}
		if err := (*s).Sysctl("net/ipv6/conf/all/disable_ipv6", "1"); err != nil { // no router solicitations among the frames
			return err
		}
		if err := (*s).Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil {
			return err
		}
	}
	err = Veth(End{b.Node, Uplink, UplinkMAC}, End{b.Wire, WireDevice, WireMAC}, UnderlayMTU)
	if err != nil || !underlayAddr {
		return err
	}
	if err := b.Node.AddAddr(Uplink, netip.PrefixFrom(NodeAddr, 24)); err != nil {
		return err
	}
	return b.Node.AddNeighbour(Uplink, PeerAddr, WireMAC)
}

// ConnectPod makes the pod's veth pair, for devices under test that do not
// make it themselves.
func (b *Bed) ConnectPod() error {
	return Veth(End{b.Pod, PodDevice, PodMAC}, End{b.Node, HostDevice, GatewayMAC}, PodMTU)
}

// Close ends the namespaces and removes the directory.
func (b *Bed) Close() error {
	var errs []error
	for _, s := range []*Space{b.Pod, b.Node, b.Wire} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	if b.Dir != "" {
		errs = append(errs, os.RemoveAll(b.Dir))
	}
	return errors.Join(errs...)
}
