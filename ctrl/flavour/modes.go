package flavour

import (
	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

// The modes.
const (
	ModeNative  = "native"
	ModeFlannel = "flannel"
	ModeCalico  = "calico"
)

// Want is the desired state in a mode.
func Want(mode string, objs *source.Objects, opt Options) (d *Desired) {
	switch mode {
	case ModeFlannel:
		d = Flannel(objs, opt)
	case ModeCalico:
		d = Calico(objs, opt)
	default:
		d = Native(objs, opt)
	}
	d.outgoing(opt)
	d.Services = opt.Cache.services(objs.Services, opt.ServiceCIDRs)
	return d
}

// Detect says which mode the objects look like: flannel by annotations, calico
// by IP pools, flannel once more by its ConfigMap where no node has joined yet,
// else native.
func Detect(objs *source.Objects) string {
	for _, n := range objs.Nodes {
		if n.Annotations[flannelKey("kube-subnet-manager")] == "true" {
			return ModeFlannel
		}
	}
	if len(objs.IPPools) > 0 {
		return ModeCalico
	}
	if flannelConfigMap(objs) != nil {
		return ModeFlannel
	}
	return ModeNative
}

// Knows reports whether the objects have a Node of that name.
func Knows(objs *source.Objects, node string) bool {
	for _, n := range objs.Nodes {
		if n.Name == node {
			return true
		}
	}
	return false
}

// labelsOf are a node's labels, which pools select by.
func labelsOf(n *corev1.Node) map[string]string {
	if n == nil {
		return nil
	}
	return n.Labels
}
