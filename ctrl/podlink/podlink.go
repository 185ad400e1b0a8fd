// Package podlink makes, checks and removes the link between a pod and the
// node, a veth pair or a TAP: all the netlink, sysctl and ethtool work of a CNI
// ADD, CHECK and DEL, and nothing else. It keeps no state and knows no record,
// allocator or port; ctrl/pods drives it.
//
// What stands after Create of a veth, host end left, pod end right:
//
//	cv0123456789a  ee:ee:ee:ee:ee:ee  ──────  eth0  <pod MAC>  ADDRESS/32
//	no IPv6, no forwarding, MTU 65535         169.254.1.1 dev eth0 scope link
//	never seen by the node's IP stack         default via 169.254.1.1
//
// The host end belongs to an XDP program: no packet of the pod is meant for
// the node's own stack, and the sysctls see to it that none passes while
// culvertd is down.
//
// A TAP (tap.go) has the pod's end alone, configured the same. It stays in the
// pod's namespace while culvertd, whose descriptors are its other end, is down.
//
// Every function is safe for concurrent use on different host names. They
// enter the pod's namespace on a locked thread and leave it before returning.
package podlink

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// What the pod sees as its gateway, in every pod the same.
var (
	// HostMAC is the host end's address.
	HostMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	// Gateway4 is the pod's IPv4 next hop for everything.
	Gateway4 = netip.MustParseAddr("169.254.1.1")
	// Gateway6 is the IPv6 one: the link-local address that HostMAC gives.
	Gateway6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

// hostMTU is the host end's MTU: the largest veth takes, so that it never
// refuses what the pod sends. The pod's own MTU bounds it in truth.
const hostMTU = 65535

var (
	// ErrInterfaceExists says that the pod has an interface of that name.
	ErrInterfaceExists = errors.New("interface exists in the pod")
	// ErrHostNameTaken says that the node has a link of that name already.
	ErrHostNameTaken = errors.New("host interface exists")
)

// NetnsError says that a path is no network namespace that a pod can have.
type NetnsError struct {
	Path string
	Err  error
}

// Error names the path and what is wrong with it.
func (e *NetnsError) Error() string { return fmt.Sprintf("network namespace %q: %v", e.Path, e.Err) }

// Unwrap is what is wrong with the path.
func (e *NetnsError) Unwrap() error { return e.Err }

// Kind says what a pod's link is.
type Kind string

// The kinds of links; an empty Kind is Veth.
const (
	Veth Kind = "veth"
	TAP  Kind = "tap"
)

// Ref names a pod's link.
type Ref struct {
	Kind     Kind
	HostName string // the host end's name, see HostName; a TAP has it as its mark
	Netns    string // path of the pod's network namespace
	IfName   string // the pod end's name
}

// Spec says what a pod's link shall be.
type Spec struct {
	Ref
	MAC    net.HardwareAddr // the pod end's address; nil = a random one
	Addrs  []netip.Addr     // at most one a family is usual; none is allowed
	MTU    int              // the pod end's
	Queues int              // of a veth in both directions, at least 1; a TAP has as many as are opened
	Alias  string           // shown by `ip link` on the host end; may be empty
}

// Link is what Create made.
type Link struct {
	Ifindex    int              // as Find tells it
	PodIfindex int              // the pod end's, in the pod's namespace
	MAC        net.HardwareAddr // the pod end's
}

// HostName is the name of the host end for a pod: prefix and 11 hex digits of
// SHA-1("namespace.pod"), or of the container ID for a container without pod
// name. Calico names its workload interfaces by the same rule.
func HostName(prefix, namespace, pod, containerID string) string {
	id := containerID
	if pod != "" {
		id = namespace + "." + pod
	}
	sum := sha1.Sum([]byte(id))
	return prefix + hex.EncodeToString(sum[:])[:11]
}

// randomMAC makes a locally administered unicast address.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails: crypto/rand
	mac[0] = mac[0]&0xfc | 0x02
	return mac
}

// validate refuses a spec that would fail halfway.
func (s *Spec) validate() error {
	if s.Kind != "" && s.Kind != Veth && s.Kind != TAP {
		return fmt.Errorf("link of kind %q: veth and tap are possible", s.Kind)
	}
	for _, name := range []string{s.HostName, s.IfName} {
		if name == "" || len(name) > 15 {
			return fmt.Errorf("interface name %q: 1 to 15 characters are needed", name)
		}
	}
	if s.MTU < 68 || s.MTU > 65535 {
		return fmt.Errorf("pod MTU %d: 68 to 65535 is possible", s.MTU)
	}
	if s.Kind == TAP && s.MTU > maxTAP {
		return fmt.Errorf("pod MTU %d: %d is the largest of a TAP", s.MTU, maxTAP)
	}
	if s.Queues < 1 || s.Queues > 256 {
		return fmt.Errorf("%d queues: 1 to 256 are possible", s.Queues)
	}
	if s.MAC != nil && (len(s.MAC) != 6 || s.MAC[0]&1 != 0) {
		return fmt.Errorf("pod MAC %s: a unicast Ethernet address is needed", s.MAC)
	}
	for _, a := range s.Addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("pod address %s: a plain IPv4 or IPv6 address is needed", a)
		}
	}
	return nil
}

// has4 and has6 say which families the pod has.
func (s *Spec) has4() bool { return s.has(netip.Addr.Is4) }
func (s *Spec) has6() bool { return s.has(netip.Addr.Is6) }

func (s *Spec) has(family func(netip.Addr) bool) bool {
	for _, a := range s.Addrs {
		if family(a) {
			return true
		}
	}
	return false
}
