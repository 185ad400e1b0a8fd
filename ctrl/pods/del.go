package pods

import (
	"errors"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

// del detaches a pod. It succeeds for one that is not there, or only in parts.
func (m *Manager) del(req *request) error {
	p := m.get(req.key)
	if p == nil {
		return m.delStray(req)
	}
	return m.delRecord(req.key, p)
}

// delRecord drops a pod under its name's lock, unless somebody else has.
func (m *Manager) delRecord(key Key, p *pod) error {
	rec := m.record(p)
	defer m.locks.lock(rec.HostName)()
	if m.get(key) != p {
		return nil // dropped while we waited
	}
	if err := m.drop(p); err != nil {
		m.log.Warn("pod not detached", "pod", rec.Name(), "container", rec.ContainerID, "port", rec.HostName, "err", err)
		return err
	}
	m.log.Info("pod detached", "pod", rec.Name(), "container", rec.ContainerID, "port", rec.HostName)
	return nil
}

// delStray removes a link that no record tells of, if it is beyond doubt the
// one that an ADD with these parameters made.
func (m *Manager) delStray(req *request) error {
	if req.netns == "" {
		return nil
	}
	name, unlock := m.lockName(req)
	defer unlock()
	if m.find(func(p *pod) bool { return p.rec.HostName == name }) != nil {
		return nil // another container's by now
	}
	ref := podlink.Ref{Kind: req.conf.kind(), HostName: name, Netns: req.netns, IfName: req.key.IfName}
	if !m.cfg.Links.Adopts(ref) {
		return nil
	}
	m.log.Warn("link without a record removed", "port", name, "container", req.key.ContainerID)
	return linkError("the pod's link could not be removed", m.cfg.Links.Remove(ref))
}

// drop takes a pod apart in the reverse order of ADD, whatever of it there
// is. The address is free only when the record is gone; on error the record
// stays, so that a later DEL goes on. The caller holds the name's lock.
func (m *Manager) drop(p *pod) error {
	if err := m.detachPort(p); err != nil {
		return err
	}
	rec := m.record(p)
	key := rec.Key()
	// Before Create succeeded, a link of that name is not this pod's.
	if rec.Ifindex != 0 {
		if err := m.cfg.Links.Remove(rec.Link()); err != nil {
			return linkError("the pod's link could not be removed", err)
		}
	}
	if c := m.cfg.Cluster; c != nil {
		if err := c.Release(rec); err != nil {
			return err
		}
	}
	m.cfg.IPAM.Retire(key.String())
	m.saveHistory() // before the record goes: what no record holds is cooling on disk, too
	if err := m.store.remove(key); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.pods, key)
	m.mu.Unlock()
	m.cfg.IPAM.Release(key.String())
	return nil
}

// detachPort takes the pod out of the dataplane, if it is in it.
func (m *Manager) detachPort(p *pod) error {
	m.mu.Lock()
	rec, attached := p.rec, p.attached
	m.mu.Unlock()
	if !attached {
		return nil
	}
	if err := m.cfg.Attacher.Detach(rec); err != nil {
		return wrap(api.CNIAttachFailed, "the dataplane did not let go of the pod's port", err)
	}
	m.mu.Lock()
	p.attached = false
	m.mu.Unlock()
	return nil
}

// gc drops every pod of the request's network that is not in its list. A request
// without a list is refused: taken for an empty one it would drop them all. So is one
// that comes before all records are read.
func (m *Manager) gc(req *request) error {
	if err := m.notReady(); err != nil {
		return err
	}
	list := req.conf.Valid
	if list == nil {
		list = req.conf.ValidTwin
	}
	if list == nil {
		return refuse(api.CNIInvalidConfig, "GC needs cni.dev/valid-attachments in the network configuration; an empty list drops every pod")
	}
	valid := map[Key]bool{}
	for _, a := range *list {
		valid[Key{a.ContainerID, a.IfName}] = true
	}
	var errs []error
	for _, rec := range m.List() {
		key := rec.Key()
		if rec.Network != req.conf.Name || valid[key] {
			continue
		}
		if p := m.get(key); p != nil {
			errs = append(errs, m.delRecord(key, p))
		}
	}
	return wrap(api.CNILinkFailed, "not all stale pods could be removed", errors.Join(errs...))
}

// LinkGone tells that the kernel removed a link of the node: somebody deleted
// the veth or the pod's namespace. That pod alone is detached; its record and
// address stay until DEL. Other links are none of its business. It waits for
// a transaction on the same pod: do not call it from what Attach waits for.
func (m *Manager) LinkGone(ifindex int) {
	match := func(p *pod) bool { return p.rec.Ifindex == ifindex && p.rec.Kind != podlink.TAP && p.attached }
	if p := m.find(match); p != nil {
		m.lose(p, func() bool { return m.find(match) == p })
	}
}

// LookForTAPs looks for the TAPs of attached pods, and does as LinkGone does for
// one that is not there. Nothing tells of it otherwise: the TAP is in the pod's
// namespace, and that one, as long as the dataplane has queues open, does not
// end for the kernel when its path goes (package dataplane/tap). It is a few
// system calls a pod: call it every second or so.
func (m *Manager) LookForTAPs() {
	var taps []*pod
	m.mu.Lock()
	for _, p := range m.pods {
		if p.rec.Kind == podlink.TAP && p.attached {
			taps = append(taps, p)
		}
	}
	m.mu.Unlock()
	for _, p := range taps {
		rec := m.record(p)
		missing := func() bool {
			_, ok, err := m.cfg.Links.Find(rec.Link())
			return !ok && err == nil
		}
		if missing() {
			m.lose(p, func() bool { return m.get(rec.Key()) == p && missing() })
		}
	}
}

// lose detaches a pod whose link is gone, if that is still so when nothing else
// goes on with it.
func (m *Manager) lose(p *pod, still func() bool) {
	rec := m.record(p)
	defer m.locks.lock(rec.HostName)()
	if !still() {
		return // DEL came first
	}
	m.mu.Lock()
	p.gone = true
	m.mu.Unlock()
	m.log.Warn("the pod's link is gone; its address is kept until DEL", "pod", rec.Name(), "port", rec.HostName)
	if err := m.detachPort(p); err != nil {
		m.log.Error("pod not detached", "pod", rec.Name(), "port", rec.HostName, "err", err)
	}
}
