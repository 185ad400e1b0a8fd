package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

// Restore brings back what the records tell of: pods whose link is there are
// attached as they were, without the runtime noticing; pods whose link is gone
// are forgotten and their addresses freed; an ADD that a crash cut short is
// undone. Then come the DELs that found no agent.
//
// It does as much as it can: the error tells of every pod that could not be
// attached and every record that was unusable, and the others work. Calling it
// again tries those again; Retry does that without reading the records. Call
// it before CNI.
func (m *Manager) Restore(ctx context.Context) error {
	recs, problems, err := m.store.load()
	if err != nil {
		return err
	}
	var pods []*pod
	for _, rec := range recs {
		p, err := m.adopt(rec)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		pods = append(pods, p)
	}
	// After every address that is taken is known to be.
	m.cfg.IPAM.SetHistory(m.store.loadHistory())
	for _, p := range pods {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(problems, err)...)
		}
		problems = append(problems, m.restoreNamed(p))
	}
	m.Drain()
	return errors.Join(problems...)
}

// Retry tries again to attach the pods that Restore, or an earlier Retry, could
// not attach. The error tells of those that still could not be. It looks for the
// TAPs of the others.
func (m *Manager) Retry(ctx context.Context) error {
	m.LookForTAPs()
	var pods []*pod
	m.mu.Lock()
	for _, p := range m.pods {
		if p.failed != nil && !p.attached && !p.gone {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b *pod) int { return strings.Compare(a.rec.HostName, b.rec.HostName) })
	m.mu.Unlock()
	var problems []error
	for _, p := range pods {
		if ctx.Err() != nil {
			break
		}
		problems = append(problems, m.restoreNamed(p))
	}
	return errors.Join(problems...)
}

// restoreNamed is restore with the pod's name on the error, which it keeps.
func (m *Manager) restoreNamed(p *pod) error {
	err := m.restore(p)
	if err == nil {
		return nil
	}
	m.mu.Lock()
	p.failed = err
	rec := p.rec
	m.mu.Unlock()
	return fmt.Errorf("%s: %w", rec.Name(), err)
}

// adopt takes over a record and reserves its addresses.
func (m *Manager) adopt(rec Record) (*pod, error) {
	key := rec.Key()
	if p := m.get(key); p != nil {
		return p, nil // an earlier Restore
	}
	if other := m.find(func(p *pod) bool { return p.rec.HostName == rec.HostName }); other != nil {
		first := m.record(other)
		return nil, fmt.Errorf("records of %s and %s name the same host interface %s: the second one is ignored", first.Name(), rec.Name(), rec.HostName)
	}
	if err := m.cfg.IPAM.Reserve(key.String(), rec.Addrs...); err != nil {
		return nil, fmt.Errorf("record of %s is ignored: %w", rec.Name(), err)
	}
	p := &pod{}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.rec = rec
	m.pods[key] = p
	return p, nil
}

// restore attaches one pod again, or forgets it.
func (m *Manager) restore(p *pod) error {
	rec := m.record(p)
	defer m.locks.lock(rec.HostName)()
	if m.find(func(q *pod) bool { return q == p && !p.attached && !p.gone }) == nil {
		return nil
	}
	ifindex, ok, err := m.cfg.Links.Find(rec.Link())
	if err != nil {
		return err
	}
	switch {
	case rec.State == StateAdding:
		m.log.Warn("unfinished ADD undone", "pod", rec.Name(), "port", rec.HostName)
		if ok { // made by that ADD: nobody else had the name
			rec.Ifindex = ifindex
			m.update(p, &rec)
		}
		return m.drop(p)
	case !ok:
		m.log.Info("pod is gone, forgotten", "pod", rec.Name(), "port", rec.HostName, "addrs", rec.Addrs)
		return m.drop(p)
	}
	rec.Ifindex = ifindex
	if rec.Kind == podlink.TAP {
		rec.Queues = m.cfg.Queues // it has as many as the workers open
	}
	m.update(p, &rec)
	if err := m.attachPort(p); err != nil {
		return err
	}
	m.log.Info("pod attached again", "pod", rec.Name(), "port", rec.HostName, "addrs", rec.Addrs)
	return nil
}

// Drain does the DELs that culvert-cni left because no agent answered. It is
// cheap when there are none. Call it once more when the socket is served: a
// DEL may have been left in between. One that fails is tried at the next Drain.
func (m *Manager) Drain() {
	if m.cfg.PendingDir == "" {
		return
	}
	m.draining.Lock()
	defer m.draining.Unlock()
	entries, err := os.ReadDir(m.cfg.PendingDir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("DELs that were left are not readable", "dir", m.cfg.PendingDir, "err", err)
		}
		return
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) || e.IsDir() {
			continue
		}
		path := filepath.Join(m.cfg.PendingDir, e.Name())
		if err := m.drainOne(path); err != nil {
			m.log.Warn("DEL that was left failed", "file", path, "err", err)
		}
	}
}

// drainOne does one left DEL and removes it. One that is not valid is removed
// too: trying it again would not help.
func (m *Manager) drainOne(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the plugin reached the agent after all
	}
	if err != nil {
		return err
	}
	var in api.CNIRequest
	err = json.Unmarshal(data, &in)
	if err == nil && in.Command != api.CNIDel {
		err = fmt.Errorf("command %q is not DEL", in.Command)
	}
	var req *request
	if err == nil {
		req, err = parse(&in)
	}
	if err == nil {
		if err := m.del(req); err != nil {
			return err // kept for the next time
		}
	}
	return errors.Join(err, os.Remove(path))
}
