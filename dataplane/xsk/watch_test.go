package xsk

import (
	"sync"
	"testing"

	"culvert/internal/testnet"
)

// events collects what Watch reports.
type events struct {
	sync.Mutex
	last map[int]State
	all  []State
}

func (e *events) notify(ifindex int, s State) {
	e.Lock()
	defer e.Unlock()
	e.last[ifindex] = s
	e.all = append(e.all, s)
}

func (e *events) is(ifindex int, want State) func() bool {
	return func() bool {
		e.Lock()
		defer e.Unlock()
		got, ok := e.last[ifindex]
		return ok && got == want
	}
}

func TestWatch(t *testing.T) {
	node, pod := testnet.NewNS(t), testnet.NewNS(t)
	name := testnet.Name("w")
	testnet.Veth(t, pod, "eth0", node, name)
	index := node.Attrs(t, name).Index
	before := openFiles(t)
	done := make(chan struct{})
	e := &events{last: map[int]State{}}
	if err := Watch(done, node.Handle(), e.notify); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "a device that exists is reported up", e.is(index, StateUp))
	pod.Down(t, "eth0")
	waitUntil(t, "loss of carrier is reported", e.is(index, StateDown))
	pod.Up(t, "eth0")
	waitUntil(t, "the carrier is reported", e.is(index, StateUp))
	node.Down(t, name)
	waitUntil(t, "going down is reported", e.is(index, StateDown))
	node.Up(t, name)
	waitUntil(t, "coming up is reported", e.is(index, StateUp))
	pod.Delete(t, "eth0")
	waitUntil(t, "removal is reported", e.is(index, StateGone))

	second := testnet.Name("w")
	testnet.Veth(t, pod, "eth0", node, second)
	waitUntil(t, "a new device is reported", e.is(node.Attrs(t, second).Index, StateUp))
	close(done)
	waitUntil(t, "the descriptors are closed", func() bool { return openFiles(t) == before })
}

// What happened while the subscription was broken is found by listing.
func TestWatchListsAgain(t *testing.T) {
	node, pod := testnet.NewNS(t), testnet.NewNS(t)
	name := testnet.Name("w")
	testnet.Veth(t, pod, "eth0", node, name)
	index := node.Attrs(t, name).Index
	e := &events{last: map[int]State{}}
	w := &watcher{ns: node.Handle(), notify: e.notify, known: map[int]State{}}
	if err := w.list(); err != nil {
		t.Fatal(err)
	}
	pod.Delete(t, "eth0")
	if err := w.list(); err != nil {
		t.Fatal(err)
	}
	if !e.is(index, StateGone)() {
		t.Errorf("a removed device is %s", e.last[index])
	}
	count := len(e.all)
	if err := w.list(); err != nil || len(e.all) != count {
		t.Errorf("listing without a change reported %v (%v)", e.all[count:], err)
	}
}
