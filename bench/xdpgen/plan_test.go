package xdpgen_test

import (
	"context"
	"testing"
	"time"

	"culvert/bench/load"
	"culvert/bench/load/loadtest"
	"culvert/bench/xdpgen"
)

// TestSendsThePlan compares every byte of what arrives with what package load
// says, for the program in its plainest form and with all that it can do.
func TestSendsThePlan(t *testing.T) {
	bed := loadtest.Bed(t, 3)
	one := func(c *load.Config) { c.Outs, c.Destinations = c.Outs[:1], c.Destinations[:1] }
	all := func(c *load.Config) {
		c.Sizes, c.Flows, c.Zipf, c.Draws, c.NewEvery = load.IMIX(1400), 30, 1.1, 500, 7
	}
	for name, change := range map[string]func(*load.Config){
		"plain":        one,
		"sizes":        func(c *load.Config) { one(c); c.Sizes = load.IMIX(1400) },
		"outs":         func(c *load.Config) { c.Destinations = c.Destinations[:1] },
		"destinations": func(c *load.Config) { c.Outs = c.Outs[:1] },
		"million":      func(c *load.Config) { c.Flows, c.Zipf, c.Draws = load.MaxFlows, 0.8, 2000 },
		"new flows":    func(c *load.Config) { c.Flows, c.NewFlows = 13, 3000 },
		"all":          all,
	} {
		for kind, cfg := range map[load.Kind]load.Config{
			"pods": loadtest.FromPods(bed), load.VXLAN: loadtest.FromWire(t, bed, load.VXLAN), load.IPIP: loadtest.FromWire(t, bed, load.IPIP),
		} {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				change(&cfg)
				capture := loadtest.Listen(t, bed)
				gen, err := xdpgen.Start(context.Background(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				for gen.Running() {
					time.Sleep(time.Millisecond)
				}
				if n, err := gen.Generated(); err != nil || n != cfg.MaxFrames {
					t.Errorf("%d frames generated: %v", n, err)
				}
				if err := gen.Stop(); err != nil {
					t.Fatal(err)
				}
				loadtest.Check(t, bed, cfg, capture.Frames(int(cfg.MaxFrames)))
			})
		}
	}
}
