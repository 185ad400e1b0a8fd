// Package ipamcheck compares what says who has which address: the allocator, the pods'
// records, links and namespaces, the Pods at the API server, and Calico's blocks and
// handles. It reads nothing itself and changes nothing: package agent gathers a View,
// and does what of the findings' repairs is sound.
package ipamcheck

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"culvert/ctrl/api"
)

// Kinds of findings.
const (
	// Unowned: an address is taken for a container that there is no record of.
	Unowned = "unowned"
	// NotReserved: a pod's address is not taken for it.
	NotReserved = "not_reserved"
	// NoAddress: a pod has none.
	NoAddress = "no_address"
	// NoNetns: a record whose link and network namespace are gone.
	NoNetns = "no_netns"
	// NoLink: a record whose link is gone and whose namespace is there.
	NoLink = "no_link"
	// StrayLink: a link of a pod without a record.
	StrayLink = "stray_link"
	// PodGone: the API server knows no such pod on this node.
	PodGone = "pod_gone"
	// PodDiffers: the pod has another address at the API server.
	PodDiffers = "pod_differs"
	// BlockLeak: a block gives an address to a pod of this node that is not here.
	BlockLeak = "block_leak"
	// BlockDiffers: a block does not give a pod's address to that pod.
	BlockDiffers = "block_differs"
	// NoHandle: an address in a block has no handle that counts it.
	NoHandle = "no_handle"
	// EmptyHandle: a handle counts addresses that the block does not give it.
	EmptyHandle = "empty_handle"
)

// Kinds is all of them, in the order in which they are printed.
var Kinds = []string{Unowned, NotReserved, NoAddress, NoNetns, NoLink, StrayLink, PodGone, PodDiffers, BlockLeak, BlockDiffers, NoHandle, EmptyHandle}

// Pod is a record and what was seen of it.
type Pod struct {
	Owner     string // in the allocator
	Name      string // for people
	Ready     bool   // its ADD is done
	Addrs     []netip.Addr
	Linked    bool
	Netns     bool   // its network namespace is there
	Handle    string // in Calico's IPAM
	Unsettled bool   // the blocks are about to be written
	// Object is the Pod at the API server; nil: that was not asked.
	Object *Object
}

// Object is what the API server says of a pod.
type Object struct {
	Here bool // there is one, and it is this node's
	IPs  []string
}

// Link is a device of the node that is a pod's.
type Link struct{ Name, Alias string }

// Block is one of Calico's with what concerns this node.
type Block struct {
	CIDR string
	Own  bool // it is this node's
	// Given are all addresses that it gives.
	Given []Given
}

// Given is an address that a block gives.
type Given struct {
	Addr     netip.Addr
	Handle   string
	Node     string
	Pod      string // NAMESPACE/NAME; empty: it is no pod's
	Released bool   // it is about to be free
}

// View is everything at about one time. Parts that are nil were not looked at.
type View struct {
	Node   string
	Owners map[string][]netip.Addr // as the allocator has it
	Pods   []Pod                   // read after Owners
	Links  []Link                  // read before Pods
	// Names are the links that records name.
	Names  map[string]bool
	Blocks []Block // nil: not Calico's
	// Handles are counts of addresses by handle and block.
	Handles map[string]map[string]int
	// Owed are handles that are about to be written.
	Owed map[string]bool
}

// Compare says what does not fit, in the order of Kinds.
func Compare(v *View) []api.IPAMFinding {
	found := append(v.allocator(), v.pods()...)
	found = append(found, v.links()...)
	if v.Blocks != nil {
		found = append(found, v.blocks()...)
		found = append(found, v.handles()...)
	}
	slices.SortFunc(found, func(a, b api.IPAMFinding) int {
		return cmp.Or(cmp.Compare(slices.Index(Kinds, a.Kind), slices.Index(Kinds, b.Kind)),
			strings.Compare(a.Owner, b.Owner), strings.Compare(a.Address, b.Address))
	})
	return found
}

// Both are findings of two comparisons: what was only passing is in one of them.
func Both(a, b []api.IPAMFinding) (both []api.IPAMFinding) {
	for _, f := range a {
		if slices.Contains(b, f) {
			both = append(both, f)
		}
	}
	return both
}

// New are the findings that are not among those of before.
func New(before, found []api.IPAMFinding) (fresh []api.IPAMFinding) {
	for _, f := range found {
		if !slices.Contains(before, f) {
			fresh = append(fresh, f)
		}
	}
	return fresh
}

// allocator compares the allocator with the records.
func (v *View) allocator() (found []api.IPAMFinding) {
	records := map[string]*Pod{}
	for i := range v.Pods {
		records[v.Pods[i].Owner] = &v.Pods[i]
	}
	for owner, addrs := range v.Owners {
		if records[owner] != nil {
			continue
		}
		for _, a := range addrs {
			found = append(found, api.IPAMFinding{Kind: Unowned, Address: a.String(), Owner: owner,
				What: "the address is taken, and no record names its container", Do: "culvert ipam check --repair"})
		}
	}
	for i := range v.Pods {
		p := &v.Pods[i]
		if p.Ready && len(p.Addrs) == 0 {
			found = append(found, api.IPAMFinding{Kind: NoAddress, Owner: p.Name,
				What: "the pod is attached and has no address", Do: "delete the pod; its controller makes it again"})
		}
		for _, a := range p.Addrs {
			if p.Ready && !slices.Contains(v.Owners[p.Owner], a) {
				found = append(found, api.IPAMFinding{Kind: NotReserved, Address: a.String(), Owner: p.Name,
					What: "the pod's address is not taken for it: another pod may get it", Do: "restart culvertd, which takes the addresses of its records"})
			}
		}
	}
	return found
}

// pods compares records with their links and namespaces, and with the API server.
func (v *View) pods() (found []api.IPAMFinding) {
	for i := range v.Pods {
		p := &v.Pods[i]
		if !p.Ready {
			continue // its ADD is on its way
		}
		f := api.IPAMFinding{Owner: p.Name, Address: join(p.Addrs)}
		switch {
		case !p.Linked && !p.Netns:
			f.Kind, f.What, f.Do = NoNetns, "the pod's network namespace and link are gone, and no DEL has come", "culvert ipam check --repair"
			found = append(found, f)
			continue
		case !p.Linked:
			f.Kind, f.What, f.Do = NoLink, "the pod's link is gone, its network namespace is not", "delete the pod; its controller makes it again"
			found = append(found, f)
		}
		o := p.Object
		switch {
		case o == nil:
		case !o.Here:
			f.Kind, f.What, f.Do = PodGone, "the API server knows no such pod on this node, and its link is there", "look for its sandbox with 'crictl pods' and remove it with 'crictl rmp'"
			found = append(found, f)
		case len(o.IPs) > 0 && !has(o.IPs, p.Addrs):
			f.Kind, f.Do = PodDiffers, "delete the pod; its controller makes it again"
			f.What = "the Pod's status.podIPs are " + strings.Join(o.IPs, ", ")
			found = append(found, f)
		}
	}
	return found
}

// links finds devices of pods that no record names.
func (v *View) links() (found []api.IPAMFinding) {
	for _, l := range v.Links {
		if !v.Names[l.Name] {
			found = append(found, api.IPAMFinding{Kind: StrayLink, Owner: l.Name,
				What: fmt.Sprintf("the link is a pod's (%s), and there is no record of it", l.Alias), Do: "ip link del " + l.Name + ", if the pod is gone"})
		}
	}
	return found
}

// blocks compares Calico's blocks with the records.
func (v *View) blocks() (found []api.IPAMFinding) {
	given := map[netip.Addr]*Given{}
	handles := map[string]*Pod{}
	for i := range v.Pods {
		handles[v.Pods[i].Handle] = &v.Pods[i]
	}
	for i := range v.Blocks {
		b := &v.Blocks[i]
		for j := range b.Given {
			g := &b.Given[j]
			given[g.Addr] = g
			if g.Node == v.Node && g.Pod != "" && !g.Released && handles[g.Handle] == nil && !v.Owed[g.Handle] {
				found = append(found, api.IPAMFinding{Kind: BlockLeak, Address: g.Addr.String(), Owner: g.Pod,
					What: fmt.Sprintf("block %s gives the address to %s of this node, which has no record here", b.CIDR, g.Handle),
					Do:   "wait: it is released after five minutes, if the API server knows no such pod with it; a pod of another CNI plugin keeps it"})
			}
		}
	}
	for i := range v.Pods {
		p := &v.Pods[i]
		if !p.Ready || p.Unsettled || p.Handle == "" {
			continue
		}
		for _, a := range p.Addrs {
			if g := given[a]; g == nil || g.Handle != p.Handle {
				by := "nobody"
				if g != nil {
					by = cmp.Or(g.Pod, g.Handle, "an owner without a handle")
				}
				found = append(found, api.IPAMFinding{Kind: BlockDiffers, Address: a.String(), Owner: p.Name,
					What: "Calico's IPAM has the address as that of " + by, Do: "wait a quarter of an hour for it to be written again; where somebody else has it, delete one of the two"})
			}
		}
	}
	return found
}

// handles compares Calico's handles with the blocks.
func (v *View) handles() (found []api.IPAMFinding) {
	type key struct{ handle, block string }
	counts := map[key]int{}
	whose := map[key]*Given{}
	for i := range v.Blocks {
		b := &v.Blocks[i]
		for j := range b.Given {
			k := key{b.Given[j].Handle, b.CIDR}
			counts[k]++
			whose[k] = &b.Given[j]
		}
	}
	for k, n := range counts {
		g := whose[k]
		if g.Node != v.Node || g.Released || v.Owed[k.handle] {
			continue
		}
		if has := v.Handles[k.handle][k.block]; has < n {
			found = append(found, api.IPAMFinding{Kind: NoHandle, Address: g.Addr.String(), Owner: cmp.Or(g.Pod, k.handle),
				What: fmt.Sprintf("block %s gives %d addresses to handle %q, which counts %d", k.block, n, k.handle, has),
				Do:   "calicoctl ipam check; the pod's DEL frees the address all the same"})
		}
	}
	own := map[string]bool{}
	for i := range v.Blocks {
		own[v.Blocks[i].CIDR] = v.Blocks[i].Own
	}
	for handle, blocks := range v.Handles {
		for block, n := range blocks {
			if has := counts[key{handle, block}]; own[block] && n > has && !v.Owed[handle] {
				found = append(found, api.IPAMFinding{Kind: EmptyHandle, Owner: handle,
					What: fmt.Sprintf("the handle counts %d addresses of block %s, which gives it %d", n, block, has),
					Do:   "calicoctl ipam check --show-problem-ips; it holds no address"})
			}
		}
	}
	return found
}

func join(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ",")
}

// has reports whether all addresses are in a list, whatever their spelling.
func has(texts []string, addrs []netip.Addr) bool {
	for _, a := range addrs {
		if !slices.ContainsFunc(texts, func(s string) bool { b, err := netip.ParseAddr(s); return err == nil && b == a }) {
			return false
		}
	}
	return true
}
