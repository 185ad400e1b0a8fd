package program

import (
	"cmp"
	"maps"
	"slices"

	"culvert/ctrl/flavour"
)

// owner is who wants rows: a peer, the node itself, or one of its pods. What
// changes is found owner by owner: one node of thousands costs what one costs.
type owner struct {
	layer layer
	name  string
	peer  flavour.Peer // what the rows of a peer were made from
	rows  rows         // as the tables have them
	seen  uint64       // the pass that found the peer among the desired ones
}

// layer says whose claim of a prefix wins: a pod's over the node's own, that over
// peers', that over Services', that over what the kernel's routes say.
type layer uint8

const (
	ofKernel layer = iota
	ofServices
	ofPeer
	ofNode
	ofPod
)

// below reports whether another owner's claim goes before o's.
func (o *owner) below(other *owner) bool {
	return cmp.Or(cmp.Compare(o.layer, other.layer), cmp.Compare(o.name, other.name)) < 0
}

// update is what an owner wants from now on.
type update struct {
	*owner
	want rows
}

// peerUpdates are those of the peers that changed, came and went; of all of them
// where what they have in common changed.
func (p *Programmer) peerUpdates(all bool) (out []update) {
	p.pass++
	for i := range p.desired.Peers {
		peer := &p.desired.Peers[i]
		key := peer.Key()
		o := p.peerOwners[key]
		known := o != nil
		if !known {
			o = &owner{layer: ofPeer, name: key}
			p.peerOwners[key] = o
		}
		o.seen = p.pass
		if same := known && samePeer(&o.peer, peer); !same || all {
			o.peer = *peer
			out = append(out, update{o, p.wantPeer(peer)})
		}
	}
	if len(p.peerOwners) == len(p.desired.Peers) {
		return out
	}
	maps.DeleteFunc(p.peerOwners, func(key string, o *owner) bool {
		if o.seen == p.pass {
			return false
		}
		out = append(out, update{owner: o})
		delete(p.peers, key)
		return true
	})
	return out
}

// samePeer reports whether a peer's rows would be the same.
func samePeer(a, b *flavour.Peer) bool {
	return a.PublicIP == b.PublicIP && a.TunnelIP == b.TunnelIP && a.VTEPMAC == b.VTEPMAC && a.Encap == b.Encap &&
		a.Name == b.Name && a.Way == b.Way && slices.Equal(a.PodCIDRs, b.PodCIDRs)
}

// sameForPeers reports whether what the rows of all peers are made with is the same.
func sameForPeers(a, b *flavour.Desired) bool {
	if a.VNI != b.VNI || a.Port != b.Port || (a.Local == nil) != (b.Local == nil) {
		return false
	}
	return a.Local == nil || a.Local.Endpoint(false) == b.Local.Endpoint(false) && a.Local.Endpoint(true) == b.Local.Endpoint(true)
}

// podUpdates are those of the pods that are named.
func (p *Programmer) podUpdates(devs []string) (out []update) {
	for _, dev := range devs {
		pod, there := p.pods[dev]
		o := p.podOwners[dev]
		switch {
		case there && o == nil:
			o = &owner{layer: ofPod, name: dev}
			p.podOwners[dev] = o
			fallthrough
		case there:
			out = append(out, update{o, wantPod(&pod)})
		case o != nil:
			delete(p.podOwners, dev)
			out = append(out, update{owner: o})
		}
	}
	return out
}
