package agent

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/calicoipam/ipamtest"
	"culvert/ctrl/config"
	"culvert/ctrl/flavour"
	"culvert/ctrl/pods"
	"culvert/ctrl/source"
)

// keeperAgent is as much of an agent as gives addresses of Calico's IPAM.
func keeperAgent(t *testing.T) (*Agent, *ipamtest.Memory) {
	t.Helper()
	a, _ := modeAgent(t, "calico")
	m := &ipamtest.Memory{}
	for kind, spec := range map[string]map[string]any{"Node": nil, "IPPool": {"cidr": "10.244.0.0/24", "vxlanMode": "Always"}} {
		obj := &unstructured.Unstructured{Object: map[string]any{"kind": kind, "spec": spec}}
		obj.SetName("n1")
		m.Put(obj)
	}
	cfg, err := config.Parse("c", []byte("mode: calico\nstateDir: "+t.TempDir()+"\n"), []string{"NODE_NAME=n1"})
	if err != nil {
		t.Fatal(err)
	}
	a.cfg, a.calico = cfg, m
	if _, err := a.openKeeper(); err != nil {
		t.Fatal(err)
	}
	return a, m
}

func TestKeeperOfAgent(t *testing.T) {
	a, m := keeperAgent(t)
	rec := pods.Record{ContainerID: "c1", IfName: "eth0", Network: "k8s-pod-network", Namespace: "default", Pod: "web"}
	// In another mode the addresses are this node's own affair.
	if err := a.ipam.SetCIDRs([]netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	if addrs, err := a.keeper.Allocate(t.Context(), rec, nil); err != nil || addrs[0].String() != "10.9.0.2" || a.claims() {
		t.Errorf("%v, %v", addrs, err)
	}
	a.ipam.Release(rec.Key().String())
	if err := a.keeper.Release(rec); err != nil || m.Calls() != 0 {
		t.Errorf("%v after %d requests", err, m.Calls())
	}
	// In this one they are the cluster's, and the node's tunnel address comes by itself.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.keeper.run(ctx) }()
	d := &flavour.Desired{Mode: flavour.ModeCalico, Annotations: map[string]string{"projectcalico.org/IPv4VXLANTunnelAddr": "10.244.0.77"}}
	a.keeper.applied(d, &source.Objects{})
	for deadline := time.Now().Add(time.Minute); len(m.All("IPAMHandle")) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no tunnel address")
		}
	}
	if b := m.All("IPAMBlock"); len(b) != 1 || b[0].GetName() != "10-244-0-64-26" {
		t.Errorf("blocks %v: the address that the node publishes is not kept", b)
	}
	addrs, err := a.keeper.Allocate(t.Context(), rec, nil)
	if err != nil || !strings.HasPrefix(addrs[0].String(), "10.244.0.") || len(m.All("IPAMHandle")) != 2 || !a.claims() {
		t.Errorf("%v, %v", addrs, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// An API server that is away and a node without a block: come back later.
	m.Fail = func(int, string) (error, bool) { return ipamtest.ErrAway, false }
	if err := a.ipam.SetPools(nil, nil); err != nil {
		t.Fatal(err)
	}
	rec.ContainerID = "c2"
	if _, err := a.keeper.Allocate(t.Context(), rec, nil); !errors.Is(err, pods.ErrTryAgain) || !strings.Contains(a.keeper.problem(), "connection refused") {
		t.Errorf("%v; problem %q", err, a.keeper.problem())
	}
	// Without a keeper nothing of it happens.
	var none *keeper
	none.applied(d, &source.Objects{})
	if none.problem() != "" || none.conflicts() != nil || none.run(ctx) != nil {
		t.Error("a node with manifests has a keeper")
	}
}
