package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
)

// fakeMachine is one where every check is content, with files changed by edit.
func fakeMachine(t *testing.T, edit map[string]string) *machine {
	t.Helper()
	files := map[string]string{
		"proc/sys/kernel/osrelease":             "6.8.0-1-generic\n",
		"proc/self/status":                      "Name:\tculvert\nCapEff:\t000001ffffffffff\n",
		"proc/sys/net/core/bpf_jit_enable":      "1\n",
		"proc/sys/net/ipv4/conf/all/rp_filter":  "0\n",
		"proc/sys/net/ipv4/conf/eth0/rp_filter": "2\n",
		"proc/net/route":                        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\neth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\neth0 0000A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n",
		"sys/class/net/eth0/mtu":                "1500\n",
		"sys/class/net/eth0/operstate":          "up\n",
	}
	for name, content := range edit {
		files[name] = content
	}
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &machine{root: root, openXDP: func() error { return nil }}
}

func (m *machine) all(s *api.Status) []finding {
	return append(m.checkKernel(), m.checkUplinks(s.Uplinks, s.Encap, s.MTU)...)
}

func TestDoctorIsContent(t *testing.T) {
	s := apitest.New().State
	for _, f := range fakeMachine(t, nil).all(&s) {
		if f.State != stateOK || f.Advice != "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestDoctorFinds(t *testing.T) {
	for _, c := range []struct {
		name         string
		edit         map[string]string
		status       func(*api.Status)
		check, state string
		text         string
	}{
		{"old kernel", map[string]string{"proc/sys/kernel/osrelease": "5.4.0"}, nil, "kernel", stateFail, "5.9"},
		{"no big frames", map[string]string{"proc/sys/kernel/osrelease": "6.1.0-18-amd64"}, nil, "kernel", stateWarn, "6.6"},
		{"strange kernel", map[string]string{"proc/sys/kernel/osrelease": "mine"}, nil, "kernel", stateWarn, "mine"},
		{"no capabilities", map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}, nil, "capabilities", stateWarn, "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF"},
		{"old capabilities", map[string]string{"proc/self/status": "CapEff:\t0000000000203000\n"}, nil, "capabilities", stateWarn, "CAP_IPC_LOCK"},
		{"no jit", map[string]string{"proc/sys/net/core/bpf_jit_enable": "0"}, nil, "bpf jit", stateWarn, "off"},
		{"link down", nil, func(s *api.Status) { s.Uplinks[0].State = "DOWN" }, "uplink eth0", stateFail, "DOWN"},
		{"strict rp_filter", map[string]string{"proc/sys/net/ipv4/conf/all/rp_filter": "1", "proc/sys/net/ipv4/conf/eth0/rp_filter": "0"}, nil, "uplink eth0", stateWarn, "rp_filter"},
		{"small mtu", nil, func(s *api.Status) { s.Uplinks[0].MTU = 1499 }, "uplink eth0", stateFail, "become 1500"},
		{"generic on a NIC", map[string]string{"sys/class/net/eth0/device/vendor": "0x8086"}, nil, "uplink eth0", stateWarn, "generic"},
		{"no device", nil, func(s *api.Status) { s.Uplinks[0].Name = "eth9" }, "uplink eth9", stateFail, "no such device"},
		{"no uplink", nil, func(s *api.Status) { s.Uplinks = nil }, "uplink", stateFail, "none"},
	} {
		s := apitest.New().State
		if c.status != nil {
			c.status(&s)
		}
		found := false
		all := fakeMachine(t, c.edit).all(&s)
		for _, f := range all {
			found = found || f.Check == c.check && f.State == c.state && strings.Contains(f.Found+f.Advice, c.text)
		}
		if !found {
			t.Errorf("%s: not among %+v", c.name, all)
		}
		if failed := verdict(all) != nil; failed != (c.state == stateFail) {
			t.Errorf("%s: verdict %v", c.name, verdict(all))
		}
	}
}

func TestDoctorXDP(t *testing.T) {
	m := fakeMachine(t, nil)
	for _, c := range []struct {
		err  error
		text string
	}{{syscall.EPERM, "CAP_NET_RAW"}, {syscall.EAFNOSUPPORT, "CONFIG_XDP_SOCKETS"}} {
		m.openXDP = func() error { return c.err }
		if f := m.checkXDP(); f.State != stateFail || !strings.Contains(f.Advice, c.text) {
			t.Errorf("%v: %+v", c.err, f)
		}
	}
}

func TestDoctorAgent(t *testing.T) {
	s := apitest.New().State
	s.Degraded = []string{"bad.yaml is not in force"}
	if all := checkAgent(&s, nil); len(all) != 2 || all[0].State != stateOK || all[1].State != stateWarn {
		t.Errorf("degraded: %+v", all)
	}
	s.Ready = false
	if all := checkAgent(&s, nil); all[0].State != stateFail {
		t.Errorf("not ready: %+v", all)
	}
	if all := checkAgent(&s, &api.UnavailableError{Socket: "s", Err: syscall.ENOENT}); all[0].State != stateWarn {
		t.Errorf("no agent: %+v", all)
	}
	if all := checkAgent(&s, errors.New("strange")); all[0].State != stateFail {
		t.Errorf("strange agent: %+v", all)
	}
}

func TestDoctorDefaultUplinks(t *testing.T) {
	got := fakeMachine(t, nil).defaultUplinks()
	if len(got) != 1 || got[0].Name != "eth0" || got[0].MTU != 1500 || got[0].State != "UP" {
		t.Errorf("%+v", got)
	}
}

// TestDoctorElsewhere: devices of another namespace are not judged by ours.
func TestDoctorElsewhere(t *testing.T) {
	m := fakeMachine(t, nil)
	m.elsewhere = "/proc/1/ns/net"
	s := apitest.New().State
	s.Uplinks[0].Name = "eth9"
	all := m.checkUplinks(s.Uplinks, s.Encap, s.MTU)
	if len(all) != 2 || all[0].State != stateOK || all[1].State != stateWarn || !strings.Contains(all[1].Advice, "nsenter --net=/proc/1/ns/net") {
		t.Errorf("%+v", all)
	}
	if path := otherNamespace(serve(t, apitest.New())); path != "" {
		t.Errorf("an agent in this process is in another namespace: %s", path)
	}
}
