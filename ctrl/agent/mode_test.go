package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/config"
	"culvert/ctrl/flavour"
	"culvert/ctrl/ipam"
	"culvert/ctrl/podlink"
	"culvert/ctrl/pods"
	"culvert/ctrl/source"
)

// there are links that are there, whichever; no agent has them.
type there struct{}

func (there) Create(podlink.Spec) (podlink.Link, error) { return podlink.Link{}, errors.New("no") }
func (there) Check(podlink.Spec) error                  { return nil }
func (there) Remove(podlink.Ref) error                  { return nil }
func (there) Find(podlink.Ref) (int, bool, error)       { return 7, true, nil }
func (there) Adopts(podlink.Ref) bool                   { return false }
func (there) Attach(pods.Record) error                  { return nil }
func (there) Detach(pods.Record) error                  { return nil }

// modeAgent is as much of an agent as decides about the mode.
func modeAgent(t *testing.T, mode string) (a *Agent, addPod func()) {
	t.Helper()
	cfg, err := config.Parse("c", []byte("mode: "+mode+"\n"), []string{"NODE_NAME=n1"})
	if err != nil {
		t.Fatal(err)
	}
	a = &Agent{cfg: cfg, log: slog.New(slog.DiscardHandler)}
	if a.ipam, err = ipam.New(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a.pods, err = pods.New(pods.Config{StateDir: dir, MTU: func() int { return 1450 }, Queues: 1, Attacher: there{}, Links: there{}, IPAM: a.ipam})
	if err != nil {
		t.Fatal(err)
	}
	return a, func() {
		t.Helper()
		rec := `{"containerID":"c1","ifName":"eth0","netns":"/x","network":"n","hostName":"cv1","hostIfindex":7,"mac":"02:00:00:00:00:01","addrs":["10.244.1.5"],"mtu":1450,"queues":1,"state":"ready"}`
		if err := os.WriteFile(filepath.Join(dir, "pods", "c1@eth0.json"), []byte(rec), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.pods.Restore(context.Background()); err != nil || len(a.pods.List()) != 1 {
			t.Fatalf("the pod is not there: %v", err)
		}
	}
}

// clusterLike are objects that look like a mode's, with this node or without.
func clusterLike(mode string, own bool) *source.Objects {
	o := &source.Objects{}
	n := &corev1.Node{}
	n.Name = "other"
	if own {
		n.Name = "n1"
	}
	o.Nodes = []*corev1.Node{n}
	switch mode {
	case flavour.ModeFlannel:
		n.Annotations = map[string]string{"flannel.alpha.coreos.com/kube-subnet-manager": "true"}
	case flavour.ModeCalico:
		o.IPPools = []*source.IPPool{{}}
	}
	return o
}

func TestModeIsDecidedOnceThereArePods(t *testing.T) {
	a, addPod := modeAgent(t, "auto")
	for _, step := range []struct {
		looks string
		own   bool
		pods  bool
		want  string
		told  string
	}{
		{looks: "native", want: "native"}, // not decided yet: this node's object is not there
		{looks: "calico", want: "calico"},
		{looks: "native", own: true, want: "native"},
		{looks: "flannel", own: true, want: "flannel"}, // without pods nothing is lost
		{looks: "flannel", own: true, pods: true, want: "flannel"},
		{looks: "native", own: true, want: "flannel", told: "look like a cluster of mode native, and this node runs in mode flannel: drain it"},
		{looks: "calico", want: "flannel", told: "look like a cluster of mode calico"},
		{looks: "flannel", own: true, want: "flannel"},
	} {
		if step.pods {
			addPod()
		}
		if got := a.decideMode(clusterLike(step.looks, step.own)); got != step.want {
			t.Errorf("%+v: mode %s", step, got)
		}
		if (a.another == "") != (step.told == "") || !strings.Contains(a.another, step.told) {
			t.Errorf("%+v: told is %q", step, a.another)
		}
	}
}

func TestModeThatIsConfigured(t *testing.T) {
	a, _ := modeAgent(t, "native")
	if got := a.decideMode(clusterLike("calico", true)); got != "native" || !strings.Contains(a.another, "set mode to auto") {
		t.Errorf("mode %s, told %q", got, a.another)
	}
	if got := a.decideMode(clusterLike("native", true)); got != "native" || a.another != "" {
		t.Errorf("mode %s, told %q", got, a.another)
	}
}

func TestPoolsMissing(t *testing.T) {
	d := &flavour.Desired{Mode: "calico", Local: &flavour.Node{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/26")}, Pools: []netip.Prefix{}}}
	if got := poolsMissing(d, "n1", "dir:/x"); !strings.Contains(got, "no block of addresses") {
		t.Error(got)
	}
	d.Local.Pools = nil // all of them
	if got := poolsMissing(d, "n1", "dir:/x"); got != "" {
		t.Error(got)
	}
	if got := poolsMissing(&flavour.Desired{Mode: "flannel"}, "n1", "dir:/x"); !strings.Contains(got, "spec.podCIDRs") {
		t.Error(got)
	}
}

// What pods' MTU has to leave room for.
func TestOverhead(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		d    flavour.Desired
		want int
	}{
		{flavour.Desired{Mode: "native", Encap: flavour.VXLAN, Local: &flavour.Node{PublicIP: four}}, 50},
		{flavour.Desired{Mode: "native", Encap: flavour.VXLAN, Local: &flavour.Node{PublicIP: six}}, 70},
		{flavour.Desired{Mode: "flannel", Encap: flavour.VXLAN, Local: &flavour.Node{PublicIP: six}}, 50},
		{flavour.Desired{Mode: "calico", Encap: flavour.VXLAN, Local: &flavour.Node{PublicIP: four}, Pools: []flavour.Pool{{CIDR: netip.MustParsePrefix("fd00::/48"), VXLAN: "Always"}}}, 70},
		{flavour.Desired{Mode: "calico", Encap: flavour.VXLAN, Local: &flavour.Node{PublicIP: four}, Pools: []flavour.Pool{{CIDR: netip.MustParsePrefix("fd00::/48")}}}, 50},
		{flavour.Desired{Mode: "calico", Encap: flavour.IPIP}, 20},
		{flavour.Desired{Mode: "flannel", Encap: flavour.None}, 0},
	} {
		if got := overheadOf(&c.d); got != c.want {
			t.Errorf("%+v: %d, want %d", c.d, got, c.want)
		}
	}
}
