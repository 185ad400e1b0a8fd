package flavour

// outgoing says where the cluster's pods are, if the mode has not said it, and where those
// of them are whose packets leave the cluster with the node's address. Calico's pools say
// both, the disabled ones too (felix/dataplane/linux/masq_mgr.go); elsewhere every pod's
// do, as with flanneld's --ip-masq.
func (d *Desired) outgoing(opt Options) {
	if opt.NAT.High != 0 {
		d.NAT = NAT{Exclude: opt.NAT.Exclude, Low: opt.NAT.Low, High: opt.NAT.High}
	}
	if d.Mode == ModeCalico {
		for _, p := range d.Pools {
			d.Networks = append(d.Networks, p.CIDR)
			if p.NATOutgoing {
				d.NAT.Sources = append(d.NAT.Sources, p.CIDR)
			}
		}
		return
	}
	if d.Mode == ModeNative {
		d.Networks = append(d.Networks, opt.ClusterCIDRs...)
	}
	if d.Local == nil {
		return
	}
	d.Networks = append(d.Networks, d.Local.PodCIDRs...)
	d.NAT.Sources = d.Local.PodCIDRs
}
