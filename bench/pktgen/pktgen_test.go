package pktgen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/bench/load"

	"golang.org/x/sys/unix"
)

func config() load.Config {
	return load.Config{
		Outs:    []load.Out{{Device: 7, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Addr: netip.MustParseAddr("10.1.0.2")}},
		NextHop: net.HardwareAddr{2, 0, 0, 0, 0, 2}, Sizes: load.Fixed(64), Flows: 4,
		Destinations: []netip.Addr{netip.MustParseAddr("10.2.0.255"), netip.MustParseAddr("10.2.1.0")},
		MaxFrames:    1000, MaxTime: time.Second, CPU: -1, Enter: func() error { return unix.Unshare(unix.CLONE_NEWNET) },
	}
}

func TestCommands(t *testing.T) {
	c := config()
	c.Rate = 3e6
	const want = `count 1000, clone_skb 0, delay 333, src_mac 02:00:00:00:00:01, dst_mac 02:00:00:00:00:02, ` +
		`src_min 10.1.0.2, src_max 10.1.0.2, dst_min 10.2.0.255, dst_max 10.2.1.0, ` +
		`udp_src_min 1024, udp_src_max 1028, udp_dst_min 5000, udp_dst_max 5000, flag UDPCSUM, pkt_size 64`
	if got := strings.Join(commands(&c), ", "); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	c = config()
	c.Flows, c.Sizes, c.Destinations = 1, load.IMIX(1400), c.Destinations[:1]
	got := strings.Join(commands(&c), ", ")
	for _, part := range []string{"delay 0,", "udp_src_max 1024,", "pkt_size 1400, imix_weights 64,7 570,4 1400,1"} {
		if !strings.Contains(got, part) {
			t.Errorf("%s\nhas no %s", got, part)
		}
	}
}

func TestRefusesWhatItCannotSend(t *testing.T) {
	for field, change := range map[string]func(*load.Config){
		"Outs":            func(c *load.Config) { c.Outs = append(c.Outs, c.Outs[0]) },
		"Tunnel":          func(c *load.Config) { c.Tunnel = &load.Tunnel{Kind: load.VXLAN} },
		"Zipf":            func(c *load.Config) { c.Zipf = 1 },
		"NewEvery":        func(c *load.Config) { c.NewEvery = 2 },
		"Flows: 65536":    func(c *load.Config) { c.Flows = 1 << 16 },
		"Flows: 5":        func(c *load.Config) { c.Flows = 5 },
		"Destinations[1]": func(c *load.Config) { c.Destinations[1] = netip.MustParseAddr("10.2.1.1") },
	} {
		c := config()
		if err := check(&c); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := check(&c); err == nil || !strings.HasPrefix(err.Error(), "pktgen: "+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	c := config()
	c.MaxFrames = 0
	if _, err := Start(context.Background(), c); err == nil || !strings.Contains(err.Error(), "MaxFrames") {
		t.Errorf("without a bound: %v", err)
	}
}

// TestWithoutTheModule: what to do is said, unless the machine has the module.
func TestWithoutTheModule(t *testing.T) {
	err := Check()
	gen, startErr := Start(context.Background(), config())
	switch {
	case startErr == nil:
		t.Errorf("a new network namespace has a device 7: %v", gen.Stop())
	case err != nil && (!errors.Is(startErr, ErrNoModule) || !strings.Contains(startErr.Error(), "modprobe pktgen")):
		t.Errorf("without the module: %v", startErr)
	case err == nil && errors.Is(startErr, ErrNoModule):
		t.Errorf("with the module: %v", startErr)
	}
}

// running and done are what Linux 6.1 has in a device's file.
const params = `Params: count 100000  min_pkt_size: 60  max_pkt_size: 60
     frags: 0  delay: 0  clone_skb: 0  ifname: eth0@0
     flows: 0 flowlen: 0
     queue_map_min: 0  queue_map_max: 0
     dst_min: 192.168.77.1  dst_max: 
     src_min: 192.168.77.2  src_max: 192.168.77.2
     src_mac: 52:54:00:12:34:56 dst_mac: 02:00:00:00:00:01
     udp_src_min: 9  udp_src_max: 9  udp_dst_min: 9999  udp_dst_max: 9999
     src_mac_count: 0  dst_mac_count: 0
     Flags: QUEUE_MAP_CPU  
Current:
`

const running = params + `     pkts-sofar: 31415  errors: 9
     started: 6214131us  stopped: 7224857us idle: 0us
     seq_num: 31416  cur_dst_mac_offset: 0  cur_src_mac_offset: 0
     cur_saddr: 192.168.77.2  cur_daddr: 192.168.77.1
     cur_udp_dst: 9999  cur_udp_src: 9
     cur_queue_map: 0
     flows: 0
Result: OK: flag QUEUE_MAP_CPU
`

const done = params + `     pkts-sofar: 100000  errors: 0
     started: 6214131us  stopped: 9224857us idle: 1569us
     seq_num: 100001  cur_dst_mac_offset: 0  cur_src_mac_offset: 0
     cur_saddr: 192.168.77.2  cur_daddr: 192.168.77.1
     cur_udp_dst: 9999  cur_udp_src: 9
     cur_queue_map: 0
     flows: 0
Result: OK: 3010726(c3009157+d1569) usec, 100000 (60byte,0frags)
  33214pps 15Mb/sec (15942720bps) errors: 0
`

func TestParseStatus(t *testing.T) {
	for _, c := range []struct {
		text      string
		want      status
		ok, ended bool
	}{
		{running, status{31415, 9, "OK: flag QUEUE_MAP_CPU"}, true, false},
		{done, status{100000, 0, "OK: 3010726(c3009157+d1569) usec, 100000 (60byte,0frags)"}, true, true},
		{params + " pkts-sofar: 0  errors: 0\nResult: Idle\n", status{0, 0, "Idle"}, false, false},
		{params + " pkts-sofar: 0  errors: 0\nResult: ERROR: 1 usec, nothing", status{0, 0, "ERROR: 1 usec, nothing"}, false, false},
	} {
		s, err := parseStatus(c.text)
		if err != nil || s != c.want || s.ok() != c.ok || s.ended() != c.ended {
			t.Errorf("%+v, ok %t, ended %t: %v; want %+v", s, s.ok(), s.ended(), err, c)
		}
	}
	for _, text := range []string{
		"", params, "pkts-sofar: x  errors: 0", "pkts-sofar: 1  errors: x", "pkts-sofar: 1", "pkts-sofar: -1 errors: 0",
		"pkts-sofar: 1 mistakes: 2", "pkts-sofar: 99999999999999999999 errors: 0",
	} {
		if s, err := parseStatus(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		}
	}
}

// FuzzParseStatus: whatever is in the file, its numbers are those of the last
// line that has them, or there is an error.
func FuzzParseStatus(f *testing.F) {
	f.Add(running)
	f.Add(done)
	f.Add("pkts-sofar: 1 errors: 2\nResult: OK: 1(c1+d0) usec, 1 (60byte,0frags)")
	f.Add("Result:\npkts-sofar:")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStatus(text)
		if err != nil {
			return
		}
		again, err := parseStatus(fmt.Sprintf("pkts-sofar: %d  errors: %d\nResult: %s\n", s.sent, s.errors, s.result))
		if err != nil || again != s {
			t.Errorf("%+v, written and read again %+v: %v", s, again, err)
		}
		if s.ended() && !s.ok() {
			t.Errorf("%+v ended without success", s)
		}
	})
}

func TestParseSchedstat(t *testing.T) {
	if d, err := parseSchedstat("123456789 5 42\n"); err != nil || d != 123456789 {
		t.Errorf("%s: %v", d, err)
	}
	for _, text := range []string{"", "x 1 2", "-5 1 2"} {
		if d, err := parseSchedstat(text); err == nil {
			t.Errorf("%q is %s", text, d)
		}
	}
}
