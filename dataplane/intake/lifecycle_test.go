package intake

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/dataplane/xsk"
	"culvert/internal/testnet"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// devices are the names of a namespace's devices that an intake of the test has made.
func devices(t testing.TB, ns *testnet.NS) (names []string) {
	t.Helper()
	ns.Do(t, func() {
		list, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range list {
			if strings.HasPrefix(i.Name, "cvx") {
				names = append(names, i.Name)
			}
		}
	})
	return names
}

// openFiles counts the process's descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// An intake that is closed, or that could not be made, leaves no device, no
// descriptor and no mapping.
func TestNothingIsLeft(t *testing.T) {
	ns := testnet.NewNS(t)
	pool, err := frame.NewPool(512, 4096, true)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	umem := xsk.NewUmem(pool)
	good := Config{Workers: 1, RingSize: 64, Prefix: "cvxi", Umems: []*xsk.Umem{umem}, Pools: []*frame.Pool{pool}}
	make1 := func(change func(*Config)) error {
		cfg := good
		change(&cfg)
		in, err := New(cfg)
		if err != nil {
			return err
		}
		if len(in.name) > 14 {
			t.Errorf("the devices begin with %q", in.name)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		return in.Close()
	}
	ns.Do(t, func() {
		if err := make1(func(*Config) {}); err != nil { // what is opened once for all stays
			t.Fatal(err)
		}
		before := openFiles(t)
		for i := range 5 {
			if err := make1(func(*Config) {}); err != nil {
				t.Fatal(i, err)
			}
			for name, change := range map[string]func(*Config){
				"a ring size": func(c *Config) { c.RingSize = 100 },
				"no workers":  func(c *Config) { c.Workers = 0 },
				"two workers": func(c *Config) { c.Workers = 2 },
				"a prefix":    func(c *Config) { c.Prefix = "cvxtoolong" },
				"a slash":     func(c *Config) { c.Prefix = "cvx/" },
			} {
				if err := make1(change); err == nil {
					t.Errorf("an intake with %s that is wrong was made", name)
				}
			}
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
	if left := devices(t, ns); len(left) != 0 {
		t.Errorf("devices %v are left", left)
	}
	waitUntil(t, "no mapping is left", func() bool {
		runtime.GC() // cilium/ebpf's own mappings end with the objects they belong to
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(string(maps), "bpf-map") && !strings.Contains(string(maps), "socket:[")
	})
}

// A device is attached once at a time, gets its own frames back after, and one that
// does not exist leaves nothing in the maps.
func TestAttachTwice(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	p.ns.AddAddr(t, "eth0", "10.0.0.2/24")
	r.node.AddAddr(t, p.name, "10.0.0.1/24")
	r.node.Do(t, func() {
		index := ifindex(t, p.name)
		if _, err := r.in.AttachPod(index, p.name, 1, p.mac); err == nil || !strings.Contains(err.Error(), "attached already") {
			t.Errorf("attaching twice: %v", err)
		}
		for range 2 {
			if _, err := r.in.AttachPod(9999, "nothing", 1, p.mac); err == nil || !strings.Contains(err.Error(), "does not exist") {
				t.Errorf("attaching to nothing: %v", err)
			}
		}
	})
	if err := p.ns.Ping(t, "10.0.0.1", 56, 100*time.Millisecond); err == nil {
		t.Error("the node's own stack answered an attached pod")
	}
	for range 2 {
		r.node.Do(t, func() {
			if err := p.attach.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	p.ns.MustPing(t, "10.0.0.1")
	r.node.Do(t, func() {
		var err error
		if p.attach, err = r.in.AttachPod(ifindex(t, p.name), p.name, 42, p.mac); err != nil {
			t.Fatal(err)
		}
	})
	for len(r.receive(0)) > 0 {
	}
	p.send(t, segment(p.mac, 1, 1, 10, 0))
	if got := r.expect(1)[0]; got.tag.Port != 42 {
		t.Errorf("tagged %+v after it was attached anew", got.tag)
	}
}

// A pod that is removed in the middle of traffic costs its frames and nothing else.
func TestPodRemovedUnderTraffic(t *testing.T) {
	r := newRig(t, 1)
	a, b := r.addPod(), r.addPod()
	stop, stopped := make(chan struct{}), make(chan struct{})
	small, big := segment(a.mac, 1, 1, 10, 0), segment(a.mac, 1, 1, 3000, 1000)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Write(a.sock, small) // errors are what the test is about
				unix.Write(a.sock, big)
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	seen := 0
	waitUntil(t, "traffic flows", func() bool { seen += len(r.receive(0)); return seen > 500 })
	r.node.Delete(t, a.name)
	r.node.Do(t, func() {
		if err := a.attach.Close(); err != nil {
			t.Error(err)
		}
	})
	close(stop)
	<-stopped
	for len(r.receive(0)) > 0 {
	}
	b.send(t, big2(b))
	if got := r.expect(1)[0]; got.tag.Port != 101 {
		t.Errorf("tagged %+v", got.tag)
	}
	r.node.Do(t, func() { // the port's place is free
		if err := r.in.coll.Maps[intakeMapPorts].Lookup(uint32(a.attach.ifindex), new(intakePort)); err == nil {
			t.Error("the removed pod's port is in the map")
		}
	})
}

func big2(p *pod) []byte { return segment(p.mac, 1, 1, 3000, 1000) }

// Frames that wait for their turn when the intake is closed are not lost: the pool
// has them back (the rig looks).
func TestCloseWithFramesWaiting(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	for range 20 {
		p.send(t, segment(p.mac, 1, 1, 64000, 1448))
		p.send(t, segment(p.mac, 1, 1, 10, 0))
	}
	var b frame.Burst
	b.N = frame.BurstSize - 3
	q := r.in.Queue(0)
	if n := q.Recv(&b); n != 3 || !q.Sending() {
		t.Errorf("%d frames came, others wait: %t", n, q.Sending())
	}
	for i := range 3 {
		r.pools[0].FreeFrame(&b.Frames[b.N-3+i])
	}
}

// A burst may be filled by many calls; all that is in it stays valid.
func TestFillBurstBySeveralCalls(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	const n = 60
	for i := range uint32(n) {
		size := 0
		if i%3 != 0 {
			size = 1448
		}
		p.send(t, segment(p.mac, 1, i, 10+size*20, size))
	}
	var b frame.Burst
	q := r.in.Queue(0)
	got := 0
	for round := 0; got < n && round < 100; round++ {
		q.Recv(&b)
		if round%4 != 3 {
			continue
		}
		for i := range b.N {
			f := &b.Frames[i]
			h := r.pools[0].Bytes(f.Addr, f.Len)
			if number := uint32(h[38])<<24 | uint32(h[39])<<16 | uint32(h[40])<<8 | uint32(h[41]); number != uint32(got) {
				t.Fatalf("frame %d came when %d was next", number, got)
			}
			got++
			total := f.Len
			for k := range f.Rest {
				total += f.Rest[k].Len
				last := r.pools[0].Bytes(f.Rest[k].Addr, f.Rest[k].Len)
				if at := int(f.Len) + k*3840 - 54; last[0] != byte(at*7+at>>8) {
					t.Fatalf("frame %d: chunk %d begins with other bytes", got, k)
				}
			}
			if total != f.Total {
				t.Fatalf("%d bytes in the chunks of a frame of %d", total, f.Total)
			}
			r.pools[0].FreeFrame(f)
		}
		b.Reset()
	}
	if got != n {
		t.Errorf("%d frames came, want %d", got, n)
	}
}

// What two ways lose for want of room is counted, and what comes after arrives.
func TestOverflow(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	const each = 3000
	for range each {
		p.send(t, segment(p.mac, 1, 1, 10, 0))
		p.send(t, segment(p.mac, 1, 1, 30000, 1448))
	}
	got := uint64(0)
	waitUntil(t, "all are accounted for", func() bool {
		got += uint64(len(r.receive(0)))
		s := r.stats()
		return got+s.RxRingFull+s.RxFillEmpty+s.RxShare == 2*each
	})
	if s := r.stats(); s.RxShare == 0 || got < ringSize/2 {
		t.Errorf("%d frames came; %+v", got, s)
	}
	r.expect(0) // the worker looks: the pod's share is free again
	p.send(t, segment(p.mac, 1, 1, 30000, 1448))
	p.send(t, segment(p.mac, 1, 1, 10, 0))
	r.expect(2)
}

// Somebody removes the intake's devices: nothing more comes, the worker can sleep,
// and closing works.
func TestDevicesRemovedByHand(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	p.send(t, segment(p.mac, 1, 1, 10, 0))
	r.expect(1)
	r.node.Delete(t, r.in.name+smallSuffix)
	r.node.Delete(t, r.in.name+bulkSuffix)
	p.send(t, segment(p.mac, 1, 1, 3000, 1000))
	for range 2 * unasked {
		if n := len(r.receive(0)); n != 0 {
			t.Errorf("%d frames came", n)
		}
	}
	q := r.in.Queue(0)
	fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}, {Fd: int32(q.BulkFD()), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, 20); n != 0 {
		t.Errorf("descriptors are ready: %#x, %#x", fds[0].Revents, fds[1].Revents)
	}
}

func TestRecvDoesNotAllocate(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	small, big := segment(p.mac, 1, 1, 10, 0), segment(p.mac, 1, 1, 30000, 1448)
	var b frame.Burst
	q := r.in.Queue(0)
	got := 0
	n := testing.AllocsPerRun(200, func() {
		unix.Write(p.sock, big)
		unix.Write(p.sock, small)
		unix.Write(p.sock, small)
		unix.Write(p.sock, big)
		b.Reset()
		if got%2 == 0 { // frames wait
			b.N = frame.BurstSize - 1
		}
		first := b.N
		got += q.Recv(&b)
		for i := first; i < b.N; i++ {
			r.pools[0].FreeFrame(&b.Frames[i])
		}
	})
	if n != 0 || got < 100 {
		t.Errorf("%v allocations a call, %d frames", n, got)
	}
	for len(r.receive(0)) > 0 {
	}
}

const crashEnv = "INTAKE_TEST_CRASH_DEVICE"

// A process that is killed leaves no device, and on the pod a program that drops, until
// the next process's takes its place.
func TestKilledProcessLeavesNoDevice(t *testing.T) {
	r := newRig(t, 1) // for its node
	p := r.addVeth()
	p.ns.AddAddr(t, "eth0", "10.0.0.2/24")
	r.node.AddAddr(t, p.name, "10.0.0.1/24")
	mine := len(devices(t, r.node))
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashHelper$", "-test.v")
	cmd.Env = append(os.Environ(), crashEnv+"="+p.name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.node.Do(t, func() { // the child inherits the thread's namespace
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "attached"; {
		t.Log(lines.Text())
	}
	if n := len(devices(t, r.node)); n != mine+2 {
		t.Errorf("%d devices, want %d", n, mine+2)
	}
	if err := p.ns.Ping(t, "10.0.0.1", 56, 100*time.Millisecond); err == nil {
		t.Error("the node's own stack answered an attached pod")
	}
	cmd.Process.Kill()
	cmd.Wait()
	waitUntil(t, "the devices are gone", func() bool { return len(devices(t, r.node)) == mine })
	if err := p.ns.Ping(t, "10.0.0.1", 56, 100*time.Millisecond); err == nil {
		t.Error("the node's own stack answered the pod of a process that was killed")
	}
	r.node.Do(t, func() {
		index := ifindex(t, p.name)
		was := podPrograms(t, index)
		if len(was) != 1 {
			t.Fatalf("programs %v stand on the pod's device", was)
		}
		if p.attach, err = r.in.AttachPod(index, p.name, 100, p.mac); err != nil {
			t.Fatal(err)
		}
		if now := podPrograms(t, index); len(now) != 1 || now[0] == was[0] {
			t.Errorf("program %v was replaced by %v", was, now)
		}
	})
	for len(r.receive(0)) > 0 {
	}
	p.send(t, segment(p.mac, 1, 1, 10, 0))
	r.expect(1)
	r.node.Do(t, func() {
		if err := p.attach.Close(); err != nil {
			t.Error(err)
		}
	})
	p.ns.MustPing(t, "10.0.0.1")
}

// podPrograms are the programs that stand on a device of the calling thread's namespace.
func podPrograms(t *testing.T, ifindex int) (ids []ebpf.ProgramID) {
	t.Helper()
	all, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all.Programs {
		ids = append(ids, p.ID)
	}
	return ids
}

// An intake that leaves keeps the pods' programs in place, and takes the rest along.
func TestLeave(t *testing.T) {
	r := newRig(t, 1)
	p := r.addPod()
	r.node.Do(t, func() {
		index := ifindex(t, p.name)
		was := podPrograms(t, index)
		if err := errors.Join(r.in.Queue(0).Close(), r.in.Leave()); err != nil {
			t.Error(err)
		}
		if now := podPrograms(t, index); len(now) != 1 || now[0] != was[0] {
			t.Errorf("program %v was on the pod's device, %v is after", was, now)
		}
	})
	waitUntil(t, "the pod's device alone is left", func() bool { return len(devices(t, r.node)) == 1 })
	r.node.Do(t, func() {
		index := ifindex(t, p.name)
		for range 2 {
			if err := TakeOff(index); err != nil {
				t.Error(err)
			}
		}
		if now := podPrograms(t, index); len(now) != 0 {
			t.Errorf("programs %v are on the pod's device after TakeOff", now)
		}
	})
}

// TestCrashHelper is the process that TestKilledProcessLeavesNoDevice kills.
func TestCrashHelper(t *testing.T) {
	name := os.Getenv(crashEnv)
	if name == "" {
		return
	}
	pool, err := frame.NewPool(512, 4096, false)
	if err != nil {
		t.Fatal(err)
	}
	in, err := New(Config{Workers: 1, RingSize: 64, Prefix: "cvxk", Umems: []*xsk.Umem{xsk.NewUmem(pool)}, Pools: []*frame.Pool{pool}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.AttachPod(ifindex(t, name), name, 1, [6]byte{}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("\nattached")
	select {} // until it is killed
}
