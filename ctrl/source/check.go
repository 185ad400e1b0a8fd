package source

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// Annotations of Node objects in the native mode.
const (
	AnnotationVTEPMAC  = "culvert.dev/vtep-mac"
	AnnotationPublicIP = "culvert.dev/public-ip"
)

func checkNode(n *corev1.Node) *finding {
	var cidrs []netip.Prefix
	for i, s := range n.Spec.PodCIDRs {
		p, what := ParseCIDR(s)
		if what != "" {
			return found(what, "spec", "podCIDRs", i)
		}
		for j, other := range cidrs {
			if other.Overlaps(p) {
				return found(fmt.Sprintf("%s overlaps podCIDRs[%d], %s; keep one of them", p, j, other), "spec", "podCIDRs", i)
			}
		}
		cidrs = append(cidrs, p)
	}
	if s := n.Spec.PodCIDR; s != "" {
		p, what := ParseCIDR(s)
		if what == "" && len(cidrs) > 0 && p != cidrs[0] {
			what = fmt.Sprintf("%s is not podCIDRs[0], %s; make them the same", p, cidrs[0])
		}
		if what != "" {
			return found(what, "spec", "podCIDR")
		}
	}
	for i, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		if _, what := ParseAddr(a.Address); what != "" {
			return found(what, "status", "addresses", i, "address")
		}
	}
	if s, ok := n.Annotations[AnnotationVTEPMAC]; ok {
		if _, what := ParseMAC(s); what != "" {
			return found(what, "metadata", "annotations", AnnotationVTEPMAC)
		}
	}
	if s, ok := n.Annotations[AnnotationPublicIP]; ok {
		if _, what := ParseAddr(s); what != "" {
			return found(what, "metadata", "annotations", AnnotationPublicIP)
		}
	}
	return nil
}

func checkPod(p *corev1.Pod) *finding {
	if s := p.Status.PodIP; s != "" {
		if _, what := ParseAddr(s); what != "" {
			return found(what, "status", "podIP")
		}
		if ips := p.Status.PodIPs; len(ips) > 0 && ips[0].IP != s {
			return found(fmt.Sprintf("%s is not podIPs[0], %s; make them the same", s, ips[0].IP), "status", "podIP")
		}
	}
	for i, ip := range p.Status.PodIPs {
		if _, what := ParseAddr(ip.IP); what != "" {
			return found(what, "status", "podIPs", i, "ip")
		}
	}
	return nil
}

func checkService(s *corev1.Service) *finding {
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		if _, what := ParseAddr(ip); what != "" {
			return found(what, "spec", "clusterIP")
		}
	}
	for i, ip := range s.Spec.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			continue
		}
		if _, what := ParseAddr(ip); what != "" {
			return found(what, "spec", "clusterIPs", i)
		}
	}
	for i, p := range s.Spec.Ports {
		if p.Port < 1 || p.Port > 65535 {
			return found(fmt.Sprintf("%d is out of range; write a number from 1 to 65535", p.Port), "spec", "ports", i, "port")
		}
	}
	return nil
}

func checkEndpointSlice(s *discoveryv1.EndpointSlice) *finding {
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
	case discoveryv1.AddressTypeFQDN:
		return nil
	default:
		return found(fmt.Sprintf("%q is no address type; write IPv4, IPv6 or FQDN", s.AddressType), "addressType")
	}
	for i, ep := range s.Endpoints {
		for j, text := range ep.Addresses {
			a, what := ParseAddr(text)
			if what == "" && a.Is4() != (s.AddressType == discoveryv1.AddressTypeIPv4) {
				what = fmt.Sprintf("%s is no %s address, which addressType says; use one slice for each family", a, s.AddressType)
			}
			if what != "" {
				return found(what, "endpoints", i, "addresses", j)
			}
		}
	}
	return nil
}

func checkNetworkPolicy(p *networkingv1.NetworkPolicy) *finding {
	for i, t := range p.Spec.PolicyTypes {
		if t != networkingv1.PolicyTypeIngress && t != networkingv1.PolicyTypeEgress {
			return found(fmt.Sprintf("%q is no direction; write Ingress or Egress", t), "spec", "policyTypes", i)
		}
	}
	for i, r := range p.Spec.Ingress {
		if f := checkPeers(r.From, "spec", "ingress", i, "from"); f != nil {
			return f
		}
	}
	for i, r := range p.Spec.Egress {
		if f := checkPeers(r.To, "spec", "egress", i, "to"); f != nil {
			return f
		}
	}
	return nil
}

func checkPeers(peers []networkingv1.NetworkPolicyPeer, at ...any) *finding {
	for i, p := range peers {
		if p.IPBlock == nil {
			continue
		}
		here := append(slices.Clone(at), i, "ipBlock")
		block, err := netip.ParsePrefix(p.IPBlock.CIDR)
		if err != nil {
			return found(fmt.Sprintf("%q is no CIDR; write ADDRESS/LENGTH such as 10.0.0.0/8", p.IPBlock.CIDR), append(here, "cidr")...)
		}
		for j, s := range p.IPBlock.Except {
			except, err := netip.ParsePrefix(s)
			if err != nil || !block.Contains(except.Addr()) || except.Bits() < block.Bits() {
				return found(fmt.Sprintf("%q is no CIDR inside %s; write one that is", s, block), append(here, "except", j)...)
			}
		}
	}
	return nil
}

func checkIPPool(p *IPPool) *finding {
	if _, what := ParseCIDR(p.Spec.CIDR); what != "" {
		return found(what, "spec", "cidr")
	}
	modes := []string{"", "Never", "Always", "CrossSubnet"}
	if !slices.Contains(modes, p.Spec.VXLANMode) {
		return found(fmt.Sprintf("%q is no mode; write Never, Always or CrossSubnet", p.Spec.VXLANMode), "spec", "vxlanMode")
	}
	if !slices.Contains(modes, p.Spec.IPIPMode) {
		return found(fmt.Sprintf("%q is no mode; write Never, Always or CrossSubnet", p.Spec.IPIPMode), "spec", "ipipMode")
	}
	off := func(mode string) bool { return mode == "" || mode == "Never" }
	if !off(p.Spec.VXLANMode) && !off(p.Spec.IPIPMode) {
		return found("both vxlanMode and ipipMode are on; set one of them to Never", "spec", "ipipMode")
	}
	return nil
}

func checkBlockAffinity(b *BlockAffinity) *finding {
	if _, what := ParseCIDR(b.Spec.CIDR); what != "" {
		return found(what, "spec", "cidr")
	}
	return nil
}

func checkIPAMBlock(b *IPAMBlock) *finding {
	if _, what := ParseCIDR(b.Spec.CIDR); what != "" {
		return found(what, "spec", "cidr")
	}
	if a := b.Spec.Affinity; a != nil && !strings.Contains(*a, ":") {
		return found(fmt.Sprintf("%q is no affinity; write host:NODE", *a), "spec", "affinity")
	}
	for i, at := range b.Spec.Allocations {
		if at != nil && (*at < 0 || *at >= len(b.Spec.Attributes)) {
			return found(fmt.Sprintf("%d is no index of attributes, which has %d", *at, len(b.Spec.Attributes)), "spec", "allocations", i)
		}
	}
	return nil
}

func checkFelixConfiguration(f *FelixConfiguration) *finding {
	for _, v := range []struct {
		key         string
		value       *int
		least, most int
	}{
		{"vxlanVNI", f.Spec.VXLANVNI, 1, 1<<24 - 1}, {"vxlanPort", f.Spec.VXLANPort, 1, 65535},
		{"vxlanMTU", f.Spec.VXLANMTU, 0, 65535}, {"vxlanMTUV6", f.Spec.VXLANMTUV6, 0, 65535}, {"ipipMTU", f.Spec.IPIPMTU, 0, 65535},
	} {
		if v.value != nil && (*v.value < v.least || *v.value > v.most) {
			return found(fmt.Sprintf("%d is out of range; write a number from %d to %d", *v.value, v.least, v.most), "spec", v.key)
		}
	}
	return nil
}
