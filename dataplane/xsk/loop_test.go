package xsk

import (
	"fmt"
	"testing"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"
)

// newLoop is a veth pair with a socket at each end, all of one worker: what is
// sent on one is received on the other inside the same system call. There is
// no other goroutine.
func newLoop(t testing.TB, chunks, chunkSize int, mode Mode) (r *rig, a, b *port) {
	t.Helper()
	_, benchmark := t.(*testing.B)
	r = newRigOf(t, chunks, chunkSize, !benchmark)
	a = &port{name: testnet.Name("a")}
	b = &port{name: testnet.Name("b")}
	r.node.Sysctl(t, "net.ipv6.conf.default.disable_ipv6", "1") // the kernel's stack keeps quiet
	testnet.Veth(t, r.node, a.name, r.node, b.name, testnet.MTU(65535))
	r.ports = append(r.ports, a, b)
	r.open(a, mode)
	r.open(b, mode)
	return r, a, b
}

// makeFrame builds a frame of the worker's: an Ethernet header and a pattern,
// in chunks of at most 3000 bytes.
func makeFrame(t testing.TB, p *frame.Pool, length int) frame.Frame {
	t.Helper()
	var f frame.Frame
	for done := 0; done < length; {
		addr, ok := p.Alloc()
		if !ok {
			t.Fatal("the pool is empty")
		}
		n := min(length-done, 3000)
		b := p.Bytes(addr, uint32(n))
		for i := range b {
			b[i] = byte(done + i)
		}
		if done == 0 {
			copy(b, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5") // broadcast, local experimental
			f.Addr, f.Len = addr, uint32(n)
		} else {
			f.Rest = append(f.Rest, frame.Desc{Addr: addr, Len: uint32(n)})
		}
		done += n
	}
	f.Total = uint32(length)
	return f
}

// bytesOf is the frame's content.
func bytesOf(p *frame.Pool, f *frame.Frame) []byte {
	all := append([]byte(nil), p.Bytes(f.Addr, f.Len)...)
	for _, d := range f.Rest {
		all = append(all, p.Bytes(d.Addr, d.Len)...)
	}
	return all
}

// Frames of all lengths, chains included, arrive byte for byte.
func TestLoopAllLengths(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		t.Run(string(mode), func(t *testing.T) {
			r, a, b := newLoop(t, 4096, 4096, mode)
			var burst frame.Burst
			for _, length := range []int{14, 60, 64, 65, 127, 128, 1514, 2047, 3000, 3001, 3840, 3841, 6000, 9014, 20001, 53999, 54000} {
				f := makeFrame(t, r.pool, length)
				want := bytesOf(r.pool, &f)
				if n := a.sock.Send([]frame.Frame{f}); n != 1 {
					t.Fatalf("%d bytes: Send took %d", length, n)
				}
				waitUntil(t, "the frame arrives", func() bool {
					burst.Reset()
					return b.sock.Recv(&burst) == 1
				})
				got := &burst.Frames[0]
				if int(got.Total) != length || string(bytesOf(r.pool, got)) != string(want) {
					t.Errorf("%d bytes: %d arrived, or others", length, got.Total)
				}
				r.pool.FreeFrame(got)
			}
			checkClean(t, a.sock, b.sock)
		})
	}
}

// More than a ring full of frames at once: none is lost or used twice.
func TestOverload(t *testing.T) {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		t.Run(string(mode), func(t *testing.T) { testOverload(t, mode) })
	}
}

func testOverload(t *testing.T, mode Mode) {
	r, a, b := newLoop(t, 4096, 4096, mode)
	var burst frame.Burst
	taken, got, refused := 0, 0, 0
	for round := range 200 {
		frames := make([]frame.Frame, 1+round%frame.BurstSize)
		for i := range frames {
			frames[i] = makeFrame(t, r.pool, 60+round*7*(1+i%4))
		}
		n := a.sock.Send(frames)
		taken += n
		for i := n; i < len(frames); i++ {
			refused++
			r.pool.FreeFrame(&frames[i])
		}
		if round%3 == 0 { // too rarely to keep up
			burst.Reset()
			got += b.sock.Recv(&burst)
			for i := range burst.N {
				r.pool.FreeFrame(&burst.Frames[i])
			}
		}
	}
	waitUntil(t, "everything is delivered or dropped", func() bool {
		burst.Reset()
		n := b.sock.Recv(&burst)
		got += n
		for i := range n {
			r.pool.FreeFrame(&burst.Frames[i])
		}
		burst.Reset()
		a.sock.Recv(&burst) // takes completions back
		return n == 0 && a.sock.inflight == 0
	})
	var sa, sb frame.DeviceStats
	a.sock.Stats(&sa)
	b.sock.Stats(&sb)
	dropped := int(sb.RxRingFull + sb.RxFillEmpty + sb.RxDropped + sa.TxRefused)
	if taken != got+dropped || refused != int(sa.TxRingFull) {
		t.Errorf("sent %d, received %d, counted as dropped %d; refused %d, counted %d", taken, got, dropped, refused, sa.TxRingFull)
	}
	if held := r.pool.Held(frame.OwnerWorker); held != 0 {
		t.Errorf("the worker still holds %d chunks", held)
	}
}

// A chain that is longer than frame.MaxSegments is dropped whole and counted.
// Sent chunks may be filled further down than received ones: 18 sent chunks
// arrive in 21.
func TestTooLongChain(t *testing.T) {
	r, a, b := newLoop(t, 4096, 2048, ModeGeneric)
	f := makeFrame(t, r.pool, 14)
	f.Rest = make([]frame.Desc, frame.MaxSegments-1)
	for i := range f.Rest {
		addr, _ := r.pool.Alloc()
		f.Rest[i] = frame.Desc{Addr: r.pool.Base(addr) + frame.TxMetadataLen, Len: 2048 - frame.TxMetadataLen}
		f.Total += f.Rest[i].Len
	}
	small := makeFrame(t, r.pool, 60)
	if n := a.sock.Send([]frame.Frame{f, small}); n != 2 {
		t.Fatalf("Send took %d frames, want 2", n)
	}
	if got := receiveSome(t, r, b.sock, 1); got != 60 {
		t.Errorf("a frame of %d bytes arrived, want the one of 60 behind the chain", got)
	}
	var s frame.DeviceStats
	b.sock.Stats(&s)
	if s.RxTooLong != 1 {
		t.Errorf("%d chains counted as too long, want 1", s.RxTooLong)
	}
}

// Frames that would jam the ring are dropped and counted, and the next one goes
// its way.
func TestUnsendableFrames(t *testing.T) {
	r, a, b := newLoop(t, 4096, 4096, ModeGeneric)
	short := makeFrame(t, r.pool, 13)
	noRoom := makeFrame(t, r.pool, 60)
	noRoom.Addr = r.pool.Base(noRoom.Addr) + frame.TxMetadataLen - 1
	beyond := makeFrame(t, r.pool, 60)
	beyond.Len = 4000
	hollow := makeFrame(t, r.pool, 4000)
	hollow.Rest[0].Len = 0
	long := makeFrame(t, r.pool, 60)
	for range frame.MaxSegments {
		addr, _ := r.pool.Alloc()
		long.Rest = append(long.Rest, frame.Desc{Addr: addr, Len: 1})
	}
	good := makeFrame(t, r.pool, 60)
	if n := a.sock.Send([]frame.Frame{short, noRoom, beyond, hollow, long, good}); n != 6 {
		t.Fatalf("Send took %d frames, want 6", n)
	}
	receiveSome(t, r, b.sock, 1)
	var s frame.DeviceStats
	a.sock.Stats(&s)
	if s.TxInvalid != 5 {
		t.Errorf("%d frames counted as invalid, want 5", s.TxInvalid)
	}
	if a.sock.Send(nil) != 0 {
		t.Error("Send of nothing took something")
	}
}

// bounce sends the frames of burst on from, receives them on to, and leaves
// them in burst.
func bounce(burst *frame.Burst, from, to *Socket) int {
	from.Send(burst.Frames[:burst.N])
	burst.Reset()
	return to.Recv(burst)
}

// loaded is a loop with n frames of the given length in burst.
func loaded(t testing.TB, mode Mode, n, length int) (burst *frame.Burst, a, b *Socket) {
	r, pa, pb := newLoop(t, 4096, 4096, mode)
	burst = new(frame.Burst)
	for range n {
		f := makeFrame(t, r.pool, length)
		burst.Frames[burst.N] = f
		burst.N++
	}
	t.Cleanup(func() {
		for i := range burst.N {
			r.pool.FreeFrame(&burst.Frames[i])
		}
	})
	return burst, pa.sock, pb.sock
}

// TestNoAllocation: nothing on the packet path allocates, chains included.
func TestNoAllocation(t *testing.T) {
	for _, length := range []int{60, 9000} {
		burst, a, b := loaded(t, ModeGeneric, 16, length)
		allocs := testing.AllocsPerRun(200, func() {
			bounce(burst, a, b)
			bounce(burst, b, a)
		})
		if allocs != 0 {
			t.Errorf("%d bytes: %v allocations a round, want 0", length, allocs)
		}
		if burst.N != 16 {
			t.Errorf("%d bytes: %d of 16 frames are left", length, burst.N)
		}
	}
}

// BenchmarkLoop is the whole cost of a frame from socket to socket: send, the
// kernel's veth and receive.
func BenchmarkLoop(b *testing.B) {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		for _, length := range []int{64, 1514} {
			b.Run(fmt.Sprintf("%s/%d", mode, length), func(b *testing.B) {
				burst, x, y := loaded(b, mode, frame.BurstSize, length)
				b.SetBytes(int64(length))
				b.ResetTimer()
				for i := 0; i < b.N; i += frame.BurstSize {
					for bounce(burst, x, y) == 0 {
					}
					x, y = y, x
				}
			})
		}
	}
}
