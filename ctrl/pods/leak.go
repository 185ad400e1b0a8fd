package pods

import (
	"errors"
	"io/fs"
	"os"
)

// Seen is a record and what there is of its pod at this moment.
type Seen struct {
	Record
	Linked bool // the link is there, or cannot be looked for
	Netns  bool // the network namespace's path is there, or cannot be looked for
}

// Look looks at the link and the namespace of every record.
func (m *Manager) Look() []Seen {
	var all []Seen
	for _, rec := range m.List() {
		all = append(all, m.look(&rec))
	}
	return all
}

func (m *Manager) look(rec *Record) Seen {
	_, linked, err := m.cfg.Links.Find(rec.Link())
	s := Seen{Record: *rec, Linked: linked || err != nil}
	_, err = os.Stat(rec.Netns)
	s.Netns = !errors.Is(err, fs.ErrNotExist)
	return s
}

// Forget drops a pod whose link and namespace are gone: what a DEL would do, which has
// not come. It reports whether it did. Others are left alone.
func (m *Manager) Forget(key Key) (bool, error) {
	p := m.get(key)
	if p == nil {
		return false, nil
	}
	rec := m.record(p)
	defer m.locks.lock(rec.HostName)()
	rec = m.record(p)
	if m.get(key) != p || rec.State != StateReady {
		return false, nil
	}
	if s := m.look(&rec); s.Linked || s.Netns {
		return false, nil
	}
	if err := m.drop(p); err != nil {
		return false, err
	}
	m.log.Warn("pod without namespace and link forgotten", "pod", rec.Name(), "port", rec.HostName, "addrs", rec.Addrs)
	return true, nil
}

// FreeOrphan releases what the allocator has for an owner that no pod has as its key. It
// reports whether there was no such pod.
func (m *Manager) FreeOrphan(owner string) bool {
	m.mu.Lock()
	defer m.mu.Unlock() // an ADD is among the pods before it takes an address
	for key := range m.pods {
		if key.String() == owner {
			return false
		}
	}
	m.cfg.IPAM.Release(owner)
	return true
}
