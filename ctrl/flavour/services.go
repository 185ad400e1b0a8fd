package flavour

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"culvert/ctrl/source"
)

// frontend is what Services are reached at, and the objects that it was read from.
type frontend struct {
	of  []*corev1.Service
	all []netip.Prefix
}

// services are the prefixes that Services are reached at: the ranges, and of what is in
// none of them the cluster addresses, external addresses and load balancers' addresses
// of each Service, in order. The same list of objects gives the same slice.
func (k *Cache) services(objs []*corev1.Service, ranges []netip.Prefix) []netip.Prefix {
	if k != nil && k.frontend.all != nil && sameList(k.frontend.of, objs) {
		return k.frontend.all
	}
	all := slices.Clone(ranges)
	for _, s := range objs {
		for _, a := range addressesOf(s) {
			if !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(a) }) {
				all = append(all, hostPrefix(a))
			}
		}
	}
	slices.SortFunc(all, comparePrefixes)
	all = slices.Compact(all)
	if k != nil {
		k.frontend = frontend{objs, all}
	}
	return all
}

// addressesOf are what a Service is reached at, of what kube-proxy translates.
func addressesOf(s *corev1.Service) (all []netip.Addr) {
	add := func(text string) {
		if a, what := source.ParseAddr(text); what == "" {
			all = append(all, a)
		}
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	add(s.Spec.ClusterIP)
	for _, ip := range s.Spec.ClusterIPs {
		add(ip)
	}
	for _, ip := range s.Spec.ExternalIPs {
		add(ip)
	}
	for _, in := range s.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP {
			add(in.IP)
		}
	}
	return all
}
