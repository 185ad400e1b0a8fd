package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/ipam"
	"culvert/ctrl/podlink"
)

// world is a kernel and a dataplane in memory. It outlives managers, as the
// real ones outlive culvertd (the kernel) or not (the dataplane).
type world struct {
	mu       sync.Mutex
	links    map[string]podlink.Spec // by host name
	index    map[string]int
	next     int
	attached map[Key]Record
	fail     string                // the step that fails
	failErr  error                 // and how; nil: errInjected
	before   func(step string)     // called before every step, unlocked
	problems []string              // broken promises of the manager
	netns    map[string]netnsState // what Adopts knows
}

type netnsState struct{ ifName, hostName string }

var errInjected = errors.New("injected failure")

func newWorld() *world {
	return &world{links: map[string]podlink.Spec{}, index: map[string]int{}, attached: map[Key]Record{}, next: 10, netns: map[string]netnsState{}}
}

func (w *world) step(name string) error {
	if w.before != nil {
		w.before(name)
	}
	if w.fail != name {
		return nil
	}
	if w.failErr != nil {
		return w.failErr
	}
	return errInjected
}

func (w *world) Create(s podlink.Spec) (podlink.Link, error) {
	if err := w.step("create"); err != nil {
		return podlink.Link{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.links[s.HostName]; ok {
		return podlink.Link{}, podlink.ErrHostNameTaken
	}
	if s.MAC == nil {
		s.MAC = net.HardwareAddr{2, 0, 0, 0, 0, byte(w.next)}
	}
	w.next++
	w.links[s.HostName], w.index[s.HostName] = s, w.next
	return podlink.Link{Ifindex: w.next, PodIfindex: 2, MAC: s.MAC}, nil
}

func (w *world) Check(s podlink.Spec) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if have, ok := w.links[s.HostName]; !ok || have.MTU > s.MTU || have.MAC.String() != s.MAC.String() {
		return fmt.Errorf("link %s is not as it should be", s.HostName)
	}
	return nil
}

func (w *world) Remove(r podlink.Ref) error {
	if err := w.step("remove"); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.links, r.HostName)
	return nil
}

func (w *world) Find(r podlink.Ref) (int, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.links[r.HostName]
	return w.index[r.HostName], ok, nil
}

func (w *world) Adopts(r podlink.Ref) bool {
	return w.netns[r.Netns] == netnsState{r.IfName, r.HostName}
}

func (w *world) Attach(rec Record) error {
	if err := w.step("attach"); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.links[rec.HostName]; !ok {
		w.problems = append(w.problems, rec.HostName+" attached without link")
	}
	if _, ok := w.attached[rec.Key()]; ok {
		w.problems = append(w.problems, rec.HostName+" attached twice")
	}
	for _, other := range w.attached {
		if other.HostName == rec.HostName || other.Addrs[0] == rec.Addrs[0] {
			w.problems = append(w.problems, fmt.Sprintf("%+v and %+v at once", other, rec))
		}
	}
	w.attached[rec.Key()] = rec
	return nil
}

func (w *world) Detach(rec Record) error {
	if err := w.step("detach"); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.attached, rec.Key())
	return nil
}

// afterCrash is the world as a new culvertd finds it: links, no dataplane.
func (w *world) afterCrash() *world {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := newWorld()
	n.links, n.index, n.next = maps.Clone(w.links), maps.Clone(w.index), w.next
	return n
}

// newManager makes a manager of a world on a state directory.
func newManager(t testing.TB, w *world, dir string) *Manager {
	t.Helper()
	alloc, err := ipam.New(netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{
		StateDir: dir, PendingDir: filepath.Join(dir, "pending"), MTU: func() int { return 1450 }, Queues: 2,
		Attacher: w, Links: w, IPAM: alloc,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// call makes a request with usual values, changed by edits.
func call(command, container, pod string, edits ...func(*api.CNIRequest)) *api.CNIRequest {
	r := &api.CNIRequest{
		Command: command, ContainerID: container, Netns: "/run/netns/" + container, IfName: "eth0",
		Args:   map[string]string{"K8S_POD_NAMESPACE": "default", "K8S_POD_NAME": pod, "IgnoreUnknown": "1"},
		Config: conf(`{}`),
	}
	for _, e := range edits {
		e(r)
	}
	return r
}

// conf is a network configuration with fields added or replaced.
func conf(fields string) json.RawMessage {
	all := map[string]any{"cniVersion": "1.1.0", "name": "culvert", "type": "culvert-cni"}
	if err := json.Unmarshal([]byte(fields), &all); err != nil {
		panic(err)
	}
	data, _ := json.Marshal(all)
	return data
}

func withConf(fields string) func(*api.CNIRequest) {
	return func(r *api.CNIRequest) { r.Config = conf(fields) }
}

// must is a call that succeeds.
func must(t testing.TB, m *Manager, r *api.CNIRequest) json.RawMessage {
	t.Helper()
	resp := m.CNI(context.Background(), *r)
	if resp.Code != 0 {
		t.Fatalf("%s %s: code %d: %s: %s", r.Command, r.ContainerID, resp.Code, resp.Msg, resp.Details)
	}
	return resp.Result
}

// mustFail is a call that fails with a code and a text in its message.
func mustFail(t testing.TB, m *Manager, r *api.CNIRequest, code uint, text string) {
	t.Helper()
	resp := m.CNI(context.Background(), *r)
	if resp.Code != code || !strings.Contains(resp.Msg+": "+resp.Details, text) {
		t.Errorf("%s %s: code %d: %s: %s; want code %d, %q", r.Command, r.ContainerID, resp.Code, resp.Msg, resp.Details, code, text)
	}
}

// mustBeEmpty makes sure that nothing of any pod is left.
func mustBeEmpty(t testing.TB, m *Manager, w *world) {
	t.Helper()
	files, _ := os.ReadDir(m.store.dir)
	if len(files) != 0 || len(w.links) != 0 || len(w.attached) != 0 || m.cfg.IPAM.Taken() != 0 || len(m.List()) != 0 {
		t.Errorf("left: files %v, links %v, attached %v, %s, records %v", files, w.links, w.attached, m.cfg.IPAM, m.List())
	}
	if len(w.problems) != 0 {
		t.Errorf("problems: %v", w.problems)
	}
}

// mustAgree makes sure that records, files, links, ports and addresses name
// the same pods.
func mustAgree(t testing.TB, m *Manager, w *world) {
	t.Helper()
	recs := m.List()
	files, _ := os.ReadDir(m.store.dir)
	addrs := 0
	for _, rec := range recs {
		addrs += len(rec.Addrs)
		if _, ok := w.links[rec.HostName]; !ok || rec.State != StateReady {
			t.Errorf("record without link: %+v", rec)
		}
		if _, ok := w.attached[rec.Key()]; !ok {
			t.Errorf("record without port: %+v", rec)
		}
	}
	if len(files) != len(recs) || len(w.links) != len(recs) || len(w.attached) != len(recs) || m.cfg.IPAM.Taken() != addrs {
		t.Errorf("%d records, files %v, links %v, ports %v, %s", len(recs), files, w.links, w.attached, m.cfg.IPAM)
	}
	if len(w.problems) != 0 {
		t.Errorf("problems: %v", w.problems)
	}
}
