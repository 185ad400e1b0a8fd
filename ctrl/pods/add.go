package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

// add attaches a pod, or leaves nothing behind.
func (m *Manager) add(req *request) (*types100.Result, error) {
	if err := m.notReady(); err != nil {
		return nil, err
	}
	mtu := m.cfg.MTU()
	if mtu == 0 {
		return nil, wrap(api.CNITryAgain, "culvertd is not ready for pods yet", errNoMTU)
	}
	prev, err := req.prevResult()
	if err == nil {
		err = req.first(prev)
	}
	if err != nil {
		return nil, err
	}
	name, unlock := m.lockName(req)
	defer unlock()
	if err := m.makeRoom(req.key, name); err != nil {
		return nil, err
	}
	rec := Record{
		ContainerID: req.key.ContainerID, IfName: req.key.IfName, Netns: req.netns, Network: req.conf.Name,
		Namespace: req.namespace, Pod: req.pod, UID: req.uid, MAC: req.mac.String(),
		PortMappings: req.ports, Kind: req.conf.kind(), HostName: name, MTU: mtu, Queues: m.cfg.Queues, State: StateAdding, Created: now(),
	}
	if err := m.attach(&rec, req); err != nil {
		m.log.Warn("pod not attached", "pod", rec.Name(), "container", rec.ContainerID, "port", name, "err", err)
		return nil, err
	}
	m.log.Info("pod attached", "pod", rec.Name(), "container", rec.ContainerID, "port", name, "addrs", rec.Addrs)
	return result(&rec, prev, req.conf.DNS), nil
}

// hostName is the host end's name for a request. A further interface of a
// container whose first one has the pod's name gets a name of its own.
func (m *Manager) hostName(req *request) string {
	name := podlink.HostName(m.cfg.HostPrefix(), req.namespace, req.pod, req.key.ContainerID)
	sibling := m.find(func(p *pod) bool {
		return p.rec.HostName == name && p.rec.ContainerID == req.key.ContainerID && p.rec.IfName != req.key.IfName
	})
	if sibling == nil {
		return name
	}
	return podlink.HostName(m.cfg.HostPrefix(), "", "", req.key.String())
}

// lockName locks the request's host name. The name can change while waiting,
// when a sibling interface takes it.
func (m *Manager) lockName(req *request) (name string, unlock func()) {
	for {
		name = m.hostName(req)
		unlock = m.locks.lock(name)
		if m.hostName(req) == name {
			return name, unlock
		}
		unlock()
	}
}

// makeRoom sees to it that neither the key nor the host name is taken. The
// caller holds the name's lock.
//
// What a pod that is gone has left behind goes. A live pod of the same
// namespace and name in another container is replaced: there is one sandbox a
// pod, and the runtime that makes a new one has given up the old one.
func (m *Manager) makeRoom(key Key, name string) error {
	if p := m.get(key); p != nil {
		if rec := m.record(p); rec.HostName != name || m.alive(p) {
			return refuse(api.CNIInterfaceExists, "container %s has the interface %s already: DEL comes before another ADD", key.ContainerID, key.IfName)
		}
	}
	for {
		p := m.find(func(p *pod) bool { return p.rec.HostName == name })
		if p == nil {
			break
		}
		rec := m.record(p)
		m.log.Warn("pod replaced", "pod", rec.Name(), "container", rec.ContainerID, "port", name)
		if err := m.drop(p); err != nil {
			return err
		}
	}
	// A link without a record: the state directory was lost or replaced. Only a
	// veth is on the node; a pod's TAP is in nobody's way but that pod's.
	stray := podlink.Ref{Kind: podlink.Veth, HostName: name}
	if _, ok, err := m.cfg.Links.Find(stray); err != nil || !ok {
		return wrap(api.CNILinkFailed, "the node's links cannot be read", err)
	}
	m.log.Warn("link without a record removed", "port", name)
	return wrap(api.CNILinkFailed, "a link without a record is in the way", m.cfg.Links.Remove(stray))
}

// alive reports whether a pod's link is there.
func (m *Manager) alive(p *pod) bool {
	m.mu.Lock()
	rec, gone := p.rec, p.gone
	m.mu.Unlock()
	if gone {
		return false
	}
	_, ok, err := m.cfg.Links.Find(rec.Link())
	return ok || err != nil
}

// attach goes through the steps of an ADD and undoes them on error. The
// caller holds the name's lock.
func (m *Manager) attach(rec *Record, req *request) (err error) {
	key := rec.Key()
	p := &pod{}
	if err := m.claim(key, p, *rec); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if undo := m.drop(p); undo != nil {
				// The record stays: DEL or the next start tries again.
				err = errors.Join(err, undo)
			}
		}
	}()
	if rec.Addrs, err = m.allocate(rec, req); err != nil {
		return addressError(err)
	}
	m.update(p, rec)
	if err = m.store.put(rec, false); err != nil {
		return err
	}
	link, err := m.cfg.Links.Create(rec.spec())
	if err != nil {
		m.claimLeftover(p, rec, err)
		return linkError("the pod's link could not be made", err)
	}
	rec.Ifindex, rec.MAC = link.Ifindex, link.MAC.String()
	m.update(p, rec)
	if err = m.attachPort(p); err != nil {
		return err
	}
	rec.State = StateReady
	m.update(p, rec)
	if err = m.store.put(rec, true); err != nil {
		return err
	}
	m.saveHistory()
	return nil
}

// claimLeftover makes a link that Create could neither finish nor remove the record's,
// so that it goes before its address does. makeRoom has seen that there was none.
func (m *Manager) claimLeftover(p *pod, rec *Record, cause error) {
	if errors.Is(cause, podlink.ErrHostNameTaken) || errors.Is(cause, podlink.ErrInterfaceExists) {
		return // somebody else's
	}
	if ifindex, ok, err := m.cfg.Links.Find(rec.Link()); err == nil && ok {
		rec.Ifindex = ifindex
		m.update(p, rec)
	}
}

// allocate takes the pod's addresses: those that another IPAM plugin gave, those that
// are asked for, or any.
func (m *Manager) allocate(rec *Record, req *request) ([]netip.Addr, error) {
	if len(req.given) > 0 {
		addrs := slices.SortedFunc(slices.Values(req.given), netip.Addr.Compare) // IPv4 first
		return addrs, m.cfg.IPAM.Reserve(rec.keyString(), addrs...)
	}
	if m.cfg.Cluster == nil {
		return m.cfg.IPAM.Allocate(rec.keyString(), req.ips...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), allocateTimeout)
	defer cancel()
	return m.cfg.Cluster.Allocate(ctx, *rec, req.ips)
}

// attachPort hands the pod to the dataplane.
func (m *Manager) attachPort(p *pod) error {
	rec := m.record(p)
	if err := m.cfg.Attacher.Attach(rec); err != nil {
		return wrap(api.CNIAttachFailed, "the dataplane did not take the pod's port", err)
	}
	m.mu.Lock()
	p.attached, p.gone, p.failed = true, false, nil
	m.mu.Unlock()
	// LinkGone passes over pods that are not attached: a link that vanished
	// until now was not told. From here on it is.
	ifindex, ok, err := m.cfg.Links.Find(rec.Link())
	if err == nil && (!ok || ifindex != rec.Ifindex) {
		err = fmt.Errorf("the link %s vanished while the pod was attached", rec.HostName)
	}
	if err != nil {
		return wrap(api.CNIAttachFailed, "the dataplane lost the pod's port", errors.Join(err, m.detachPort(p)))
	}
	return nil
}

// claim adds a pod unless its key or one of its host ports is taken.
func (m *Manager) claim(key Key, p *pod, rec Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[key] != nil {
		return refuse(api.CNITryAgain, "another ADD of container %s, interface %s is on its way", key.ContainerID, key.IfName)
	}
	if err := m.portTaken(&rec); err != nil {
		return err
	}
	p.rec = rec
	m.pods[key] = p
	return nil
}

// update publishes a changed record to readers.
func (m *Manager) update(p *pod, rec *Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.rec = *rec
	p.rec.Addrs = slices.Clone(rec.Addrs)
}

// saveHistory keeps the order of addresses. Losing it costs only the order.
func (m *Manager) saveHistory() {
	m.history.Lock() // of two writes the later one has the later order
	defer m.history.Unlock()
	if err := m.store.putHistory(m.cfg.IPAM.History()); err != nil {
		m.log.Warn("order of addresses not kept", "err", err)
	}
}
