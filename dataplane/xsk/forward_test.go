package xsk

import (
	"testing"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"
)

// Both pods are reached through one Umem, whatever the mode.
func TestForwardBetweenPods(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		t.Run(string(mode), func(t *testing.T) {
			r := newRig(t, 4096)
			a, b := r.addPod(mode), r.addPod(mode)
			if a.attach.Mode() != mode {
				t.Errorf("attached in mode %s, want %s", a.attach.Mode(), mode)
			}
			if n := len(r.umem.members[a.sock.class]); n != 2 {
				t.Errorf("the two sockets are in one class of %d", n)
			}
			r.forward()
			a.pod.MustPing(t, "10.0.0.2")
			b.pod.MustPing(t, "10.0.0.1")
			if mode == ModeGeneric {
				return // GSO packets exceed the MTU: TestChains
			}
			transfer(t, a.pod, b.pod, "10.0.0.2", 1<<20)
			checkClean(t, a.sock, b.sock)
		})
	}
}

// A pod that keeps segmentation offload sends chains of up to 64 KB in generic
// mode; a pod with a large MTU takes them.
func TestChains(t *testing.T) {
	r := newRig(t, 4096)
	a, b := r.addPod(ModeGeneric), r.addPod(ModeGeneric, testnet.MTU(65535))
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	transfer(t, a.pod, b.pod, "10.0.0.2", 4<<20)
	r.halt()
	if r.chains.Load() == 0 || r.longest.Load() < 32<<10 {
		t.Errorf("%d chains, longest frame %d bytes: want GSO frames beyond 32 KB", r.chains.Load(), r.longest.Load())
	}
	checkClean(t, a.sock, b.sock)
}

// Native mode carries chains as well, if the pod's MTU makes big packets.
func TestChainsNative(t *testing.T) {
	r := newRig(t, 4096)
	a, b := r.addPod(ModeNative, testnet.MTU(9000)), r.addPod(ModeNative, testnet.MTU(9000))
	r.forward()
	a.pod.MustPing(t, "10.0.0.2")
	transfer(t, a.pod, b.pod, "10.0.0.2", 2<<20)
	r.halt()
	if r.chains.Load() == 0 || r.longest.Load() != 9014 {
		t.Errorf("%d chains, longest frame %d bytes, want 9014", r.chains.Load(), r.longest.Load())
	}
	checkClean(t, a.sock, b.sock)
}

// checkClean fails for every counter that only a defect moves.
func checkClean(t *testing.T, socks ...*Socket) {
	t.Helper()
	var s frame.DeviceStats
	for _, sock := range socks {
		sock.Stats(&s)
	}
	if s.TxInvalid != 0 || s.RxInvalid != 0 || s.RxTooLong != 0 || s.TxErrors != 0 || s.TxLinkDown != 0 {
		t.Errorf("counters of defects moved: %+v", s)
	}
}
