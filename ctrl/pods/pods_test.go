package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

func TestLifeOfAPod(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	res := must(t, m, call("ADD", "c1", "web"))
	want := `{"cniVersion":"1.1.0","interfaces":[{"mac":"ee:ee:ee:ee:ee:ee","name":"` + podlink.HostName("cv", "default", "web", "") + `"},` +
		`{"mac":"02:00:00:00:00:0a","mtu":1450,"name":"eth0","sandbox":"/run/netns/c1"}],` +
		`"ips":[{"address":"10.244.1.2/32","gateway":"169.254.1.1","interface":1},{"address":"fd00:1::2/128","gateway":"fe80::ecee:eeff:feee:eeee","interface":1}],` +
		`"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::ecee:eeff:feee:eeee"}]}`
	if string(res) != want {
		t.Errorf("result:\n%s\nwant:\n%s", res, want)
	}
	must(t, m, call("CHECK", "c1", "web"))
	must(t, m, call("CHECK", "c1", "web", withConf(`{"prevResult":`+string(res)+`}`)))
	mustAgree(t, m, w)
	mustFail(t, m, call("ADD", "c1", "web"), api.CNIInterfaceExists, "DEL comes before")
	mustAgree(t, m, w)
	pod := m.List()[0].API()
	if pod.Port != podlink.HostName("cv", "default", "web", "") || pod.State != "ready" || len(pod.Addrs) != 2 {
		t.Errorf("API: %+v", pod)
	}
	for range 3 {
		must(t, m, call("DEL", "c1", "web", func(r *api.CNIRequest) { r.Netns = "" }))
	}
	mustBeEmpty(t, m, w)
	mustFail(t, m, call("CHECK", "c1", "web"), api.CNIUnknownContainer, "")
}

// TestLifeOfATAP: there is no host end to name in the result.
func TestLifeOfATAP(t *testing.T) {
	w, dir := newWorld(), t.TempDir()
	m := newManager(t, w, dir)
	res := must(t, m, call("ADD", "c1", "web", withTAP))
	want := `{"cniVersion":"1.1.0","interfaces":[{"mac":"02:00:00:00:00:0a","mtu":1450,"name":"eth0","sandbox":"/run/netns/c1"}],` +
		`"ips":[{"address":"10.244.1.2/32","gateway":"169.254.1.1","interface":0},{"address":"fd00:1::2/128","gateway":"fe80::ecee:eeff:feee:eeee","interface":0}],` +
		`"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::ecee:eeff:feee:eeee"}]}`
	if string(res) != want {
		t.Errorf("result:\n%s\nwant:\n%s", res, want)
	}
	must(t, m, call("CHECK", "c1", "web", withTAP, withConf(`{"interface":"tap","prevResult":`+string(res)+`}`)))
	mustAgree(t, m, w)
	name := podlink.HostName("cv", "default", "web", "")
	if spec := w.links[name]; spec.Kind != podlink.TAP || spec.Netns != "/run/netns/c1" || m.List()[0].API().Port != name {
		t.Errorf("link %+v, record %+v", spec, m.List()[0])
	}

	w = w.afterCrash()
	m = newManager(t, w, dir)
	m.cfg.Queues = 5 // culvertd has more workers now
	if err := m.Restore(context.Background()); err != nil {
		t.Fatal(err)
	}
	if rec := w.attached[Key{"c1", "eth0"}]; rec.Kind != podlink.TAP || rec.Queues != 5 {
		t.Errorf("attached again as %+v", rec)
	}
	for range 2 {
		must(t, m, call("DEL", "c1", "web", withTAP))
	}
	mustBeEmpty(t, m, w)
}

// TestLostTAP: a TAP is looked for; a veth's host end of the same index is another's.
func TestLostTAP(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	must(t, m, call("ADD", "c1", "a", withTAP))
	must(t, m, call("ADD", "c2", "b"))
	rec := m.List()[0]
	m.LinkGone(rec.Ifindex)
	m.LookForTAPs()
	mustAgree(t, m, w)
	delete(w.links, rec.HostName)
	delete(w.links, m.List()[1].HostName) // netlink will tell of this one
	for range 2 {
		m.LookForTAPs()
	}
	if l := m.List(); len(w.attached) != 1 || l[0].State != StateGone || l[1].State != StateReady {
		t.Errorf("attached %v, records %+v", w.attached, m.List())
	}
	mustFail(t, m, call("CHECK", "c1", "a", withTAP), api.CNICheckFailed, "was deleted")
	must(t, m, call("DEL", "c1", "a"))
	if len(m.List()) != 1 {
		t.Errorf("records %+v", m.List())
	}
}

func TestResultVersions(t *testing.T) {
	for _, v := range api.CNIVersions {
		w := newWorld()
		m := newManager(t, w, t.TempDir())
		var res struct {
			CNIVersion string
			Interfaces []struct{ Name, Sandbox string }
			IPs        []struct {
				Version, Address string
				Interface        *int
			}
		}
		data := must(t, m, call("ADD", "c1", "web", withConf(`{"cniVersion":"`+v+`"}`)))
		if err := json.Unmarshal(data, &res); err != nil {
			t.Fatal(err)
		}
		if res.CNIVersion != v || len(res.IPs) != 2 || res.IPs[0].Interface == nil ||
			res.Interfaces[*res.IPs[0].Interface].Name != "eth0" || res.Interfaces[*res.IPs[0].Interface].Sandbox == "" {
			t.Errorf("%s: %s", v, data)
		}
		if (res.IPs[0].Version == "4") != (v < "1") {
			t.Errorf("%s: the address has version %q", v, res.IPs[0].Version)
		}
		if v >= "0.4.0" {
			must(t, m, call("CHECK", "c1", "web", withConf(`{"cniVersion":"`+v+`","prevResult":`+string(data)+`}`)))
		} else {
			mustFail(t, m, call("CHECK", "c1", "web", withConf(`{"cniVersion":"`+v+`"}`)), api.CNIIncompatibleVersion, "no CHECK")
		}
	}
}

func TestChained(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	prev := `{"interfaces":[{"name":"lo0","sandbox":"/x"}],"ips":[{"version":"4","address":"192.0.2.1/24","interface":0}],"dns":{"nameservers":["192.0.2.53"]}}`
	data := must(t, m, call("ADD", "c1", "web", withConf(`{"cniVersion":"0.4.0","prevResult":`+prev+`}`)))
	for _, want := range []string{`"192.0.2.1/24"`, `"192.0.2.53"`, `"interface":2`, `"lo0"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is missing in %s", want, data)
		}
	}
	mustFail(t, m, call("ADD", "c2", "second", withConf(`{"prevResult":{"interfaces":[{"name":"eth0","sandbox":"/x"}]}}`)), api.CNIInvalidConfig, "has eth0 already")
	mustAgree(t, m, w)
	// A later plugin (tuning) may make the MTU smaller, of which it does not tell.
	spec := w.links[m.List()[0].HostName]
	tuned := func(version, fields string) func(*api.CNIRequest) {
		return withConf(`{"cniVersion":"` + version + `","prevResult":{"cniVersion":"` + version + `","interfaces":[{"name":"eth0","sandbox":"/x"` + fields + `}],` +
			`"ips":[{"version":"4","address":"10.244.1.2/32"},{"version":"6","address":"fd00:1::2/128"}]}}`)
	}
	spec.MTU = 1400
	w.links[spec.HostName] = spec
	must(t, m, call("CHECK", "c1", "web", tuned("1.1.0", `,"mtu":1450`)))
	must(t, m, call("CHECK", "c1", "web", tuned("0.4.0", `,"mac":"`+spec.MAC.String()+`"`)))
	mustFail(t, m, call("CHECK", "c1", "web", tuned("1.0.0", `,"mac":"02:09:09:09:09:09"`)), api.CNICheckFailed, "culvert-cni's to give")
	spec.MTU = 1500
	w.links[spec.HostName] = spec
	mustFail(t, m, call("CHECK", "c1", "web", tuned("1.1.0", `,"mtu":1450`)), api.CNICheckFailed, "not as it should be")
	mustFail(t, m, call("CHECK", "c1", "web", withConf(`{"prevResult":{"cniVersion":"1.1.0"}}`)), api.CNICheckFailed, "10.244.1.2")
}

func TestWishes(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	data := must(t, m, call("ADD", "c1", "a", withConf(`{"runtimeConfig":{"IPs":["10.244.1.77/24"],"MAC":"02:11:22:33:44:55"}}`)))
	if !strings.Contains(string(data), "10.244.1.77/32") || !strings.Contains(string(data), "fd00:1::2") || !strings.Contains(string(data), "02:11:22:33:44:55") {
		t.Errorf("asked for: %s", data)
	}
	withIP := func(ip string) func(*api.CNIRequest) { return func(r *api.CNIRequest) { r.Args["IP"] = ip } }
	must(t, m, call("ADD", "c2", "b", withIP("10.244.1.78,fd00:1::78")))
	mustFail(t, m, call("ADD", "c3", "c", withIP("10.244.1.77")), api.CNIAddressRefused, "in use by c1@eth0")
	mustFail(t, m, call("ADD", "c3", "c", withIP("10.99.0.1")), api.CNIAddressRefused, "pod CIDRs")
	mustFail(t, m, call("ADD", "c3", "c", withIP("10.244.1")), api.CNIInvalidConfig, "asked for")
	mustFail(t, m, call("ADD", "c3", "c", withConf(`{"runtimeConfig":{"mac":"01:00:00:00:00:00"}}`)), api.CNIInvalidConfig, "unicast")
	mustAgree(t, m, w)
}

// TestEveryStepUndone fails an ADD at every step in turn: nothing stays.
func TestEveryStepUndone(t *testing.T) {
	for _, step := range []string{"create", "attach"} {
		w := newWorld()
		m := newManager(t, w, t.TempDir())
		w.fail = step
		if resp := m.CNI(context.Background(), *call("ADD", "c1", "web")); resp.Code < 100 {
			t.Errorf("%s: %+v", step, resp)
		}
		w.fail = ""
		mustBeEmpty(t, m, w)
		w.fail, w.failErr = step, fmt.Errorf("not now: %w", ErrTryAgain)
		mustFail(t, m, call("ADD", "c1", "web"), api.CNITryAgain, "not now")
		mustBeEmpty(t, m, w)
		w.fail = ""
		must(t, m, call("ADD", "c1", "web"))
		mustAgree(t, m, w)
	}
	// A bad namespace and a taken name have their codes.
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	w.fail, w.failErr = "create", &podlink.NetnsError{Path: "/x", Err: os.ErrNotExist}
	mustFail(t, m, call("ADD", "c1", "web"), api.CNIInvalidEnvironment, "CNI_NETNS")
	w.failErr = fmt.Errorf("eth0: %w", podlink.ErrInterfaceExists)
	mustFail(t, m, call("ADD", "c1", "web"), api.CNIInterfaceExists, "CNI_IFNAME")
	mustBeEmpty(t, m, w)
	// A record that cannot be written: the directory is gone.
	w.fail = ""
	if err := os.Remove(m.store.dir); err != nil {
		t.Fatal(err)
	}
	mustFail(t, m, call("ADD", "c1", "web"), api.CNIIOFailure, "record")
	mustBeEmpty(t, m, w)
}

// TestDelGoesOn fails a DEL at every step: the address stays taken, and the
// next DEL finishes.
func TestDelGoesOn(t *testing.T) {
	for _, step := range []string{"detach", "remove"} {
		w := newWorld()
		m := newManager(t, w, t.TempDir())
		must(t, m, call("ADD", "c1", "web"))
		w.fail = step
		if resp := m.CNI(context.Background(), *call("DEL", "c1", "web")); resp.Code < 100 || m.cfg.IPAM.Taken() != 2 {
			t.Errorf("%s: %+v, %s", step, resp, m.cfg.IPAM)
		}
		w.fail = ""
		must(t, m, call("DEL", "c1", "web"))
		mustBeEmpty(t, m, w)
	}
}

// TestUndoThatFails keeps the record when the link cannot be removed: its
// address must not be given to another pod.
func TestUndoThatFails(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	w.fail = "attach"
	w.before = func(step string) {
		if step == "attach" {
			return
		}
		if step == "remove" {
			w.fail = "remove"
		}
	}
	if resp := m.CNI(context.Background(), *call("ADD", "c1", "web")); resp.Code == 0 {
		t.Fatal("ADD succeeded")
	}
	w.fail, w.before = "", nil
	if m.cfg.IPAM.Taken() != 2 || len(w.links) != 1 {
		t.Errorf("%s, links %v", m.cfg.IPAM, w.links)
	}
	must(t, m, call("DEL", "c1", "web"))
	mustBeEmpty(t, m, w)
}

func TestLinkGone(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	must(t, m, call("ADD", "c1", "a"))
	must(t, m, call("ADD", "c2", "b"))
	gone := m.List()[0]
	delete(w.links, gone.HostName)
	m.LinkGone(99999)
	m.LinkGone(gone.Ifindex)
	m.LinkGone(gone.Ifindex)
	if len(w.attached) != 1 || m.Count() != 1 || m.List()[0].State != StateGone || m.List()[1].State != StateReady {
		t.Errorf("attached %v, records %+v", w.attached, m.List())
	}
	mustFail(t, m, call("CHECK", "c1", "a"), api.CNICheckFailed, "was deleted")
	if _, taken := m.cfg.IPAM.Owner(gone.Addrs[0]); !taken {
		t.Error("the address was freed before DEL")
	}
	must(t, m, call("DEL", "c1", "a"))
	mustAgree(t, m, w)
	// ADD of a container whose link is gone does not wait for the DEL.
	rec := m.List()[0]
	delete(w.links, rec.HostName)
	m.LinkGone(rec.Ifindex)
	must(t, m, call("ADD", "c2", "b"))
	mustAgree(t, m, w)
}

func TestSamePodInAnotherContainer(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	must(t, m, call("ADD", "old", "web"))
	must(t, m, call("ADD", "new", "web"))
	mustAgree(t, m, w)
	must(t, m, call("DEL", "old", "web")) // late: the new one must not suffer
	must(t, m, call("CHECK", "new", "web"))
	mustAgree(t, m, w)
	if len(m.List()) != 1 {
		t.Errorf("records: %+v", m.List())
	}
}

func TestSecondInterface(t *testing.T) {
	w := newWorld()
	m := newManager(t, w, t.TempDir())
	net1 := func(r *api.CNIRequest) { r.IfName = "net1" }
	must(t, m, call("ADD", "c1", "web"))
	must(t, m, call("ADD", "c1", "web", net1))
	mustAgree(t, m, w)
	must(t, m, call("CHECK", "c1", "web", net1))
	must(t, m, call("DEL", "c1", "web"))
	must(t, m, call("CHECK", "c1", "web", net1))
	must(t, m, call("DEL", "c1", "web", net1))
	mustBeEmpty(t, m, w)
}

func TestLinkWithoutRecord(t *testing.T) {
	w := newWorld()
	name := podlink.HostName("cv", "default", "web", "")
	w.links[name] = podlink.Spec{}
	m := newManager(t, w, t.TempDir())
	must(t, m, call("ADD", "c1", "web"))
	mustAgree(t, m, w)
	// DEL without a record removes a link only if it is this pod's.
	m = newManager(t, w.afterCrash(), t.TempDir())
	w = m.cfg.Links.(*world)
	must(t, m, call("DEL", "c9", "web"))
	if len(w.links) != 1 {
		t.Error("another container's link was removed")
	}
	w.netns["/run/netns/c1"] = netnsState{"eth0", name}
	must(t, m, call("DEL", "c1", "web"))
	mustBeEmpty(t, m, w)
}
