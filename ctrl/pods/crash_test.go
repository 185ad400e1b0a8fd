package pods

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/api"
	"culvert/ctrl/calicoipam"
	"culvert/ctrl/calicoipam/ipamtest"
	"culvert/ctrl/diskfile"
	"culvert/ctrl/ipam"
	"culvert/ctrl/podlink"
)

// fault is what happens at one of the steps that a manager takes in the world: files,
// links, ports, requests to the API server.
type fault struct {
	at   int
	how  string // one of hows, or empty
	n    int    // steps so far
	dead bool   // the process has ended: it does nothing more
}

// hows: the step fails, without or with an effect, or the process ends before or
// after it.
var hows = []string{"fails", "fails late", "dies", "dies late"}

// step takes one. A process that has ended stays in it.
func (f *fault) step(do func() error) error {
	if f.dead {
		runtime.Goexit()
	}
	f.n++
	if f.n-1 != f.at || f.how == "" {
		return do()
	}
	if f.how == "fails late" || f.how == "dies late" {
		_ = do()
	}
	if f.dead = f.how == "dies" || f.how == "dies late"; f.dead {
		runtime.Goexit()
	}
	return errInjected
}

// shaky is a world under a fault: the manager's Links, Attacher and files.
type shaky struct {
	*world
	*fault
}

func (s shaky) Create(spec podlink.Spec) (link podlink.Link, err error) {
	err = s.fault.step(func() error {
		link, err = s.world.Create(spec)
		return err
	})
	return link, err
}

func (s shaky) Remove(r podlink.Ref) error {
	return s.fault.step(func() error { return s.world.Remove(r) })
}
func (s shaky) Attach(rec Record) error {
	return s.fault.step(func() error {
		if s.how == "fails late" && s.n-1 == s.at {
			return nil // it undoes itself
		}
		return s.world.Attach(rec)
	})
}
func (s shaky) Detach(rec Record) error {
	return s.fault.step(func() error { return s.world.Detach(rec) })
}

// crashing is the files; a write that ends early leaves its temporary file.
type crashing struct{ shaky }

func (s crashing) Write(path string, data []byte, sync bool) error {
	return s.fault.step(func() error {
		if s.how == "dies late" && s.n-1 == s.at && s.at%2 == 0 {
			return os.WriteFile(filepath.Join(filepath.Dir(path), diskfile.TempPrefix+"torn"), data[:len(data)/2], 0o600)
		}
		return disk{}.Write(path, data, sync)
	})
}
func (s crashing) Remove(path string) error {
	return s.fault.step(func() error { return disk{}.Remove(path) })
}

// node is a kernel, a state directory and perhaps an API server, which outlive the
// managers, and what the runtime believes.
type node struct {
	w     *world
	dir   string
	store *ipamtest.Memory // nil: the addresses are of the pod CIDR
	at    time.Time
	m     *Manager
	keep  *calicoipam.Keeper
	live  map[string]string // addresses by container, of ADDs that succeeded
	owed  map[string]bool   // containers whose DEL has to come
}

func newNode(t *testing.T, calico bool) *node {
	dir, err := os.MkdirTemp("/dev/shm", "pods-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{w: newWorld(), dir: dir, at: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), live: map[string]string{}, owed: map[string]bool{}}
	if calico {
		n.store = &ipamtest.Memory{}
		for _, o := range []map[string]any{
			{"kind": "Node", "metadata": map[string]any{"name": "n1"}},
			{"kind": "IPPool", "metadata": map[string]any{"name": "p"}, "spec": map[string]any{"cidr": "10.1.0.0/28", "blockSize": int64(30)}},
		} {
			n.store.Put(&unstructured.Unstructured{Object: o})
		}
	}
	return n
}

// start is a start of culvertd, of whose steps one may go wrong. It reports whether it
// has come to its end.
func (n *node) start(t *testing.T, f *fault) (alive bool) {
	n.w = n.w.afterCrash()
	alloc, err := ipam.New()
	if err == nil && n.store == nil {
		err = alloc.SetCIDRs([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/28")})
	}
	if err != nil {
		t.Fatal(err)
	}
	alloc.SetCooldown(time.Minute, func() time.Time { return n.at })
	s := shaky{n.w, f}
	cfg := Config{StateDir: n.dir, MTU: func() int { return 1450 }, Queues: 1, Attacher: s, Links: s, IPAM: alloc}
	if n.store != nil {
		n.keep, err = calicoipam.NewKeeper(calicoipam.KeeperConfig{
			Config:   calicoipam.Config{Node: "n1", Store: n.store, Now: func() time.Time { return n.at }},
			StateDir: n.dir, Local: alloc, Patience: time.Minute, Pods: func() (all []calicoipam.Pod) {
				for _, rec := range n.m.List() {
					all = append(all, keptPod(&rec))
				}
				return all
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Cluster = calicoCluster{n.keep}
		n.store.Fail = func(int, string) (err error, applied bool) {
			err = f.step(func() error { applied = true; return nil })
			return err, applied && err != nil
		}
	}
	if n.m, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	n.m.store.files = crashing{s}
	return n.process(f, func() {
		_ = n.m.Restore(context.Background())
		n.pass()
	})
}

// process runs what a culvertd does; false: it died.
func (n *node) process(f *fault, do func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
	return !f.dead
}

func (n *node) pass() {
	if n.keep != nil {
		_ = n.keep.Pass(context.Background())
	}
}

type calicoCluster struct{ k *calicoipam.Keeper }

func keptPod(rec *Record) calicoipam.Pod {
	return calicoipam.Pod{Owner: rec.Key().String(), Network: rec.Network, ContainerID: rec.ContainerID, Namespace: rec.Namespace, Name: rec.Pod, Addrs: rec.Addrs}
}
func (c calicoCluster) Allocate(ctx context.Context, rec Record, want []netip.Addr) ([]netip.Addr, error) {
	return c.k.Allocate(ctx, keptPod(&rec), want)
}
func (c calicoCluster) Release(rec Record) error { return c.k.Release(keptPod(&rec)) }

// add is a runtime's ADD: a container whose ADD failed, or was not answered, is given
// up, and its DEL may come at any time.
func (n *node) add(container, pod string) bool {
	n.owed[container] = true
	resp := n.m.CNI(context.Background(), *call(api.CNIAdd, container, pod))
	if resp.Code != 0 {
		return false
	}
	delete(n.owed, container)
	for _, rec := range n.m.List() {
		if rec.ContainerID == container {
			n.live[container] = fmt.Sprint(rec.Addrs)
		}
	}
	return true
}

// del is a runtime's DEL, which it repeats until it succeeds.
func (n *node) del(container string) {
	delete(n.live, container)
	n.owed[container] = true
	if n.m.CNI(context.Background(), *call(api.CNIDel, container, "")).Code == 0 {
		delete(n.owed, container)
	}
}

// life is ADDs and DELs, one of a pod whose sandbox is made anew, and an ADD whose
// answer does not arrive.
func (n *node) life() {
	n.add("c1", "a")
	n.add("c2", "b")
	n.pass()
	n.del("c1")
	n.add("c3", "c")
	n.pass()
	delete(n.live, "c2")
	n.owed["c2"] = true
	n.add("c4", "b") // in place of c2
	n.owed["c5"] = true
	if n.add("c5", "lost") {
		delete(n.live, "c5")
		n.owed["c5"] = true
	}
	n.del("c3")
	n.pass()
}

// sound checks that no two links have an address, and that every live pod has its own,
// in the kernel, the dataplane, its record and the allocator.
func (n *node) sound(t *testing.T) {
	t.Helper()
	has := map[netip.Addr]string{}
	for name, spec := range n.w.links {
		for _, a := range spec.Addrs {
			if other := has[a]; other != "" {
				t.Errorf("%s is of %s and %s", a, other, name)
			}
			has[a] = name
		}
	}
	recs := n.m.List()
	for container, addrs := range n.live {
		i := slices.IndexFunc(recs, func(r Record) bool { return r.ContainerID == container && r.State == StateReady })
		if i < 0 || fmt.Sprint(recs[i].Addrs) != addrs {
			t.Errorf("%s has lost %s: %+v", container, addrs, recs)
			continue
		}
		rec := &recs[i]
		for _, a := range rec.Addrs {
			if owner, _ := n.m.cfg.IPAM.Owner(a); owner != rec.keyString() || has[a] != rec.HostName {
				t.Errorf("%s of %s is of %q, on link %q", a, container, owner, has[a])
			}
		}
		if _, ok := n.w.attached[rec.Key()]; !ok {
			t.Errorf("%s is not attached", container)
		}
	}
	if len(n.w.problems) > 0 {
		t.Errorf("%v", n.w.problems)
	}
}

// empty checks that nothing of any pod is left, in the blocks neither.
func (n *node) empty(t *testing.T) {
	t.Helper()
	mustBeEmpty(t, n.m, n.w)
	if n.store == nil {
		return
	}
	for _, p := range n.store.Check() {
		t.Error(p)
	}
	if left := n.store.All("IPAMHandle"); len(left) > 0 {
		t.Errorf("%d handles are left, %v", len(left), left[0].Object)
	}
	if files, _ := os.ReadDir(filepath.Join(n.dir, "calico-ipam")); len(files) > 0 {
		t.Errorf("still owed: %v", files)
	}
}

// end ends every pod, the DELs that are owed last, and checks that nothing is left.
func (n *node) end(t *testing.T) {
	t.Helper()
	for range 3 { // pods of before the late DELs, which free what they had
		for i := range 3 {
			if !n.add(fmt.Sprint("new", i), fmt.Sprint("n", i)) {
				t.Errorf("new%d gets no address", i)
			}
			n.sound(t)
		}
		for i := range 3 {
			n.del(fmt.Sprint("new", i))
		}
	}
	for _, all := range []map[string]bool{{"c1": true, "c2": true, "c3": true, "c4": true, "c5": true}, n.owed} {
		for container := range all {
			n.del(container)
		}
	}
	n.at = n.at.Add(time.Minute)
	n.pass()
	n.empty(t)
}

// A fault at any step of any ADD and DEL, the answer lost or not, and another one at any
// step of the start after it: no address is two pods', no live pod loses its own, and
// nothing is left in the end.
func TestFaultAtEveryStep(t *testing.T) {
	for _, calico := range []bool{false, true} {
		calm := &fault{}
		n := newNode(t, calico)
		n.start(t, calm)
		n.life()
		n.sound(t)
		steps := calm.n
		if n.end(t); steps < 35 {
			t.Fatalf("only %d steps in a life", steps)
		}
		for at := range steps {
			for _, how := range hows {
				n := newNode(t, calico)
				f := &fault{at: at, how: how}
				if n.start(t, f) {
					n.process(f, n.life)
				}
				if f.dead {
					// The second fault: somewhere in the start.
					if again := (&fault{at: at % 7, how: hows[(at/7)%4]}); !n.start(t, again) {
						n.start(t, &fault{})
					} else {
						again.how = ""
					}
				}
				n.at = n.at.Add(time.Minute) // what failed is tried again
				n.m.Drain()
				if err := n.m.Restore(context.Background()); err != nil && !strings.Contains(err.Error(), errInjected.Error()) {
					t.Error(err)
				}
				f.how = ""
				n.pass()
				n.sound(t)
				n.end(t)
				if t.Failed() {
					t.Fatalf("calico %v, step %d of %d %s", calico, at, steps, how)
				}
			}
		}
	}
}
