package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/api"
	"culvert/ctrl/calicoipam"
	"culvert/ctrl/ipam"
	"culvert/ctrl/ipamcheck"
	"culvert/ctrl/podlink"
	"culvert/ctrl/pods"
	"culvert/ctrl/source"
)

// Times of the comparison of addresses.
const (
	// compareEvery is how often this node's own part is compared.
	compareEvery = 5 * time.Minute
	// secondLook is how long after a comparison with findings another one follows: what
	// was only passing is not in both.
	secondLook = 300 * time.Millisecond
	// objectsTimeout bounds what a comparison asks of the API server.
	objectsTimeout = 20 * time.Second
)

// addressKinds are where addresses come from.
func addressKind(whole bool) string {
	if whole {
		return "block"
	}
	return "podcidr"
}

// cooldown is the one in force: the cluster's, or the node's own.
func (a *Agent) cooldown() time.Duration {
	if a.claims() {
		if d := a.keeper.Cooldown(); d > 0 {
			return d
		}
	}
	return a.ipam.Cooldown()
}

// IPAM implements apiserver.Backend and metrics.Source.
func (a *Agent) IPAM() api.IPAM {
	d := a.cooldown()
	out := api.IPAM{Mode: cmp.Or(a.program.Desired().Mode, a.cfg.Mode), Cooldown: d.Seconds(), Pools: []api.IPAMPool{}, Findings: map[string]int{}}
	for _, u := range a.ipam.Usage(d) {
		out.Pools = append(out.Pools, api.IPAMPool{CIDR: u.CIDR.String(), Kind: addressKind(u.Whole),
			Size: u.Size, Used: u.Used, Cooling: u.Cooling, Free: u.Free, Reserved: u.Reserved})
	}
	for _, kind := range ipamcheck.Kinds {
		out.Findings[kind] = 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.leaks {
		out.Findings[f.Kind]++
	}
	if at := a.compared; !at.IsZero() {
		out.Checked = &at
	}
	return out
}

// IPAMAddress implements apiserver.Backend.
func (a *Agent) IPAMAddress(addr netip.Addr) api.IPAMAddress {
	cooldown := a.cooldown()
	at := a.ipam.Look(addr, cooldown)
	out := api.IPAMAddress{Address: addr.String(), State: string(at.State), Why: at.Why}
	for _, u := range a.ipam.Usage(cooldown) {
		if u.CIDR == at.CIDR {
			out.CIDR, out.Kind = u.CIDR.String(), addressKind(u.Whole)
		}
	}
	if !at.Since.IsZero() {
		out.Since = &at.Since
	}
	if until := at.Since.Add(cooldown); at.State == ipam.Cooling {
		out.Until = &until
	}
	a.describeOwner(&out, at.Owner)
	if n := a.program.Desired().Local; n != nil && at.State != ipam.Used && (addr == n.TunnelIP || n.V6 != nil && addr == n.V6.TunnelIP) {
		out.State, out.Why = "tunnel", "it is this node's tunnel address"
	} else if !at.CIDR.IsValid() && at.State == ipam.Free {
		out.State, out.Why = "foreign", "it is in no pod CIDR or block of this node"
	}
	return out
}

// describeOwner adds the pod of an address.
func (a *Agent) describeOwner(out *api.IPAMAddress, owner string) {
	if owner == "" {
		return
	}
	for _, rec := range a.pods.List() {
		if rec.Key().String() != owner {
			continue
		}
		out.Namespace, out.Name, out.ContainerID, out.IfName = rec.Namespace, rec.Pod, rec.ContainerID, rec.IfName
		out.Port, out.NetNS, out.PodState, out.Since = rec.HostName, rec.Netns, string(rec.State), &rec.Created
		if a.claims() {
			out.Handle = calicoipam.PodHandle(rec.Network, rec.ContainerID)
		}
		return
	}
	out.Why = "it is taken for " + owner + ", of which there is no record"
}

// IPAMCheck implements apiserver.Backend.
func (a *Agent) IPAMCheck(ctx context.Context, req api.IPAMCheckRequest) (api.IPAMCheck, error) {
	if !a.isRestored() {
		return api.IPAMCheck{}, api.Unavailable("%v", errRestoring)
	}
	out := a.compareAddresses(ctx, true)
	if req.Repair {
		a.repairAddresses(out.Findings)
	}
	return out, ctx.Err()
}

// compareAddresses looks twice where the first look finds anything. deep: the API server
// is asked, too.
func (a *Agent) compareAddresses(ctx context.Context, deep bool) (out api.IPAMCheck) {
	view := a.viewAddresses(ctx, deep, &out)
	out.Findings = ipamcheck.Compare(view)
	if len(out.Findings) > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(secondLook):
		}
		out.Compared, out.Skipped = nil, nil
		out.Findings = ipamcheck.Both(ipamcheck.Compare(a.viewAddresses(ctx, deep, &out)), out.Findings)
	}
	if out.Findings == nil {
		out.Findings = []api.IPAMFinding{}
	}
	return out
}

// viewAddresses gathers who has which address, in the order that package ipamcheck needs.
func (a *Agent) viewAddresses(ctx context.Context, deep bool, out *api.IPAMCheck) *ipamcheck.View {
	v := &ipamcheck.View{Node: a.cfg.Node, Owners: a.ipam.Owners(), Names: map[string]bool{}, Owed: map[string]bool{}}
	var err error
	if v.Links, err = podDevices(); err != nil {
		out.Skipped = append(out.Skipped, fmt.Sprintf("devices of the node: %v", err))
	}
	ctx, cancel := context.WithTimeout(ctx, objectsTimeout)
	defer cancel()
	calico := deep && a.claims()
	if calico {
		a.viewBlocks(ctx, v, out)
	}
	ask := deep && a.calico != nil
	for _, seen := range a.pods.Look() {
		v.Names[seen.HostName] = true
		p := ipamcheck.Pod{Owner: seen.Key().String(), Name: seen.Name(), Ready: seen.State != pods.StateAdding,
			Addrs: seen.Addrs, Linked: seen.Linked, Netns: seen.Netns}
		if v.Blocks != nil {
			p.Handle = calicoipam.PodHandle(seen.Network, seen.ContainerID)
			p.Unsettled = v.Owed[p.Handle]
		}
		if ask && seen.Pod != "" && seen.IfName == "eth0" { // the network of status.podIPs
			p.Object, err = a.podObject(ctx, seen.Namespace, seen.Pod)
			if err != nil {
				ask = false
				out.Skipped = append(out.Skipped, fmt.Sprintf("Pods at the API server: %v", err))
			}
		}
		v.Pods = append(v.Pods, p)
	}
	out.Compared = append(out.Compared, fmt.Sprintf("%d records of pods", len(v.Pods)), fmt.Sprintf("%d owners of addresses", len(v.Owners)), fmt.Sprintf("%d links", len(v.Links)))
	if ask {
		out.Compared = append(out.Compared, "Pods at the API server")
	}
	if v.Blocks != nil {
		out.Compared = append(out.Compared, fmt.Sprintf("%d blocks", len(v.Blocks)))
	}
	return v
}

// viewBlocks adds what Calico's IPAM has of this node.
func (a *Agent) viewBlocks(ctx context.Context, v *ipamcheck.View, out *api.IPAMCheck) {
	audit, err := a.keeper.Audit(ctx)
	if err != nil {
		out.Skipped = append(out.Skipped, fmt.Sprintf("Calico's blocks and handles: %v", err))
		return
	}
	v.Blocks, v.Handles, v.Owed = []ipamcheck.Block{}, audit.Handles, audit.Owed
	for _, b := range audit.Blocks {
		block := ipamcheck.Block{CIDR: b.CIDR.String(), Own: b.Own}
		for _, g := range b.Given {
			given := ipamcheck.Given{Addr: g.Addr, Handle: g.Handle, Node: g.Attrs["node"], Released: g.Released}
			if g.Attrs["pod"] != "" {
				given.Pod = g.Attrs["namespace"] + "/" + g.Attrs["pod"]
			}
			block.Given = append(block.Given, given)
		}
		v.Blocks = append(v.Blocks, block)
	}
}

// podObject is what the API server says of a pod.
func (a *Agent) podObject(ctx context.Context, namespace, name string) (*ipamcheck.Object, error) {
	obj, err := a.calico.Get(ctx, source.Ref{Kind: calicoipam.KindPod, Namespace: namespace, Name: name})
	if errors.Is(err, calicoipam.ErrNotFound) {
		return &ipamcheck.Object{}, nil
	}
	if err != nil {
		return nil, err
	}
	o := &ipamcheck.Object{}
	on, _, _ := unstructured.NestedString(obj.Object, "spec", "nodeName")
	o.Here = on == "" || on == a.cfg.Node
	ips, _, _ := unstructured.NestedSlice(obj.Object, "status", "podIPs")
	for _, ip := range ips {
		if m, ok := ip.(map[string]any); ok {
			o.IPs = append(o.IPs, fmt.Sprint(m["ip"]))
		}
	}
	return o, nil
}

// podDevices are the node's devices that are ends of pods' veths, by their alias.
func podDevices() (all []ipamcheck.Link, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if alias := l.Attrs().Alias; l.Type() == "veth" && strings.HasPrefix(alias, podlink.AliasPrefix) {
			all = append(all, ipamcheck.Link{Name: l.Attrs().Name, Alias: strings.TrimPrefix(alias, podlink.AliasPrefix)})
		}
	}
	return all, nil
}

// repairAddresses frees what is certainly nobody's: it is looked at once more, under the
// locks of ADD and DEL.
func (a *Agent) repairAddresses(found []api.IPAMFinding) {
	for i := range found {
		f := &found[i]
		switch f.Kind {
		case ipamcheck.Unowned:
			if f.Repaired = a.pods.FreeOrphan(f.Owner); f.Repaired {
				a.log.Warn("address of no pod released", "addr", f.Address, "owner", f.Owner)
			}
		case ipamcheck.NoNetns:
			for _, rec := range a.pods.List() {
				if rec.Name() != f.Owner {
					continue
				}
				done, err := a.pods.Forget(rec.Key())
				if err != nil {
					f.What += ": " + err.Error()
				}
				f.Repaired = f.Repaired || done
			}
		case ipamcheck.BlockLeak, ipamcheck.BlockDiffers:
			a.keeper.Look()
		}
	}
}

// followAddresses compares the node's own part now and then, and tells what is new once.
func (a *Agent) followAddresses(ctx context.Context) error {
	every := time.NewTicker(compareEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		a.noteLeaks(a.compareAddresses(ctx, false).Findings)
	}
}

// noteLeaks keeps findings, and logs those that the last comparison did not have.
func (a *Agent) noteLeaks(found []api.IPAMFinding) {
	a.mu.Lock()
	before := a.leaks
	a.leaks, a.compared = found, time.Now()
	a.mu.Unlock()
	for _, f := range ipamcheck.New(before, found) {
		a.log.Warn("addresses do not fit", "kind", f.Kind, "addr", f.Address, "owner", f.Owner, "cause", f.What, "do", f.Do)
	}
}
