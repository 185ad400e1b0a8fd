package load

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	macC = net.HardwareAddr{2, 0, 0, 0, 0, 3}
	macD = net.HardwareAddr{2, 0, 0, 0, 0, 4}
)

// valid is a configuration with several of everything.
func valid(outs, destinations int, tunnel Kind) Config {
	c := Config{
		NextHop: macB, Sizes: Fixed(64), Flows: 1000,
		MaxFrames: 1000, MaxTime: time.Second, CPU: -1, Enter: func() error { return nil },
	}
	for i := range outs {
		o := Out{Device: 1 + i, MAC: net.HardwareAddr{2, 0, 0, 1, byte(i >> 8), byte(i)}, Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}
		if tunnel != "" {
			o.Peer = netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)})
		}
		c.Outs = append(c.Outs, o)
	}
	for i := range destinations {
		c.Destinations = append(c.Destinations, netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}))
	}
	if tunnel != "" {
		c.Tunnel = &Tunnel{Kind: tunnel, SrcMAC: macC, DstMAC: macD, Dst: netip.MustParseAddr("192.168.255.1"), Port: 4789, VNI: 0x123456}
	}
	return c
}

func plan(t *testing.T, c Config) *Plan {
	t.Helper()
	p, err := c.Plan()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestErrorsNameTheField(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"Outs":                 func(c *Config) { c.Outs = nil },
		"Outs[1].Device":       func(c *Config) { c.Outs[1].Device = 0 },
		"Outs[1].MAC":          func(c *Config) { c.Outs[1].MAC = nil },
		"Outs[0].Addr":         func(c *Config) { c.Outs[0].Addr = netip.IPv6Loopback() },
		"Outs[0].Peer":         func(c *Config) { c.Outs[0].Peer = netip.Addr{} },
		"Outs[1].Peer":         func(c *Config) { c.Tunnel, c.Outs[0].Peer = nil, netip.Addr{} },
		"NextHop":              func(c *Config) { c.NextHop = macA[:5] },
		"Destinations":         func(c *Config) { c.Destinations = nil },
		"Destinations[1]":      func(c *Config) { c.Destinations[1] = netip.Addr{} },
		"Tunnel.Kind":          func(c *Config) { c.Tunnel.Kind = "gre" },
		"Tunnel.Dst":           func(c *Config) { c.Tunnel.Dst = netip.Addr{} },
		"Tunnel.Port":          func(c *Config) { c.Tunnel.Port = 0 },
		"Tunnel.VNI":           func(c *Config) { c.Tunnel.VNI = 1 << 24 },
		"Tunnel.SrcMAC":        func(c *Config) { c.Tunnel.SrcMAC = nil },
		"Tunnel.DstMAC":        func(c *Config) { c.Tunnel.DstMAC = nil },
		"Sizes":                func(c *Config) { c.Sizes = nil },
		"Sizes[0].Len":         func(c *Config) { c.Sizes = Fixed(63) },
		"Sizes[1].Len":         func(c *Config) { c.Sizes = []Size{{64, 1}, {1515, 1}} },
		"Sizes[0].Weight":      func(c *Config) { c.Sizes = []Size{{64, 0}} },
		"Sizes: weights of 65": func(c *Config) { c.Sizes = []Size{{64, 64}, {65, 1}} },
		"Flows":                func(c *Config) { c.Flows = MaxFlows + 1 },
		"Zipf":                 func(c *Config) { c.Zipf = math.NaN() },
		"Draws":                func(c *Config) { c.Draws = maxDraws + 1 },
		"NewEvery":             func(c *Config) { c.NewEvery = -1 },
		"NewFlows":             func(c *Config) { c.NewFlows = 10 },
		"NewFlows: 20":         func(c *Config) { c.NewFlows, c.Rate = 20, 10 },
		"NewFlows: NewEvery":   func(c *Config) { c.NewFlows, c.Rate, c.NewEvery = 10, 20, 2 },
		"Rate":                 func(c *Config) { c.Rate = 0.5 },
		"MaxFrames":            func(c *Config) { c.MaxFrames = 0 },
		"MaxTime":              func(c *Config) { c.MaxTime = 2 * time.Hour },
		"CPU":                  func(c *Config) { c.CPU = -2 },
		"Enter":                func(c *Config) { c.Enter = nil },
	} {
		c := valid(2, 2, VXLAN)
		plan(t, c)
		change(&c)
		if _, err := c.Plan(); err == nil || !strings.HasPrefix(err.Error(), "load: "+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Every out sends to every destination, and every flow has a 5-tuple of its own.
func TestFlowsAreDifferentAndSpread(t *testing.T) {
	const flows = 1 << 17
	c := valid(3, 4, "")
	c.Flows = flows
	p := plan(t, c)
	pairs := make(map[[2]int]int)
	tuples := make(map[string]bool)
	for f := range uint32(flows) {
		pairs[[2]int{p.Out(f), p.Destination(f)}]++
		b := p.Frame(f, 64)
		tuples[string(b[26:38])] = true
	}
	if len(tuples) != flows {
		t.Errorf("%d 5-tuples of %d flows", len(tuples), flows)
	}
	for o := range 3 {
		for d := range 4 {
			if n := pairs[[2]int{o, d}]; n < flows/12-1 || n > flows/12+1 {
				t.Errorf("%d flows from %d to %d, want a twelfth of %d", n, o, d, flows)
			}
		}
	}
}

func TestSizesAreInterleaved(t *testing.T) {
	for _, c := range []struct {
		sizes []Size
		want  string
	}{
		{Fixed(100), "[100]"},
		{[]Size{{64, 1}, {128, 1}}, "[64 128]"},
		{IMIX(1514), "[64 570 64 64 570 64 1514 64 570 64 570 64]"},
		{IMIX(1464), "[64 570 64 64 570 64 1464 64 570 64 570 64]"},
	} {
		if got := fmt.Sprint(pattern(c.sizes)); got != c.want {
			t.Errorf("%v: %s, want %s", c.sizes, got, c.want)
		}
	}
	p := plan(t, func() Config { c := valid(1, 1, IPIP); c.Sizes = IMIX(1514); return c }())
	if p.Largest != 1534 || p.Lens[0] != 84 {
		t.Errorf("in IPIP: %v", p.Lens)
	}
}

func TestOrder(t *testing.T) {
	c := valid(1, 1, "")
	c.Flows = 3
	for _, test := range []struct {
		every int
		want  string
	}{
		{0, "[0 1 2 0 1 2 0 1 2 0 1 2]"},
		{3, "[0 1 3 2 3 4 4 2 5 3 4 6]"}, // 3 takes the place of 0, 4 that of 1, 5 that of 2, 6 that of 3
		{1, "[3 4 5 6 7 8 9 10 11 12 13 14]"},
	} {
		c.NewEvery = test.every
		s := plan(t, c).Stream()
		var got []uint32
		for range 12 {
			f, _ := s.Next()
			got = append(got, f)
		}
		if fmt.Sprint(got) != test.want {
			t.Errorf("a new flow every %d frames: %v, want %s", test.every, got, test.want)
		}
	}
}

// The first frame of a new flow is the first, and as many flows are there as said.
func TestNewFlowsAreNew(t *testing.T) {
	c := valid(1, 1, "")
	c.Flows, c.Rate, c.NewFlows, c.Zipf, c.Draws = 50, 1000, 130, 1, 5000
	p := plan(t, c)
	if p.Every != 8 {
		t.Fatalf("every %d-th frame is of a new flow, want the 8th", p.Every)
	}
	s := p.Stream()
	last := make(map[uint32]int)
	highest := uint32(49)
	for i := range 20000 {
		f, _ := s.Next()
		if fresh := (i+1)%8 == 0; fresh != (f == highest+1) || !fresh && f > highest {
			t.Fatalf("frame %d is of flow %d, the newest before was %d", i, f, highest)
		}
		highest = max(highest, f)
		if f+50 <= highest {
			t.Fatalf("frame %d is of flow %d, which %d took the place of", i, f, f+50)
		}
		last[f] = i
	}
	if len(last) < 2500 {
		t.Errorf("%d flows", len(last))
	}
}

func TestZipf(t *testing.T) {
	const flows, n = 1000, 1 << 18
	counts := make([]int, flows)
	for _, f := range draws(n, flows, 1, 7) {
		counts[f]++
	}
	for _, k := range []int{1, 2, 10, 100} { // the k-th is drawn 1/k as often as the first
		got, want := float64(counts[k-1]), float64(counts[0])/float64(k)
		if math.Abs(got-want) > 6*math.Sqrt(want)+6*want/math.Sqrt(float64(counts[0])) {
			t.Errorf("flow %d was drawn %g times, want about %g", k, got, want)
		}
	}
	if !slices.Equal(draws(100, flows, 1, 7), draws(100, flows, 1, 7)) || slices.Equal(draws(100, flows, 1, 7), draws(100, flows, 1, 8)) {
		t.Error("the seed does not determine the draws")
	}
	for _, f := range draws(1000, 1, 3, 0) {
		if f != 0 {
			t.Fatalf("flow %d of one", f)
		}
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	c := valid(7, 9, VXLAN)
	c.NewEvery, c.Zipf, c.Draws, c.Sizes = 5, 1, 100, IMIX(1514)
	p := plan(t, c)
	s := p.Stream()
	b := make([]byte, 2048)
	if n := testing.AllocsPerRun(100, func() { flow, n := s.Next(); p.Put(b, flow, n) }); n != 0 {
		t.Errorf("%g allocations for a frame", n)
	}
}
