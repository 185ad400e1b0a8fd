// Package lab builds a small cluster on one machine: nodes and their pods in
// network namespaces of their own, culvertd running for real on the nodes, the
// pods attached through the real culvert-cni. It is what `culvert lab` and
// `make demo` run.
//
// A node is of one of three kinds: Culvert, or a Linux kernel VXLAN node set up
// as Flannel or as Calico does it, to show that they exchange packets. The
// nodes are joined by a veth pair (two nodes) or by a bridge in a namespace of
// its own. Nothing is made in the namespace of the caller.
//
// Every name begins with the lab's name, cvl-<random>. What a lab consists of
// is kept in a file under /run as it is built, so that Down can remove it from
// another process, or after this one was killed.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Kind is what a node runs.
type Kind string

// The kinds of nodes.
const (
	Culvert Kind = "culvert" // culvertd
	Flannel Kind = "flannel" // the kernel, as flanneld sets it up
	Calico  Kind = "calico"  // the kernel, as Calico sets it up
)

// Kinds are the values of Options.Peer, for help and completion.
var Kinds = []Kind{Culvert, Flannel, Calico}

// Family is what addresses there are.
type Family string

// The families of pods; an underlay has one of the first two.
const (
	IPv4 Family = "4"
	IPv6 Family = "6"
	Dual Family = "dual"
)

// Families are the values of Options.Family, for help and completion.
var Families = []Family{IPv4, IPv6, Dual}

// Options shape a lab. The zero value is two Culvert nodes with two pods each.
type Options struct {
	Nodes  int  // 1 to 26; 0 = 2
	Pods   int  // on each node, 1 to 100; 0 = 2
	Peer   Kind // what the last node of several is; empty = Culvert
	Bridge bool // join even two nodes by a bridge
	MTU    int  // of the underlay; 0 = 1500
	// Family is what addresses pods have, Underlay what addresses nodes have;
	// empty = IPv4. An underlay is of one family.
	Family, Underlay Family
	// Interfaces are what the pods of a Culvert node have, in turn: "veth" or
	// "tap"; none = veth.
	Interfaces []string
	// Encap is native.encap: vxlan, the default, ipip or none; CrossSubnet is
	// native.crossSubnet. Kernel nodes know vxlan, and with none the routes.
	Encap       string
	CrossSubnet bool
	// NICs are the hardware addresses of devices of the caller's namespace, one
	// for each node. The nodes have them in place of veths, and Down gives them
	// back; who joins them is the caller's business.
	NICs []string

	// BinDir holds culvertd, culvert-cni and culvert; empty = the directory
	// of the running program.
	BinDir string
	// Config adds keys to culvertd's configuration, as lines of YAML.
	Config string
	// Source says where culvertd of a node reads the objects from, as lines of YAML; nil:
	// from Lab.ManifestDir. It is called before each start, when namespaces and
	// manifests are there.
	Source func(l *Lab, n *Node) (string, error)
	// Progress is told what is being done, a line each; nil = nobody.
	Progress io.Writer

	// Cluster is a cluster to build after, in place of Nodes, Peer and Family.
	Cluster *Cluster
	// NodeKinds says what every node is, in place of Nodes and Peer: for tests.
	NodeKinds []Kind
}

// Lab is what was built. Its fields are for reading; they are kept as JSON.
type Lab struct {
	Name    string    `json:"name"`
	Dir     string    `json:"dir"` // configuration, state, logs
	BinDir  string    `json:"binDir"`
	Created time.Time `json:"created"`
	MTU     int       `json:"mtu"` // of the underlay
	Encap   string    `json:"encap"`
	VNI     uint32    `json:"vni"`
	Port    uint16    `json:"port"`
	Bridge  string    `json:"bridge,omitempty"` // namespace of the bridge
	NICs    []string  `json:"nics,omitempty"`   // Options.NICs
	Nodes   []*Node   `json:"nodes"`

	// Clusters are the pods' networks, one of each family that pods have.
	Clusters []netip.Prefix `json:"clusters"`
	// CrossSubnet is Options.CrossSubnet.
	CrossSubnet bool `json:"crossSubnet,omitempty"`

	progress io.Writer
	config   string
	cluster  *Cluster
	source   func(l *Lab, n *Node) (string, error)
}

// Node is a node of the lab.
type Node struct {
	Name    string       `json:"name"`
	Kind    Kind         `json:"kind"`
	Netns   string       `json:"netns"`   // name under /run/netns
	Addr    netip.Addr   `json:"addr"`    // on the underlay
	PodCIDR netip.Prefix `json:"podCIDR"` // the first of PodCIDRs
	VTEPMAC string       `json:"vtepMAC"`
	Pods    []*Pod       `json:"pods"`

	// PodCIDRs are one of each family that pods have, IPv4 first.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`

	// Of Culvert nodes: the agent's files and process.
	Socket    string `json:"socket,omitempty"`
	LogFile   string `json:"logFile,omitempty"`
	PID       int    `json:"pid,omitempty"`
	StartTime uint64 `json:"startTime,omitempty"` // tells a process from a later one with the same number

	exited chan struct{} // closed when the process has ended, if it is our child
}

// Pod is a pod of the lab.
type Pod struct {
	Name        string     `json:"name"`
	Node        string     `json:"node"`
	Netns       string     `json:"netns"` // name under /run/netns
	ContainerID string     `json:"containerID"`
	Interface   string     `json:"interface,omitempty"` // veth or tap, of pods of Culvert nodes
	Addr        netip.Addr `json:"addr"`                // the first of Addrs

	// Addrs are one of each family of the lab's pods, IPv4 first.
	Addrs []netip.Addr `json:"addrs"`

	Ports []PortMapping `json:"ports,omitempty"` // what ADD asks for, of a Culvert node's pod

	asked netip.Addr // what is asked for at ADD, if anything
}

// PortMapping is a port of the node that is to lead to a pod, as a runtime asks for it.
type PortMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Addr6 is the pod's IPv6 address; invalid if it has none.
func (p *Pod) Addr6() netip.Addr {
	for _, a := range p.Addrs {
		if a.Is6() {
			return a
		}
	}
	return netip.Addr{}
}

// Namespace is the Kubernetes namespace of the pods.
const Namespace = "lab"

// Up builds a lab. When it fails or ctx ends, what was built is taken down.
// It needs root.
func Up(ctx context.Context, opts Options) (l *Lab, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab makes network namespaces: run it as root (sudo)")
	}
	if l, err = plan(opts); err != nil {
		return nil, err
	}
	if err := l.findPrograms(); err != nil {
		return nil, err
	}
	if l.Dir, err = os.MkdirTemp("", l.Name+"-"); err != nil {
		return nil, fmt.Errorf("lab directory: %w", err)
	}
	built := false
	defer func() { // Options.Source may end a test's goroutine
		if err != nil || !built {
			err = errors.Join(err, l.Down())
			l = nil
		}
	}()
	if err := l.save(); err != nil {
		return l, err
	}
	for _, step := range []struct {
		what   string
		needed bool
		do     func(context.Context) error
	}{
		{"namespaces and underlay", true, l.buildUnderlay},
		{"kernel nodes and their pods", l.has(Flannel) || l.has(Calico), l.buildKernelNodes},
		{"culvertd on its nodes", l.has(Culvert), l.startAgents},
		{"pods through culvert-cni", l.has(Culvert), l.addPods},
	} {
		if !step.needed {
			continue
		}
		l.say("lab %s: %s", l.Name, step.what)
		if err := step.do(ctx); err != nil {
			return l, fmt.Errorf("lab %s: %s: %w", l.Name, step.what, err)
		}
		if err := errors.Join(l.save(), ctx.Err()); err != nil {
			return l, err
		}
	}
	built = true
	return l, nil
}

// has reports whether a node is of that kind.
func (l *Lab) has(k Kind) bool {
	return slices.ContainsFunc(l.Nodes, func(n *Node) bool { return n.Kind == k })
}

// findPrograms makes sure that what will be run is there.
func (l *Lab) findPrograms() error {
	for _, n := range l.Nodes {
		if n.Kind != Culvert {
			continue
		}
		for _, name := range []string{"culvertd", "culvert-cni"} {
			if _, err := os.Stat(l.program(name)); err != nil {
				return fmt.Errorf("the lab runs %s: %w; `make build` puts all programs into bin/", name, err)
			}
		}
	}
	return nil
}

// program is the path of one of Culvert's programs.
func (l *Lab) program(name string) string { return filepath.Join(l.BinDir, name) }

// say reports progress.
func (l *Lab) say(format string, args ...any) {
	if l.progress != nil {
		fmt.Fprintf(l.progress, format+"\n", args...)
	}
}

// AllPods are the pods of every node, in order.
func (l *Lab) AllPods() []*Pod {
	var out []*Pod
	for _, n := range l.Nodes {
		out = append(out, n.Pods...)
	}
	return out
}
