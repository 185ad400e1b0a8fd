package pods

import (
	"os"
	"path/filepath"
	"testing"

	"culvert/ctrl/api"
)

// Only a pod whose link and namespace are both gone is forgotten, and only an address of
// no pod is freed.
func TestForgetAndFreeOrphan(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	netns := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, m, call(api.CNIAdd, "c1", "web", func(r *api.CNIRequest) { r.Netns = netns }))
	key := m.List()[0].Key()
	forget := func(want bool) {
		t.Helper()
		if done, err := m.Forget(key); done != want || err != nil {
			t.Errorf("forgotten %v, %v; want %v", done, err, want)
		}
	}
	if s := m.Look(); len(s) != 1 || !s[0].Linked || !s[0].Netns {
		t.Errorf("seen %+v", s)
	}
	forget(false)
	delete(w.links, m.List()[0].HostName)
	forget(false)
	if s := m.Look(); s[0].Linked || !s[0].Netns {
		t.Errorf("without link: %+v", s)
	}
	if m.FreeOrphan(key.String()) {
		t.Error("a pod's address was freed")
	}
	if err := os.Remove(netns); err != nil {
		t.Fatal(err)
	}
	forget(true)
	forget(false)
	mustBeEmpty(t, m, w)
	if _, err := m.cfg.IPAM.Allocate("nobody@eth0"); err != nil {
		t.Fatal(err)
	}
	if !m.FreeOrphan("nobody@eth0") || m.cfg.IPAM.Taken() != 0 {
		t.Errorf("%s", m.cfg.IPAM)
	}
}
