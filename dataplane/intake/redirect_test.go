package intake

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// redirects gives a pod a tc program of its own that sends each frame out of eth0 by
// bpf_redirect; those are marked by the kernel, and by the program, so that it lets
// them pass the second time. With odd, every other one alone is redirected.
func (p *pod) redirects(t testing.TB, odd bool) {
	t.Helper()
	const mark, markAt, numberAt = 0x5a, 8, 38 // offsets in __sk_buff and of the TCP sequence number
	const pass, redirect = -1, 7
	p.ns.Do(t, func() {
		code := asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R2, asm.R6, markAt, asm.Word),
			asm.JEq.Imm(asm.R2, mark, "pass"),
		}
		if odd {
			code = append(code, asm.LoadAbs(numberAt, asm.Word), asm.And.Imm(asm.R0, 1), asm.JEq.Imm(asm.R0, 0, "pass"))
		}
		code = append(code,
			asm.Mov.Imm(asm.R2, mark),
			asm.StoreMem(asm.R6, markAt, asm.R2, asm.Word),
			asm.Mov.Imm(asm.R1, int32(ifindex(t, "eth0"))),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),
			asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"),
			asm.Return(),
		)
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXEgress, Instructions: code, License: "GPL"})
		if err != nil {
			t.Fatal(err)
		}
		defer prog.Close()
		l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex(t, "eth0"), Program: prog, Attach: ebpf.AttachTCXEgress})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	})
}

// What a pod's own program has redirected arrives, small and big, also what the
// program leaves alone in between, in the order in which it was sent.
func TestRedirectedByPod(t *testing.T) {
	for _, odd := range []bool{false, true} {
		t.Run(fmt.Sprintf("every other %t", odd), func(t *testing.T) {
			r := newRig(t, 1)
			p := r.addPod()
			p.redirects(t, odd)
			const n = 300
			go func() {
				for i := range uint32(n) {
					b := segment(p.mac, 1, i, 20, 0)
					if i%5 == 2 {
						b = segment(p.mac, 1, i, 4000, 1000)
					}
					_, _ = unix.Write(p.sock, b) // what is lost is missed below
				}
			}()
			var list []received
			for end := time.Now().Add(5 * time.Second); len(list) < n && time.Now().Before(end); {
				list = append(list, r.receive(0)...)
			}
			if len(list) != n {
				t.Fatalf("%d frames came, want %d: %+v", len(list), n, r.stats())
			}
			for i, got := range list {
				number := binary.BigEndian.Uint32(got.bytes[38:])
				if int(number) != i || !got.tagged || got.tag.Port != 100 || (got.SegSize != 0) != (i%5 == 2) {
					t.Fatalf("frame %d has number %d: %+v", i, number, got.tag)
				}
			}
		})
	}
}

// TCP between two pods of which one redirects what it sends.
func TestTCPRedirectedByPod(t *testing.T) {
	r, w := twoPods(t, true, false)
	r.pods[0].redirects(t, false)
	r.pods[0].ns.MustPing(t, "10.0.0.2")
	took := transfer(t, r.pods[0].ns, r.pods[1].ns, "10.0.0.2", 32<<20)
	t.Logf("%v, %d frames, %d big", took, w.frames.Load(), w.big.Load())
}
