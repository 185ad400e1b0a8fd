package xsk

import (
	"net"
	"testing"
	"time"

	"culvert/dataplane/frame"
	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
)

// BenchmarkPodMode is what DefaultPodMode was chosen by. Run it with
// -benchtime=1x on a quiet machine; each case takes about a second.
//
//	tcp/big    pod to pod over the wire of a rig, default offloads, the
//	           receiver's device takes frames of any size
//	tcp/mtu    the sender is limited to frames of 1500 bytes
//	udp        64-byte datagrams from the pod's stack, received and dropped
func BenchmarkPodMode(b *testing.B) {
	for _, mode := range []Mode{ModeNative, ModeGeneric} {
		b.Run("tcp/big/"+string(mode), func(b *testing.B) { benchTCP(b, mode, false) })
		b.Run("tcp/mtu/"+string(mode), func(b *testing.B) { benchTCP(b, mode, true) })
		b.Run("udp/"+string(mode), func(b *testing.B) { benchUDP(b, mode) })
	}
}

func benchTCP(b *testing.B, mode Mode, mtuSized bool) {
	r := newRigOf(b, 8192, 4096, false)
	sender, receiver := r.addPod(mode), r.addPod(mode, testnet.MTU(65535))
	if mtuSized {
		sender.pod.Do(b, func() {
			l, err := netlink.LinkByName("eth0")
			if err == nil {
				err = netlink.LinkSetGSOMaxSegs(l, 1)
			}
			if err != nil {
				b.Fatal(err)
			}
		})
	}
	r.forward()
	sender.pod.MustPing(b, "10.0.0.2")
	const size = 256 << 20
	b.ResetTimer()
	for range b.N {
		transfer(b, sender.pod, receiver.pod, "10.0.0.2", size)
	}
	b.StopTimer()
	r.halt()
	b.ReportMetric(float64(size)*8*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gbit/s")
	b.ReportMetric(float64(size)*float64(b.N)/float64(r.frames.Load()), "B/frame")
	reportLosses(b, sender.sock, receiver.sock)
}

func benchUDP(b *testing.B, mode Mode) {
	r := newRigOf(b, 8192, 4096, false)
	p := r.addPod(mode)
	staticNeighbour(b, p.pod, "10.0.0.9")
	var out net.Conn
	p.pod.Do(b, func() {
		var err error
		if out, err = net.Dial("udp4", "10.0.0.9:9"); err != nil {
			b.Fatal(err)
		}
	})
	sent := make(chan int)
	end := time.Now().Add(time.Second)
	go func() {
		msg, n := make([]byte, 22), 0
		for n%1024 != 0 || time.Now().Before(end) {
			out.Write(msg)
			n++
		}
		out.Close()
		sent <- n
	}()
	b.ResetTimer()
	var burst frame.Burst
	got, offered := 0, 0
	for running := true; running; {
		burst.Reset()
		n := p.sock.Recv(&burst)
		got += n
		for i := range n {
			r.pool.FreeFrame(&burst.Frames[i])
		}
		if n == 0 {
			select {
			case offered = <-sent:
				running = false
			default:
				waitFor(p.sock)
			}
		}
	}
	b.ReportMetric(float64(got)/1e6, "Mpps")
	b.ReportMetric(float64(offered)/1e6, "Mpps-offered")
	reportLosses(b, p.sock)
}

func reportLosses(b *testing.B, socks ...*Socket) {
	var s frame.DeviceStats
	for _, sock := range socks {
		sock.Stats(&s)
	}
	b.ReportMetric(float64(s.RxDropped+s.RxRingFull+s.RxFillEmpty), "rx-lost")
	b.ReportMetric(float64(s.TxRefused+s.TxRingFull), "tx-lost")
}
