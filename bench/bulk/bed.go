package bulk

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"culvert/bench/testbed"
	"culvert/internal/ethtool"
)

// bed is the network of one pair: two nodes, joined by the wire, and two pods.
// With both pods on the first node, the second is only the end of its uplink.
type bed struct {
	dir      string
	wire     Wire
	nodes    [2]*node
	from, to *pod
}

// node is one of the two, with its uplink.
type node struct {
	name   string
	uplink string
	addr   netip.Addr // on the underlay
	cidr   netip.Prefix
	space  *testbed.Space
	agent  *agent // nil on a kernel node
}

// pod is one end of the connections.
type pod struct {
	name  string
	node  *node
	addr  netip.Addr
	space *testbed.Space
}

// reachTime is how long the first ping may take to be answered.
const reachTime = 5 * time.Second

// newBed builds the network of a pair, ready for traffic. If that fails,
// nothing is left of it.
func newBed(ctx context.Context, bin string, wire Wire, p Pair) (*bed, error) {
	b := &bed{wire: wire}
	if err := b.build(ctx, bin, p); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed of %s: %w", p, err), b.close())
	}
	return b, nil
}

func (b *bed) build(ctx context.Context, bin string, p Pair) error {
	if err := b.makeNodes(ctx); err != nil {
		return err
	}
	far := b.nodes[0]
	if b.wire != NoWire {
		far = b.nodes[1]
	}
	for _, end := range []struct {
		side Side
		node *node
	}{{p.From, b.nodes[0]}, {p.To, far}} {
		if !end.side.agent() || end.node.agent != nil {
			continue
		}
		if err := end.node.startAgent(ctx, bin, b.dir, b.nodes); err != nil {
			return fmt.Errorf("culvertd on %s: %w", end.node.name, err)
		}
	}
	for _, n := range b.nodes {
		if n.agent == nil && b.wire != NoWire {
			if err := n.addTunnel(b.other(n)); err != nil {
				return fmt.Errorf("kernel node %s: %w", n.name, err)
			}
		}
	}
	var err error
	if b.from, err = b.nodes[0].addPod(ctx, "from", p.From); err != nil {
		return err
	}
	if b.to, err = far.addPod(ctx, "to", p.To); err != nil {
		return err
	}
	return b.reach(ctx)
}

// makeNodes makes the nodes' namespaces and the wire.
func (b *bed) makeNodes(ctx context.Context) (err error) {
	if b.dir, err = testbed.NewDir(); err != nil {
		return err
	}
	b.nodes = [2]*node{
		{name: testbed.NodeName, uplink: testbed.Uplink, addr: testbed.NodeAddr, cidr: testbed.PodCIDR},
		{name: testbed.PeerName, uplink: testbed.WireDevice, addr: testbed.PeerAddr, cidr: testbed.PeerCIDR},
	}
	for _, n := range b.nodes {
		if n.space, err = newSpace(); err != nil {
			return err
		}
		if err := n.space.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
	}
	a, c := b.nodes[0], b.nodes[1]
	err = veth(testbed.End{Space: a.space, Name: a.uplink}, testbed.End{Space: c.space, Name: c.uplink}, testbed.UnderlayMTU)
	if err != nil {
		return err
	}
	for _, n := range b.nodes {
		if err := n.space.AddAddr(n.uplink, netip.PrefixFrom(n.addr, 24)); err != nil {
			return err
		}
		if b.wire.cut() {
			if err := n.space.CutFrames(ctx, n.uplink, b.wire == MTUGRO); err != nil {
				return err
			}
		}
	}
	return nil
}

// newSpace makes a namespace without IPv6: its solicitations would be among
// the frames.
func newSpace() (*testbed.Space, error) {
	s, err := testbed.NewSpace()
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"all", "default"} {
		if err := s.Sysctl("net/ipv6/conf/"+key+"/disable_ipv6", "1"); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// veth makes a veth pair with the offloads that the kernel gives it. Those of
// package testbed have GRO, for redirected frames.
func veth(a, b testbed.End, mtu int) error {
	if err := testbed.Veth(a, b, mtu); err != nil {
		return err
	}
	for _, end := range []testbed.End{a, b} {
		if err := end.Space.Do(func() error { return ethtool.Set(end.Name, false, ethtool.GRO) }); err != nil {
			return err
		}
	}
	return nil
}

// addPod makes a pod on the node and attaches it as its side does. The first
// is the one with .2.
func (n *node) addPod(ctx context.Context, name string, side Side) (p *pod, err error) {
	p = &pod{name: name, node: n, addr: n.cidr.Addr().Next().Next()}
	if name == "to" {
		p.addr = p.addr.Next()
	}
	if p.space, err = newSpace(); err != nil {
		return nil, fmt.Errorf("pod %s: %w", name, err)
	}
	if n.agent != nil {
		err = n.agent.addPod(ctx, p, side)
	} else {
		err = n.addKernelPod(p)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pod %s: %w", name, err), p.space.Close())
	}
	return p, nil
}

// other is the node beyond the wire.
func (b *bed) other(n *node) *node {
	if n == b.nodes[0] {
		return b.nodes[1]
	}
	return b.nodes[0]
}

// reach waits until a ping from pod to pod is answered: routes, neighbours and
// carriers are there then.
func (b *bed) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	for {
		_, err := b.from.space.Run(ctx, exec.Command("ping", "-c", "1", "-W", "0.2", "-q", b.to.addr.String()))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("pod %s does not answer after %s: %w\n%s", b.to.addr, reachTime, err, b.log())
		}
	}
}

// agents are the culvertds of the bed.
func (b *bed) agents() (all []*agent) {
	for _, n := range b.nodes {
		if n != nil && n.agent != nil {
			all = append(all, n.agent)
		}
	}
	return all
}

// log is what the agents say about themselves, for error messages.
func (b *bed) log() (text string) {
	for _, a := range b.agents() {
		text += a.node.name + ": " + a.daemon.Log()
	}
	return text
}

// close ends the agents, then the namespaces, and removes the directory.
func (b *bed) close() error {
	var errs []error
	for _, a := range b.agents() {
		errs = append(errs, a.daemon.Stop())
	}
	for _, p := range []*pod{b.from, b.to} {
		if p != nil {
			errs = append(errs, p.space.Close())
		}
	}
	for _, n := range b.nodes {
		if n != nil && n.space != nil {
			errs = append(errs, n.space.Close())
		}
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}
