package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"culvert/ctrl/api"
	"culvert/internal/probe"
)

// smallPing is the size of an IP packet that gets anywhere.
const smallPing = 100

// checkPeers asks peers for an answer: at their node's address, with packets of the size
// that a full packet of a pod has in the tunnel, and through the tunnel.
func (m *machine) checkPeers(ctx context.Context, s *api.Status, peers []api.Peer, most int) (all []finding) {
	if len(peers) == 0 || most <= 0 {
		return []finding{{"peers", stateOK, fmt.Sprintf("%d, none asked", len(peers)), ""}}
	}
	found := make([][]finding, min(most, len(peers)))
	var asking sync.WaitGroup
	for i := range found {
		// Spread over all of them: neighbours in the list are often neighbours in a rack.
		p := &peers[i*len(peers)/len(found)]
		asking.Go(func() { found[i] = m.checkPeer(ctx, s, p) })
	}
	asking.Wait()
	good := 0
	for _, f := range found {
		if len(f) == 0 {
			good++
		}
		all = append(all, f...)
	}
	if good > 0 {
		all = append(all, finding{"peers", stateOK, fmt.Sprintf("%d of %d asked, of %d in all: full packets get there, and answers back", good, len(found), len(peers)), ""})
	}
	return all
}

// checkPeer is what is wrong with the way to a peer.
func (m *machine) checkPeer(ctx context.Context, s *api.Status, p *api.Peer) []finding {
	check := "peer " + p.Name
	dst, err := netip.ParseAddr(p.Dst)
	if err != nil {
		return []finding{{check, stateFail, fmt.Sprintf("its address %q is none", p.Dst), ""}}
	}
	if p.State != "ready" {
		return []finding{{check, stateFail, p.State + ": the kernel knows no way to " + p.Dst,
			fmt.Sprintf("'ip route get %s' and 'ip neigh' say more; is the node up?", p.Dst)}}
	}
	outer := s.MTU + overhead[p.Encap]
	if p.Encap == "vxlan" && dst.Is6() {
		outer += 20
	}
	under := m.ping(ctx, dst, smallPing)
	asked, tunnel := m.pingTunnel(ctx, p)
	switch {
	case errors.Is(under, probe.ErrNoAnswer) && asked && tunnel == nil:
		return nil // its node answers no pings, and packets get there
	case under != nil && tunnel != nil:
		return []finding{{check, stateFail, fmt.Sprintf("%s: %v; %s by the tunnel: %v", p.Dst, under, p.Address, tunnel),
			"is the node up, and does the network between carry packets to it?"}}
	case under != nil:
		return []finding{{check, stateWarn, fmt.Sprintf("%s: %v", p.Dst, under), "where nodes answer no pings this says nothing"}}
	case tunnel != nil:
		return []finding{{check, stateFail, fmt.Sprintf("%s answers, %s by the tunnel does not: %v", p.Dst, p.Address, tunnel), tunnelAdvice(s)}}
	}
	return m.checkSize(ctx, check, p, dst, outer)
}

// checkSize asks with packets as long as a pod's longest ones are in the tunnel.
func (m *machine) checkSize(ctx context.Context, check string, p *api.Peer, dst netip.Addr, outer int) []finding {
	err := m.ping(ctx, dst, outer)
	switch {
	case err == nil:
		return nil
	case p.PMTU > 0 && p.PMTU < outer:
		return []finding{{check, stateWarn, fmt.Sprintf("the path takes %d bytes at most, a pod's longest packet needs %d", p.PMTU, outer),
			"pods are told, or their packets cut; widen the path, or set 'mtu' lower on all nodes"}}
	case errors.Is(err, probe.ErrTooBig), errors.Is(err, probe.ErrNoAnswer):
		return []finding{{check, stateFail, fmt.Sprintf("%s: packets of %d bytes do not get there (%v), those of %d do", p.Dst, outer, err, smallPing),
			fmt.Sprintf("the network between must take packets of %d bytes: raise its MTU, or set 'mtu' lower on all nodes", outer)}}
	}
	return []finding{{check, stateWarn, fmt.Sprintf("%s: %v", p.Dst, err), ""}}
}

// pingTunnel asks the peer's tunnel address: by culvert0, the dataplane and the tunnel. Peers
// that have none, or are reached without a tunnel, are none to ask.
func (m *machine) pingTunnel(ctx context.Context, p *api.Peer) (asked bool, err error) {
	to, err := netip.ParseAddr(p.Address)
	if err != nil || p.Encap != "vxlan" {
		return false, nil
	}
	return true, m.ping(ctx, to, smallPing)
}

// tunnelAdvice is what stops a tunnel's packets and no others.
func tunnelAdvice(s *api.Status) string {
	port := "the tunnel's port"
	if s.VTEP != nil && s.VTEP.Port != 0 {
		port = fmt.Sprintf("UDP port %d", s.VTEP.Port)
	}
	return port + " must be open between nodes, in both directions, and the network agent run there: 'culvert capture' shows what arrives"
}
