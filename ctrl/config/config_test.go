package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// documented is the example of docs/configuration.md, with a source this version has.
const documented = `node: worker-1              # Kubernetes node name; default $NODE_NAME, then the hostname
source: dir:/etc/culvert/manifests   # or kube
kubeconfig: ""              # kube: default in-cluster, then $KUBECONFIG
mode: auto
uplinks: [eth0]             # default: the device of the default route
native: {encap: vxlan, crossSubnet: false, clusterCIDRs: [10.244.0.0/16]}
vxlan: {vni: 4096, port: 4789}
serviceCIDRs: []
nat: {outgoing: auto, ports: 61000-65535, exclude: []}
mtu: 0
mssClamp: false
workers: 0
poll: adaptive
xdp: {mode: auto, zeroCopy: auto, frameSize: 4096, ringSize: 2048}
flows: {capacity: 262144}
ipam: {cooldown: 30s}
socket: /run/culvert/culvert.sock
stateDir: /var/lib/culvert
listen: 127.0.0.1:9476
cni: {confDir: "", conf: /etc/culvert/10-culvert.conflist}
`

// Every encapsulation is accepted, and a pod MTU as large as it leaves room for.
func TestEncapsulations(t *testing.T) {
	for native, most := range map[string]int{
		"{encap: vxlan}": 1450, "{encap: ipip}": 1480, "{encap: none}": 1500,
		"{encap: vxlan, crossSubnet: true}": 1450, "{encap: ipip, crossSubnet: true}": 1480,
	} {
		for mtu := most; mtu <= most+1; mtu++ {
			c, err := Parse("c.yaml", fmt.Appendf(nil, "node: n\nnative: %s\nmtu: %d\n", native, mtu), nil)
			if err != nil {
				t.Errorf("%s: %v", native, err)
				continue
			}
			if err := c.CheckUplinkMTU("eth0", 1500); (err == nil) != (mtu == most) {
				t.Errorf("%s with MTU %d over 1500: %v", native, mtu, err)
			}
		}
	}
}

// The agent can bind the longest path that passes (apiserver's tests bind it).
func TestLongestSocketPath(t *testing.T) {
	if _, err := Parse("c.yaml", []byte("socket: /"+strings.Repeat("x", 105)+"\n"), []string{"NODE_NAME=n"}); err != nil {
		t.Error(err)
	}
}

func TestDocumentedExampleIsTheDefaults(t *testing.T) {
	given, err := Parse("c.yaml", []byte(documented), nil)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := Parse("c.yaml", nil, []string{"NODE_NAME=worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	empty.Uplinks = []string{"eth0"}
	for i, s := range given.Settings() {
		if e := empty.Settings()[i]; !reflect.DeepEqual(s.Value, e.Value) {
			t.Errorf("%s: default %v, documented %v", s.Key, e.Value, s.Value)
		}
		if s.From != FromFile {
			t.Errorf("%s comes from %q, want the file", s.Key, s.From)
		}
	}
	if empty.From("mtu") != FromDefault || empty.ClusterCIDRsGiven() || !given.ClusterCIDRsGiven() {
		t.Error("where settings come from is wrong")
	}
}

func TestEveryValueArrives(t *testing.T) {
	c, err := Parse("c.yaml", []byte(`
source: kube
kubeconfig: /root/.kube/config
mode: native
uplinks:
- ens3
- ens4
native:
  clusterCIDRs: [10.1.0.0/16, "fd00:1::/48"]
vxlan: {vni: 16777215, port: 8472}
serviceCIDRs: [10.96.0.0/12]
nat: {outgoing: "off", ports: 2000-3000, exclude: [192.0.2.0/24]}
mtu: 8950
mssClamp: true
workers: 2
poll: busy
xdp: {mode: native, zeroCopy: on, frameSize: 2048, ringSize: 64}
flows: {capacity: 1000000}
ipam: {cooldown: 2m}
socket: /tmp/c.sock
stateDir: /tmp/state
listen: "[::]:0"
cni: {confDir: /etc/cni/net.d, conf: /tmp/05-culvert.conflist}
node: a.b-1
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Node: "a.b-1", Source: "kube", Kubeconfig: "/root/.kube/config", Mode: "native", Uplinks: []string{"ens3", "ens4"},
		Native: Native{"vxlan", false, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/48")}},
		VXLAN:  VXLAN{1<<24 - 1, 8472}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, NAT: NAT{"off", 2000, 3000, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, MTU: 8950, MSSClamp: true, Workers: 2, Poll: "busy", XDP: XDP{"native", "on", 2048, 64},
		Flows: Flows{1000000}, IPAM: IPAM{2 * time.Minute}, Socket: "/tmp/c.sock", StateDir: "/tmp/state", Listen: "[::]:0",
		CNI:  CNI{"/etc/cni/net.d", "/tmp/05-culvert.conflist"},
		file: "c.yaml", from: c.from, where: c.where,
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if dir, ok := c.Dir(); ok {
		t.Errorf("directory %q", dir)
	}
	if c, err = Parse("c.yaml", []byte("source: dir:manifests\nnode: n\n"), nil); err != nil {
		t.Fatal(err)
	}
	if dir, ok := c.Dir(); !ok || dir != "manifests" {
		t.Errorf("directory %q, %v", dir, ok)
	}
}

func TestEnvironmentOverFile(t *testing.T) {
	c, err := Parse("c.yaml", []byte("mtu: 1400\nworkers: 3\n"), []string{
		"CULVERT_NODE=n1", "CULVERT_MTU=1300", "CULVERT_UPLINKS=eth0, eth1", "CULVERT_VXLAN_PORT=8472",
		"CULVERT_NATIVE_CROSSSUBNET=false", "CULVERT_NATIVE_CLUSTER_CIDRS=10.0.0.0/9", "CULVERT_STATE_DIR=/s", "CULVERT_STATEDIR=/s",
		"CULVERT_XDP_RINGSIZE=128", "CULVERT_LISTEN=", "CULVERT_SERVICE_HOST=10.96.0.1", "CULVERT_PORT_9476_TCP=tcp://10.96.0.1:9476", "CULVERT_TYPO=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.MTU != 1300 || c.Workers != 3 || len(c.Uplinks) != 2 || c.Uplinks[1] != "eth1" || c.VXLAN.Port != 8472 ||
		c.Native.ClusterCIDRs[0].String() != "10.0.0.0/9" || c.StateDir != "/s" || c.XDP.RingSize != 128 || c.Listen != "127.0.0.1:9476" {
		t.Errorf("got %+v", c)
	}
	if c.From("mtu") != FromEnvironment || c.From("workers") != FromFile {
		t.Error("where settings come from is wrong")
	}
	if got := c.UnknownVariables(); len(got) != 1 || got[0] != "CULVERT_TYPO" {
		t.Errorf("unknown variables %q, want CULVERT_TYPO", got)
	}
}

func TestEveryKeyHasAVariable(t *testing.T) {
	want := map[string]string{
		"node": "CULVERT_NODE", "native.crossSubnet": "CULVERT_NATIVE_CROSSSUBNET CULVERT_NATIVE_CROSS_SUBNET", "stateDir": "CULVERT_STATEDIR CULVERT_STATE_DIR",
		"native.clusterCIDRs": "CULVERT_NATIVE_CLUSTERCIDRS CULVERT_NATIVE_CLUSTER_CIDRS", "vxlan.port": "CULVERT_VXLAN_PORT", "xdp.zeroCopy": "CULVERT_XDP_ZEROCOPY CULVERT_XDP_ZERO_COPY",
	}
	for key, names := range want {
		if got := strings.Join(Variables(key), " "); got != names {
			t.Errorf("%s: %s, want %s", key, got, names)
		}
	}
}

func TestNodeNameDefaults(t *testing.T) {
	host, _ := os.Hostname()
	c, err := Load("", nil)
	if err != nil || c.Node != strings.ToLower(host) {
		t.Errorf("without anything the node is %q, %v; want the hostname %q", c.Node, err, host)
	}
	if c, err = Load("", []string{"NODE_NAME=n7"}); err != nil || c.Node != "n7" {
		t.Errorf("with $NODE_NAME the node is %q, %v", c.Node, err)
	}
	_, err = Load("", []string{"NODE_NAME=N_7"})
	if want := `configuration: node: taken from NODE_NAME: "N_7" is no Kubernetes node name; write the name that kubectl get nodes shows`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "culvert.yaml")
	_, err := Load(path, nil)
	if want := path + ": does not exist; name the configuration file with --config"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := Load(filepath.Dir(path), nil); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Errorf("a directory: %v", err)
	}
	if err := os.WriteFile(path, []byte("node: n\nmtu: 9000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, nil)
	if err != nil || c.File() != path {
		t.Fatalf("got %v, file %q", err, c.File())
	}
	want := path + ":2: mtu: 9000 does not fit through uplink eth0, whose MTU is 1500; write at most 1450, or 0"
	if err := c.CheckUplinkMTU("eth0", 1500); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for _, enough := range []int{9050, 0} {
		if err := c.CheckUplinkMTU("eth0", enough); err != nil {
			t.Error(err)
		}
	}
	want = path + ": uplinks: none found; name one"
	if err := c.Errorf("uplinks", "none found; %s", "name one"); err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// FuzzParse: any text gives a configuration or one line.
func FuzzParse(f *testing.F) {
	f.Add([]byte(documented))
	for _, c := range mistakes {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse("c.yaml", b, []string{"NODE_NAME=n"})
		if err == nil {
			if len(c.Settings()) != len(schema) || c.MTU > maxMTU || c.VXLAN.VNI == 0 {
				t.Fatalf("%q: accepted as %+v", b, c)
			}
			return
		}
		if strings.ContainsAny(err.Error(), "\n\r") || !strings.HasPrefix(err.Error(), "c.yaml:") {
			t.Fatalf("%q: %v", b, err)
		}
	})
}
