package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// Options say what a testbed is like. The zero value is one pod, one peer and
// a wire that passes whatever it is given.
type Options struct {
	// Pods is the number of pods on the node, to MaxPods; Peers that of the nodes
	// beyond the wire, to MaxPeers. 0 is 1.
	Pods, Peers int
	Wire        Wire
	// NoUnderlay leaves the uplink without address, neighbours and routes: the
	// device under test gives them to a device of its own, by Bed.AddUnderlay.
	NoUnderlay bool
}

// Bed is the network around one device under test.
type Bed struct {
	Pod, Node, Wire *Space
	// Pods are the pods of the node. Their devices are in one namespace, since
	// whoever redirects frames into them can reach devices of his own namespace
	// only. Their Ifindex is known after FindPods.
	Pods []Pod
	// Peers are the nodes beyond the wire. They are addresses only, where nobody
	// answers: see Answer.
	Peers []Peer
	// Dir is a directory for the device's files.
	Dir string
}

// New makes the three namespaces and the wire. The pods are not connected yet.
func New(ctx context.Context, o Options) (*Bed, error) {
	b := &Bed{}
	if err := b.make(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: %w", err), b.Close())
	}
	return b, nil
}

func (b *Bed) make(ctx context.Context, o Options) (err error) {
	if b.Pods, err = pods(max(o.Pods, 1)); err != nil {
		return err
	}
	if b.Peers, err = peers(max(o.Peers, 1)); err != nil {
		return err
	}
	if b.Dir, err = NewDir(); err != nil {
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
	if err := Veth(End{b.Node, Uplink, UplinkMAC}, End{b.Wire, WireDevice, WireMAC}, UnderlayMTU); err != nil {
		return err
	}
	if o.Wire == MTUWire {
		// GRO stays: without it nobody could redirect frames into the wire.
		if err := errors.Join(b.Node.CutFrames(ctx, Uplink, true), b.Wire.CutFrames(ctx, WireDevice, true)); err != nil {
			return err
		}
	}
	if o.NoUnderlay {
		return nil
	}
	return b.AddUnderlay(Uplink)
}

// AddUnderlay gives a device of the node the node's address, the neighbours of
// its subnet and the route to the other peers.
func (b *Bed) AddUnderlay(device string) error {
	if err := b.Node.AddAddr(device, netip.PrefixFrom(NodeAddr, UnderlayBits)); err != nil {
		return err
	}
	if err := b.Node.Up(device); err != nil {
		return err
	}
	if err := b.Node.AddNeighbours(device, b.NextHops()...); err != nil {
		return err
	}
	if len(b.Peers) <= peersOnLink {
		return nil
	}
	return b.Node.AddRoute(device, farSubnet, RouterAddr)
}

// NextHops are the neighbours by which the node reaches its peers: those of its
// own subnet and, if there are others, the router. All have WireMAC.
func (b *Bed) NextHops() (all []Neighbour) {
	for _, p := range b.Peers[:min(len(b.Peers), peersOnLink)] {
		all = append(all, Neighbour{p.Addr, WireMAC})
	}
	if len(b.Peers) > peersOnLink {
		all = append(all, Neighbour{RouterAddr, WireMAC})
	}
	return all
}

// ConnectPods makes the pods' veth pairs with the given MTU, for devices under
// test that do not make them themselves. The first pod also gets its address
// and its default route, so that programs can speak from there.
func (b *Bed) ConnectPods(mtu int) error {
	for _, p := range b.Pods {
		if err := Veth(End{b.Pod, p.Device, p.MAC}, End{b.Node, p.Host, GatewayMAC}, mtu); err != nil {
			return err
		}
	}
	first := b.Pods[0]
	for _, step := range []func() error{
		func() error { return b.Pod.AddAddr(first.Device, netip.PrefixFrom(first.Addr, 32)) },
		func() error { return b.Pod.AddNeighbour(first.Device, GatewayAddr, GatewayMAC) },
		func() error { return b.Pod.AddRoute(first.Device, netip.MustParsePrefix("0.0.0.0/0"), GatewayAddr) },
		b.FindPods,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// FindPods looks the pods' devices up.
func (b *Bed) FindPods() error {
	links, err := b.Pod.Links()
	if err != nil {
		return err
	}
	for n := range b.Pods {
		p := &b.Pods[n]
		link, ok := links[p.Device]
		if !ok {
			return fmt.Errorf("pod %s has no device %s", p.Addr, p.Device)
		}
		p.Ifindex, p.MAC = link.Index, link.HardwareAddr
	}
	return nil
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
