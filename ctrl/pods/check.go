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
		if err := m.notReady(); err != nil {
			return err // its record may not have been read yet
		}
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
		if err := m.notReady(); err != nil {
			return err // it may be its turn soon
		}
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
	if err := req.compareMAC(prev, &spec); err != nil {
		return err
	}
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

// compareMAC finds that a plugin later in the chain (tuning) has given the pod another
// MAC: the dataplane takes the pod's frames with the one that it was given only.
func (r *request) compareMAC(prev *prevResult, spec *podlink.Spec) error {
	if prev == nil {
		return nil
	}
	for _, i := range prev.Interfaces {
		mac := parseMAC(i.Mac)
		if i.Name == spec.IfName && i.Sandbox != "" && mac != nil && mac.String() != spec.MAC.String() {
			return refuse(api.CNICheckFailed, "prevResult gives %s the MAC %s, and the dataplane takes frames with %s only: "+
				"a MAC is culvert-cni's to give (capability mac), not that of a plugin after it", i.Name, mac, spec.MAC)
		}
	}
	return nil
}
