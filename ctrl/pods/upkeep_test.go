package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"culvert/ctrl/api"
)

func TestGCAndStatus(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	for i := range 4 {
		must(t, m, call("ADD", fmt.Sprint("c", i), fmt.Sprint("p", i)))
	}
	must(t, m, call("ADD", "x", "x", withConf(`{"name":"other"}`)))
	must(t, m, call("GC", "", "", withConf(`{"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"},{"containerID":"c2","ifname":"net1"}]}`)))
	mustAgree(t, m, w)
	if l := m.List(); len(l) != 2 || l[0].ContainerID != "c1" || l[1].ContainerID != "x" {
		t.Errorf("after GC: %+v", l)
	}
	must(t, m, call("GC", "", "", withConf(`{"cni.dev/attachments":[{"containerID":"c1","ifname":"eth0"}]}`)))
	must(t, m, call("GC", "", "", withConf(`{"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],"cni.dev/attachments":[]}`)))
	if l := m.List(); len(l) != 2 {
		t.Errorf("after GC by the misnamed key: %+v", l)
	}
	for _, conf := range []string{`{}`, `{"cni.dev/valid-attachments":null}`, `{"cni.dev/attachments":null}`,
		`{"cni.dev/valid-attachments":null,"cni.dev/attachments":null}`, `{"cni.dev/valid-attachment":[]}`} {
		mustFail(t, m, call("GC", "", "", withConf(conf)), api.CNIInvalidConfig, "cni.dev/valid-attachments")
		if l := m.List(); len(l) != 2 {
			t.Fatalf("GC with %s removed pods: %+v", conf, l)
		}
	}
	mustFail(t, m, call("GC", "", "", withConf(`{"cni.dev/valid-attachments":{}}`)), api.CNIDecodingFailure, "")
	must(t, m, call("GC", "", "", withConf(`{"cni.dev/valid-attachments":[]}`)))
	mustAgree(t, m, w)
	if l := m.List(); len(l) != 1 || l[0].ContainerID != "x" {
		t.Errorf("after GC with an empty list: %+v", l)
	}
	must(t, m, call("STATUS", "", ""))
	mustFail(t, m, call("STATUS", "", "", withConf(`{"cniVersion":"1.0.0"}`)), api.CNIIncompatibleVersion, "no STATUS")
	m.cfg.Ready = func() error { return fmt.Errorf("no uplink") }
	mustFail(t, m, call("STATUS", "", ""), api.CNINotAvailable, "no uplink")
	mustFail(t, m, call("ADD", "c9", "c9"), api.CNITryAgain, "no uplink")
	mustFail(t, m, call("CHECK", "c9", "c9"), api.CNITryAgain, "no uplink") // not unknown: perhaps not read yet
	mustFail(t, m, call("GC", "", "", withConf(`{"name":"other","cni.dev/valid-attachments":[]}`)), api.CNITryAgain, "no uplink")
	must(t, m, call("CHECK", "x", "x", withConf(`{"name":"other"}`)))
	must(t, m, call("DEL", "c9", "c9"))
	m.cfg.Ready, m.cfg.MTU = func() error { return nil }, func() int { return 0 }
	mustFail(t, m, call("ADD", "c9", "c9"), api.CNITryAgain, "MTU")
	mustFail(t, m, call("STATUS", "", ""), api.CNINotAvailable, "MTU")
	// A pod that could not be attached again has no connections, either.
	m = newManager(t, w.afterCrash(), m.cfg.StateDir)
	m.cfg.Ready = func() error { return fmt.Errorf("no uplink") }
	m.cfg.Links.(*world).fail = "attach"
	if err := m.Restore(context.Background()); err == nil {
		t.Error("restored although the dataplane takes no port")
	}
	mustFail(t, m, call("STATUS", "", ""), api.CNIDegraded, "no uplink")
	mustFail(t, m, call("CHECK", "x", "x"), api.CNITryAgain, "no uplink")
}

func TestLeftDELs(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	must(t, m, call("ADD", "c1", "web"))
	pending := m.cfg.PendingDir
	leave := func(name, content string) {
		if err := os.MkdirAll(pending, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(pending, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.Drain() // no directory
	del, _ := json.Marshal(call("DEL", "c1", "web"))
	add, _ := json.Marshal(call("ADD", "c2", "evil"))
	leave("a.json", string(del))
	leave("b.json", "not JSON")
	leave("c.json", string(add))
	leave(".tmp-1", string(del))
	w.fail = "remove"
	m.Drain()
	if len(w.links) != 1 {
		t.Error("removed although removal fails")
	}
	w.fail = ""
	// The same container comes back: its left DEL is done before, not after.
	must(t, m, call("ADD", "c1", "web"))
	mustAgree(t, m, w)
	if files, _ := filepath.Glob(filepath.Join(pending, "*.json")); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
}

func TestConcurrentTransactions(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 30 {
				c := fmt.Sprint("c", (i+j)%5)
				pod := fmt.Sprint("p", (i*j)%3)
				switch (i + j) % 4 {
				case 0:
					m.CNI(context.Background(), *call("ADD", c, pod))
				case 1:
					m.CNI(context.Background(), *call("ADD", c, pod, withTAP))
					m.LookForTAPs()
				case 2:
					must(t, m, call("DEL", c, pod))
				case 3:
					m.CNI(context.Background(), *call("CHECK", c, pod))
					m.LinkGone(10 + j)
				}
				m.List()
			}
		})
	}
	wg.Wait()
	for i := range 5 {
		must(t, m, call("DEL", fmt.Sprint("c", i), ""))
	}
	mustBeEmpty(t, m, w)
}
