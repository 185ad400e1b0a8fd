package flavour

import (
	"cmp"
	"slices"

	"culvert/ctrl/source"
)

// Calico's defaults (felix/config/config_params.go).
const (
	calicoVNI  = 4096
	calicoPort = 4789
)

// felix reads the FelixConfiguration of the cluster, and then that of this node,
// which goes before it.
func (c *calico) felix() {
	c.VNI, c.Port = calicoVNI, calicoPort
	all := slices.Clone(c.objs.FelixConfigurations)
	slices.SortStableFunc(all, func(a, b *source.FelixConfiguration) int { return cmp.Compare(len(a.Name), len(b.Name)) })
	for _, name := range []string{"default", "node." + c.opt.Node} {
		for _, f := range all {
			if f.Name == name {
				c.felixObject(f)
			}
		}
	}
}

func (c *calico) felixObject(f *source.FelixConfiguration) {
	ref := source.Ref{Kind: "FelixConfiguration", Name: f.Name}
	set := func(key string, value *int, least, most int, to func(int)) {
		switch {
		case value == nil:
		case *value < least || *value > most:
			c.conflict(ref, "spec."+key, "%d is out of range, so it is not used; write a number from %d to %d", *value, least, most)
		default:
			to(*value)
		}
	}
	set("vxlanVNI", f.Spec.VXLANVNI, 1, 1<<24-1, func(v int) { c.VNI = uint32(v) })
	set("vxlanPort", f.Spec.VXLANPort, 1, 65535, func(v int) { c.Port = uint16(v) })
	// 0 is Felix's own computation.
	set("vxlanMTU", f.Spec.VXLANMTU, 0, 65535, func(v int) { c.mtus[0] = v })
	set("vxlanMTUV6", f.Spec.VXLANMTUV6, 0, 65535, func(v int) { c.mtus[1] = v })
	set("ipipMTU", f.Spec.IPIPMTU, 0, 65535, func(v int) { c.mtuIPIP = v })
}
