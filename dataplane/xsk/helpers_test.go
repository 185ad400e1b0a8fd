package xsk

import (
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
)

// waitUntil polls cond for up to five seconds.
func waitUntil(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

// flood sends small UDP datagrams at a moderate rate from a pod until the
// returned function is called.
func flood(t testing.TB, pod *testnet.NS, to string) (stop func()) {
	t.Helper()
	var c net.Conn
	pod.Do(t, func() {
		var err error
		if c, err = net.Dial("udp", to); err != nil {
			t.Fatal(err)
		}
	})
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer c.Close()
		for msg := make([]byte, 100); ; time.Sleep(time.Millisecond) {
			select {
			case <-quit:
				return
			default:
			}
			for range 10 {
				c.Write(msg) // errors are what the test is about
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-done })
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

// anonXDPMappings counts the process's mappings of AF_XDP rings.
func anonXDPMappings(t testing.TB) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), "socket:[")
}

// staticNeighbour gives the pod's eth0 a neighbour that it never asks for.
func staticNeighbour(t testing.TB, pod *testnet.NS, addr string) {
	t.Helper()
	index := pod.Attrs(t, "eth0").Index
	pod.Do(t, func() {
		err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: index, IP: net.ParseIP(addr),
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: netlink.NUD_PERMANENT})
		if err != nil {
			t.Fatal(err)
		}
	})
}
