package pods

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/ipam"
)

// clusterIPAM is the cluster's addresses in a test: it gives what it is told to.
type clusterIPAM struct {
	local *ipam.Allocator
	gives netip.Addr
	freed []string

	refuse, fail error // of Allocate, of Release
}

func (c *clusterIPAM) Allocate(ctx context.Context, rec Record, want []netip.Addr) ([]netip.Addr, error) {
	if _, ok := ctx.Deadline(); !ok {
		return nil, errors.New("the cluster may wait for ever")
	}
	if c.refuse != nil {
		return nil, c.refuse
	}
	addrs := append([]netip.Addr{c.gives}, want...)
	return addrs, c.local.Reserve(rec.keyString(), addrs...)
}

func (c *clusterIPAM) Release(rec Record) error {
	c.freed = append(c.freed, fmt.Sprint(rec.keyString(), rec.Addrs))
	return c.fail
}

func TestClusterIPAM(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	cluster := &clusterIPAM{gives: netip.MustParseAddr("10.77.0.1"), local: m.cfg.IPAM}
	m.cfg.Cluster = cluster
	must(t, m, call(api.CNIAdd, "c1", "web"))
	if recs := m.List(); len(recs) != 1 || fmt.Sprint(recs[0].Addrs) != "[10.77.0.1]" {
		t.Errorf("records %+v", recs)
	}
	mustAgree(t, m, w)
	// A DEL that cannot be noted keeps the pod's record, and its address.
	cluster.fail = errors.New("no space left")
	mustFail(t, m, call(api.CNIDel, "c1", "web"), api.CNIInternal, "no space left")
	if _, taken := m.cfg.IPAM.Owner(cluster.gives); !taken || len(m.List()) != 1 {
		t.Errorf("%d records, address taken %v", len(m.List()), taken)
	}
	cluster.fail = nil
	must(t, m, call(api.CNIDel, "c1", "web"))
	if got := cluster.freed[len(cluster.freed)-1]; got != "c1@eth0[10.77.0.1]" {
		t.Errorf("released is %s", got)
	}
	mustBeEmpty(t, m, w)
	// An ADD without an address leaves nothing behind, and says what to do.
	for _, tt := range []struct {
		err  error
		code uint
	}{{fmt.Errorf("away: %w", ErrTryAgain), api.CNITryAgain}, {ipam.ErrExhausted, api.CNINoAddress}} {
		cluster.freed, cluster.refuse = nil, tt.err
		mustFail(t, m, call(api.CNIAdd, "c2", "web"), tt.code, tt.err.Error())
		if fmt.Sprint(cluster.freed) != "[c2@eth0[]]" {
			t.Errorf("released is %v", cluster.freed)
		}
		mustBeEmpty(t, m, w)
	}
}

// What another IPAM plugin gave is taken as it is, wherever it is.
func TestGivenAddresses(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	given := func(addrs ...string) func(*api.CNIRequest) {
		return func(r *api.CNIRequest) { r.Given = addrs }
	}
	must(t, m, call(api.CNIAdd, "c1", "web", given("fd00:77::5/128", "10.77.0.5/32")))
	if recs := m.List(); fmt.Sprint(recs[0].Addrs) != "[10.77.0.5 fd00:77::5]" {
		t.Errorf("records %+v", recs)
	}
	mustAgree(t, m, w)
	mustFail(t, m, call(api.CNIAdd, "c2", "other", given("10.77.0.5")), api.CNIAddressRefused, "in use by c1@eth0")
	mustFail(t, m, call(api.CNIAdd, "c2", "other", given("10.77")), api.CNIInvalidConfig, "given by the IPAM plugin")
	must(t, m, call(api.CNIDel, "c1", "web"))
	mustBeEmpty(t, m, w)
}
