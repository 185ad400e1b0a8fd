package source

import "slices"

// keepLists puts the lists of the set before in the place of those that hold the very
// same objects, so that who reads them sees that nothing changed without looking.
func (o *Objects) keepLists(before *Objects) {
	if before == nil {
		return
	}
	keep(&o.Nodes, before.Nodes)
	keep(&o.Pods, before.Pods)
	keep(&o.Namespaces, before.Namespaces)
	keep(&o.Services, before.Services)
	keep(&o.ConfigMaps, before.ConfigMaps)
	keep(&o.EndpointSlices, before.EndpointSlices)
	keep(&o.NetworkPolicies, before.NetworkPolicies)
	keep(&o.IPPools, before.IPPools)
	keep(&o.BlockAffinities, before.BlockAffinities)
	keep(&o.IPAMBlocks, before.IPAMBlocks)
	keep(&o.FelixConfigurations, before.FelixConfigurations)
}

func keep[T comparable](now *[]T, before []T) {
	if slices.Equal(*now, before) {
		*now = before
	}
}
