// Package config reads culvertd's configuration: a YAML file, environment
// variables over it, and the documented defaults below both.
//
// Every mistake is one line that names where it is, the key, what is wrong and
// what to do: FILE:LINE: key: what; what to do. Nothing here looks at the
// machine, except for the host's name.
package config

import (
	"net/netip"
	"strings"
	"time"
)

// Config is the configuration in force. Load makes it; it is then read only.
type Config struct {
	// Node is the Kubernetes node's name.
	Node string
	// Source is dir:PATH or kube; see Dir.
	Source     string
	Kubeconfig string
	Mode       string // auto, native, calico or flannel
	// Uplinks are the NICs; empty: the device of the default route.
	Uplinks []string
	Native  Native
	VXLAN   VXLAN
	// ServiceCIDRs are the ranges of Services' addresses; those that are in no Service
	// object are known by them.
	ServiceCIDRs []netip.Prefix
	NAT          NAT
	// MTU is the pods'; 0: the smallest uplink MTU less the tunnel's overhead.
	MTU int
	// MSSClamp lowers the maximum segment size of TCP connections through tunnels
	// to what fits.
	MSSClamp bool
	// Workers is the number of worker threads; 0: one per uplink queue, at
	// most GOMAXPROCS.
	Workers  int
	Poll     string // busy, adaptive or interrupt
	XDP      XDP
	Flows    Flows
	IPAM     IPAM
	Socket   string
	StateDir string
	// Listen is HOST:PORT of metrics and health.
	Listen string
	CNI    CNI

	file    string
	from    map[string]string // by key: file or environment
	where   map[string]string // by key: FILE:LINE or the variable
	unknown []string          // CULVERT_ variables that set nothing
}

// Native configures the native mode.
type Native struct {
	Encap        string // vxlan, ipip or none
	CrossSubnet  bool
	ClusterCIDRs []netip.Prefix
}

// VXLAN configures the tunnels of the native mode.
type VXLAN struct {
	VNI  uint32
	Port uint16
}

// NAT configures how pods' packets leave the cluster.
type NAT struct {
	// Outgoing is auto, as the cluster says, or off.
	Outgoing string
	// Low and High are the first and the last port of the node's that they leave by.
	Low, High uint16
	// Exclude are further destinations to which pods keep their addresses.
	Exclude []netip.Prefix
}

// XDP configures how frames are taken from devices.
type XDP struct {
	Mode      string // auto, native or generic
	ZeroCopy  string // auto, on or off
	FrameSize int
	RingSize  int
}

// CNI configures what the container runtime is told of the plugin.
type CNI struct {
	// ConfDir is the runtime's directory of CNI configurations; empty: somebody else
	// writes there.
	ConfDir string
	// Conf is the file that is put there, under its own name.
	Conf string
}

// Flows configures the flow table.
type Flows struct{ Capacity int }

// IPAM configures the pods' addresses.
type IPAM struct {
	// Cooldown is how long a released address is not given while there is another.
	Cooldown time.Duration
}

// Where a setting comes from.
const (
	FromDefault     = "default"
	FromFile        = "file"
	FromEnvironment = "environment"
)

// Setting is one key of the configuration in force, for display.
type Setting struct {
	Key   string // dotted, as in xdp.mode
	Value any
	From  string // default, file or environment
}

// Settings lists every key in the order of the documentation.
func (c *Config) Settings() []Setting {
	out := make([]Setting, len(schema))
	for i, k := range schema {
		out[i] = Setting{k.name, k.get(c), c.From(k.name)}
	}
	return out
}

// From says where a key's value comes from: default, file or environment.
func (c *Config) From(key string) string {
	if from := c.from[key]; from != "" {
		return from
	}
	return FromDefault
}

// File is the configuration file's name, empty without one.
func (c *Config) File() string { return c.file }

// SourceKube is the source that is an API server.
const SourceKube = "kube"

// Dir is the manifest directory of a dir: source.
func (c *Config) Dir() (path string, ok bool) {
	return strings.CutPrefix(c.Source, dirScheme)
}

const dirScheme = "dir:"

// defaults is the configuration of an empty file, without the node's name.
func defaults() *Config {
	return &Config{
		Source: "dir:/etc/culvert/manifests",
		Mode:   "auto",
		Native: Native{Encap: "vxlan", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}},
		VXLAN:  VXLAN{VNI: 4096, Port: 4789},

		ServiceCIDRs: []netip.Prefix{},
		NAT:          NAT{Outgoing: "auto", Low: 61000, High: 65535, Exclude: []netip.Prefix{}},

		Poll:     "adaptive",
		XDP:      XDP{Mode: "auto", ZeroCopy: "auto", FrameSize: 4096, RingSize: 2048},
		Flows:    Flows{Capacity: 262144},
		IPAM:     IPAM{Cooldown: 30 * time.Second},
		Socket:   "/run/culvert/culvert.sock",
		StateDir: "/var/lib/culvert",
		Listen:   "127.0.0.1:9476",
		CNI:      CNI{Conf: "/etc/culvert/10-culvert.conflist"},
		from:     map[string]string{},
		where:    map[string]string{},
	}
}
