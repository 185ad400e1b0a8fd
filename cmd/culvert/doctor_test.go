package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
	"culvert/internal/probe"
)

// fakeMachine is one where every check is content, with files changed by edit.
func fakeMachine(t *testing.T, edit map[string]string) *machine {
	t.Helper()
	files := map[string]string{
		"proc/sys/kernel/osrelease":             "6.8.0-1-generic\n",
		"proc/self/status":                      "Name:\tculvert\nCapEff:\t000001ffffffffff\n",
		"proc/sys/net/core/bpf_jit_enable":      "1\n",
		"proc/sys/net/ipv4/ip_forward":          "1\n",
		"etc/cni/net.d/10-culvert.conflist":     `{"plugins":[{"type":"culvert-cni"}]}`,
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
	fine := func() error { return nil }
	return &machine{
		root: root, dataplane: fine, tap: fine, vxlan: fine,
		lockedMemory: func() (uint64, error) { return 8 << 20, nil },
		look: func(string) (probe.NIC, error) {
			return probe.NIC{Driver: "virtio_net", Queues: 2, MaxQueues: 4, NativeXDP: true, XDPKnown: true}, nil
		},
		devices: func() ([]probe.Device, error) {
			return []probe.Device{{Name: "lo"}, {Name: "eth0"}, {Name: "culvert0", Kind: "tuntap"}}, nil
		},
		ping: func(context.Context, netip.Addr, int) error { return nil },
	}
}

// with is an agent of that status, with the peer of apitest.
func with(s *api.Status) *examined {
	return &examined{status: s, peers: apitest.New().PeerList, confDir: defaultConfDir, conf: "10-culvert.conflist", ports: defaultPorts}
}

func TestDoctorIsContent(t *testing.T) {
	s := apitest.New().State
	for _, e := range []*examined{with(&s), {err: &api.UnavailableError{Socket: "s", Err: syscall.ENOENT}, confDir: defaultConfDir}} {
		for _, f := range fakeMachine(t, nil).examination(t.Context(), e, 16) {
			if f.State != stateOK && f.Check != "agent" || f.Advice != "" {
				t.Errorf("%+v", f)
			}
		}
	}
}

// doctorCase is a machine and an agent that differ from content ones, and a finding.
type doctorCase struct {
	name         string
	edit         map[string]string
	machine      func(*machine)
	status       func(*api.Status)
	agent        func(*examined)
	check, state string
	text         string
}

func (c *doctorCase) run(t *testing.T) {
	s := apitest.New().State
	e := with(&s)
	m := fakeMachine(t, c.edit)
	if c.machine != nil {
		c.machine(m)
	}
	if c.status != nil {
		c.status(&s)
	}
	if c.agent != nil {
		c.agent(e)
	}
	all := m.examination(t.Context(), e, 16)
	found := false
	for _, f := range all {
		found = found || f.Check == c.check && f.State == c.state && strings.Contains(f.Found+" "+f.Advice, c.text)
	}
	if !found {
		t.Errorf("%s: not among %+v", c.name, all)
	}
	if failed := verdict(all) != nil; failed != (c.state == stateFail) {
		t.Errorf("%s: verdict %v of %+v", c.name, verdict(all), all)
	}
}

// fails makes a try that fails.
func fails(err error) func() error { return func() error { return err } }

func gone(e *examined) {
	e.status, e.peers, e.err = nil, nil, &api.UnavailableError{Socket: "s", Err: syscall.ENOENT}
}

func TestDoctorFinds(t *testing.T) {
	nic := func(n probe.NIC) func(*machine) {
		return func(m *machine) { m.look = func(string) (probe.NIC, error) { return n, nil } }
	}
	devices := func(d ...probe.Device) func(*machine) {
		return func(m *machine) { m.devices = func() ([]probe.Device, error) { return d, nil } }
	}
	const conf = "etc/cni/net.d/10-culvert.conflist"
	foreign := map[string]string{"etc/cni/net.d/05-cilium.conflist": `{"plugins":[{"type":"cilium-cni"}]}`}
	for _, c := range []doctorCase{
		{name: "no AF_XDP", machine: func(m *machine) { m.dataplane = fails(syscall.EAFNOSUPPORT) }, check: "dataplane", state: stateFail, text: "CONFIG_XDP_SOCKETS"},
		{name: "may not", machine: func(m *machine) { m.dataplane = fails(syscall.EPERM) }, check: "dataplane", state: stateFail, text: "as culvertd runs"},
		{name: "no memory", machine: func(m *machine) { m.dataplane = fails(syscall.ENOBUFS) }, check: "dataplane", state: stateFail, text: "ulimit -l"},
		{name: "no tun", machine: func(m *machine) { m.tap = fails(syscall.ENOENT) }, check: "tap", state: stateFail, text: "modprobe tun"},
		{name: "no vxlan", machine: func(m *machine) { m.vxlan = fails(syscall.EOPNOTSUPP) }, check: "vxlan", state: stateWarn, text: "modprobe vxlan"},
		{name: "no capabilities", edit: map[string]string{"proc/self/status": "CapEff:\t0000000000000000\n"}, check: "capabilities", state: stateWarn, text: "CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN"},
		{name: "old capabilities", edit: map[string]string{"proc/self/status": "CapEff:\t0000000000203000\n"}, check: "capabilities", state: stateWarn, text: "CAP_IPC_LOCK"},
		{name: "no jit", edit: map[string]string{"proc/sys/net/core/bpf_jit_enable": "0"}, check: "bpf jit", state: stateWarn, text: "off"},

		{name: "link down", status: func(s *api.Status) { s.Uplinks[0].State = "DOWN" }, check: "uplink eth0", state: stateFail, text: "DOWN"},
		{name: "strict rp_filter", edit: map[string]string{"proc/sys/net/ipv4/conf/all/rp_filter": "1", "proc/sys/net/ipv4/conf/eth0/rp_filter": "0"}, check: "uplink eth0", state: stateWarn, text: "rp_filter"},
		{name: "small mtu", status: func(s *api.Status) { s.Uplinks[0].MTU = 1499 }, check: "uplink eth0", state: stateFail, text: "become 1500"},
		{name: "generic on a NIC", edit: map[string]string{"sys/class/net/eth0/device/vendor": "0x8086"}, check: "uplink eth0", state: stateWarn, text: "generic"},
		{name: "no device", status: func(s *api.Status) { s.Uplinks[0].Name = "eth9" }, check: "uplink eth9", state: stateFail, text: "no such device"},
		{name: "no uplink", status: func(s *api.Status) { s.Uplinks = nil }, check: "uplink", state: stateFail, text: "none"},
		{name: "a NIC", machine: nic(probe.NIC{Driver: "ice", Queues: 2, MaxQueues: 8, NativeXDP: true, ZeroCopy: true, XDPKnown: true}), check: "uplink eth0", state: stateOK, text: "driver ice, 2 of 8 queues, native XDP with zero copy"},
		{name: "a simple NIC", machine: nic(probe.NIC{Driver: "e1000", XDPKnown: true}), check: "uplink eth0", state: stateOK, text: "no native XDP"},
		{name: "another program, before", machine: nic(probe.NIC{Program: 12}), agent: gone, check: "uplink eth0", state: stateFail, text: "XDP program 12"},
		{name: "another program, not held", machine: nic(probe.NIC{Program: 12}), status: func(s *api.Status) { s.Uplinks[0].XDPMode = "" }, check: "uplink eth0", state: stateFail, text: "xdp off"},
		{name: "its own program", machine: nic(probe.NIC{Program: 12}), check: "uplink eth0", state: stateOK, text: "driver"},

		{name: "does not forward", edit: map[string]string{"proc/sys/net/ipv4/ip_forward": "0"}, check: "ip_forward", state: stateFail, text: "net.ipv4.ip_forward=1"},
		{name: "does not forward yet", edit: map[string]string{"proc/sys/net/ipv4/ip_forward": "0"}, agent: gone, check: "ip_forward", state: stateOK, text: "culvertd"},
		{name: "ports of its own", edit: map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "32768\t60999"}, check: "nat ports", state: stateOK, text: "61000-65535"},
		{name: "ports of both", edit: map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "1024\t65535"}, check: "nat ports", state: stateWarn, text: "ip_local_reserved_ports=61000-65535"},
		{name: "ports of both, reserved", edit: map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "1024\t65535", "proc/sys/net/ipv4/ip_local_reserved_ports": "80,61000-65535"}, check: "nat ports", state: stateOK, text: "reserved"},
		{name: "other ports of both", edit: map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "32768\t60999"}, agent: func(e *examined) { e.ports = "60000-62000" }, check: "nat ports", state: stateWarn, text: "60000-62000"},
		{name: "flannel", machine: devices(probe.Device{Name: "flannel.1", Kind: "vxlan", VNI: 1, Port: 8472}), check: "other networks", state: stateWarn, text: "flannel is or was here: flannel.1"},
		{name: "the same tunnel", machine: devices(probe.Device{Name: "vxlan.calico", Kind: "vxlan", VNI: 4096, Port: 4789}), check: "other networks", state: stateFail, text: "ip link del vxlan.calico"},
		{name: "Calico's pods", machine: devices(probe.Device{Name: "cali0123456789a"}), check: "other networks", state: stateWarn, text: "Calico"},
		{name: "pods of calico mode", machine: devices(probe.Device{Name: "cali0123456789a"}), status: func(s *api.Status) { s.Mode = "calico" }, check: "other networks", state: stateOK, text: "no devices"},

		{name: "another CNI", edit: foreign, check: "cni", state: stateFail, text: "05-cilium.conflist, which is not Culvert's"},
		{name: "another CNI, before", edit: foreign, agent: gone, check: "cni", state: stateWarn, text: "05-cilium.conflist"},
		{name: "another one behind", edit: map[string]string{"etc/cni/net.d/87-podman.conflist": "{}"}, check: "cni", state: stateOK, text: "takes 10-culvert.conflist"},
		{name: "not there", agent: func(e *examined) { e.conf = "11-culvert.conflist" }, check: "cni", state: stateFail, text: "no 11-culvert.conflist"},
		{name: "nothing there", machine: func(m *machine) { os.Remove(filepath.Join(m.root, conf)) }, agent: func(e *examined) { e.conf = "" }, check: "cni", state: stateWarn, text: "is empty"},
		{name: "no such directory", agent: func(e *examined) { e.confDir = "/none" }, check: "cni", state: stateWarn, text: "mount"},
	} {
		c.run(t)
	}
}

// TestDoctorPeers: the underlay, the tunnel and the size of what gets through are told apart.
func TestDoctorPeers(t *testing.T) {
	peer := apitest.New().PeerList[0]
	dst, tunnel := netip.MustParseAddr(peer.Dst), netip.MustParseAddr(peer.Address)
	pings := func(err func(to netip.Addr, size int) error) func(*machine) {
		return func(m *machine) {
			m.ping = func(_ context.Context, to netip.Addr, size int) error { return err(to, size) }
		}
	}
	silent := func(to ...netip.Addr) func(*machine) {
		return pings(func(a netip.Addr, _ int) error {
			if slices.Contains(to, a) {
				return probe.ErrNoAnswer
			}
			return nil
		})
	}
	narrow := pings(func(_ netip.Addr, size int) error {
		if size > 1400 {
			return probe.ErrNoAnswer
		}
		return nil
	})
	change := func(f func(*api.Peer)) func(*examined) { return func(e *examined) { f(&e.peers[0]) } }
	name := "peer " + peer.Name
	for _, c := range []doctorCase{
		{name: "all is well", check: "peers", state: stateOK, text: "1 of 1 asked, of 1 in all"},
		{name: "away", machine: silent(dst, tunnel), check: name, state: stateFail, text: "is the node up"},
		{name: "no tunnel", machine: silent(tunnel), check: name, state: stateFail, text: "UDP port 4789 must be open"},
		{name: "no pings", machine: silent(dst), check: "peers", state: stateOK, text: "1 of 1"},
		{name: "no pings, no tunnel to ask", machine: silent(dst), agent: change(func(p *api.Peer) { p.Encap = "ipip" }), check: name, state: stateWarn, text: "says nothing"},
		{name: "narrow", machine: narrow, agent: change(func(p *api.Peer) { p.PMTU = 0 }), check: name, state: stateFail, text: "packets of 1500 bytes"},
		{name: "narrow, known", machine: narrow, agent: change(func(p *api.Peer) { p.PMTU = 1400 }), check: name, state: stateWarn, text: "takes 1400 bytes"},
		{name: "wide enough for IPIP", machine: pings(func(_ netip.Addr, size int) error {
			if size > 1470 {
				return probe.ErrNoAnswer
			}
			return nil
		}), agent: change(func(p *api.Peer) { p.Encap = "ipip" }), check: "peers", state: stateOK, text: "full packets"},
		{name: "unresolved", agent: change(func(p *api.Peer) { p.State = "unresolved" }), check: name, state: stateFail, text: "ip route get"},
		{name: "ping is refused", machine: pings(func(netip.Addr, int) error { return syscall.EPERM }), agent: change(func(p *api.Peer) { p.Address = "" }), check: name, state: stateWarn, text: "not permitted"},
	} {
		c.run(t)
	}
	s := apitest.New().State
	m := fakeMachine(t, nil)
	if all := m.checkPeers(t.Context(), &s, make([]api.Peer, 5000), 0); len(all) != 1 || all[0].Found != "5000, none asked" {
		t.Errorf("%+v", all)
	}
	many := slices.Repeat([]api.Peer{peer}, 5000)
	if all := m.checkPeers(t.Context(), &s, many, 16); len(all) != 1 || !strings.HasPrefix(all[0].Found, "16 of 16 asked, of 5000") {
		t.Errorf("%+v", all)
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
