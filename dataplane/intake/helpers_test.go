package intake

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"culvert/internal/testnet"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mtu9000 is a pod with large frames of its own.
var mtu9000 = testnet.MTU(9000)

// allowBig lets a device send IPv4 packets of 256 KB to be cut.
func allowBig(t testing.TB, ns *testnet.NS, name string) {
	t.Helper()
	ns.Do(t, func() {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetGSOMaxSize(l, 256<<10)
		}
		if err == nil {
			err = netlink.LinkSetGSOIPv4MaxSize(l, 256<<10)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

// observer sees what arrives at a device, before any program.
type observer int

func packetSocketAll(t testing.TB, ns *testnet.NS, name string) observer {
	t.Helper()
	return observer(packetSocket(t, ns, name, unix.ETH_P_ALL))
}

// wait takes the next n frames, without their virtio_net_hdr.
func (o observer) wait(t testing.TB, n int) (list [][]byte) {
	t.Helper()
	buf := make([]byte, 1<<17)
	for len(list) < n {
		fds := []unix.PollFd{{Fd: int32(o), Events: unix.POLLIN}}
		if ready, _ := unix.Poll(fds, 2000); ready == 0 {
			t.Fatalf("%d frames were seen, want %d", len(list), n)
		}
		k, _, err := unix.Recvfrom(int(o), buf, 0)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, append([]byte(nil), buf[10:k]...))
	}
	return list
}

// counter4 is a counter of a namespace's IPv4 stack (/proc/net/snmp).
func counter4(t testing.TB, ns *testnet.NS, name string) (n int) {
	t.Helper()
	ns.Do(t, func() {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
		for i := range names {
			if names[i] == name {
				n, _ = strconv.Atoi(values[i])
				return
			}
		}
		t.Fatalf("no counter %s", name)
	})
	return n
}
