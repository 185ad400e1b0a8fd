package pods

import (
	"errors"
	"slices"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

// check verifies that a pod is as ADD left it.
func (m *Manager) check(req *request) error {
	prev, err := req.prevResult()
	if err != nil {
		return err
	}
	p := m.get(req.key)
	if p == nil {
		return refuse(api.CNIUnknownContainer, "container %s has no interface %s here: it needs an ADD", req.key.ContainerID, req.key.IfName)
	}
	name := m.record(p).HostName
	defer m.locks.lock(name)()
	m.mu.Lock()
	rec, attached, gone := p.rec, p.attached, p.gone
	m.mu.Unlock()
	switch {
	case gone:
		return refuse(api.CNICheckFailed, "the link %s of %s was deleted", name, rec.Name())
	case rec.State != StateReady || !attached:
		return refuse(api.CNICheckFailed, "%s is not attached to the dataplane: DEL and ADD it, or restart culvertd", rec.Name())
	}
	for _, a := range rec.Addrs {
		if owner, _ := m.cfg.IPAM.Owner(a); owner != rec.keyString() {
			return refuse(api.CNICheckFailed, "address %s of %s is not reserved for it", a, rec.Name())
		}
	}
	if err := req.comparePrev(prev, &rec); err != nil {
		return err
	}
	spec := rec.spec()
	spec.Netns = req.netns
	req.tuned(prev, &spec)
	return linkCheckError(m.cfg.Links.Check(spec))
}

// linkCheckError keeps a bad namespace apart from a difference.
func linkCheckError(err error) error {
	if err == nil {
		return nil
	}
	var netns *podlink.NetnsError
	if errors.As(err, &netns) {
		return linkError("", err)
	}
	return refuse(api.CNICheckFailed, "%v", err)
}

// comparePrev makes sure that the runtime's idea of the pod's addresses
// includes ours.
func (r *request) comparePrev(prev *prevResult, rec *Record) error {
	if prev == nil {
		return nil
	}
	for _, a := range rec.Addrs {
		if !slices.ContainsFunc(prev.IPs, func(ip *ipConfig) bool { return ip.Address.IP.Equal(a.AsSlice()) }) {
			return refuse(api.CNICheckFailed, "prevResult does not have the pod's address %s", a)
		}
	}
	return nil
}

// tuned lets what a plugin later in the chain changed (tuning: MAC, MTU) hold.
func (r *request) tuned(prev *prevResult, spec *podlink.Spec) {
	if prev == nil {
		return
	}
	for _, i := range prev.Interfaces {
		if i.Name != spec.IfName || i.Sandbox == "" {
			continue
		}
		if mac := parseMAC(i.Mac); mac != nil {
			spec.MAC = mac
		}
		if i.Mtu != 0 {
			spec.MTU = i.Mtu
		}
	}
}
