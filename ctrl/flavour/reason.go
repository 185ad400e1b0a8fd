package flavour

// Reason sorts conflicts, in one word that stays the same: Events have it.
type Reason string

// The reasons.
const (
	// NotFollowed is every other one: something is missing, malformed or not carried.
	NotFollowed            Reason = "NotFollowed"
	DuplicatePodCIDR       Reason = "DuplicatePodCIDR"
	DuplicateAddress       Reason = "DuplicateAddress" // of the underlay
	DuplicateVTEPMAC       Reason = "DuplicateVTEPMAC"
	DuplicateTunnelAddress Reason = "DuplicateTunnelAddress"
	DuplicateBlock         Reason = "DuplicateBlock"     // blocks of Calico's that share addresses, or two owners of one
	OverlappingPool        Reason = "OverlappingPool"    // IPPools that share addresses
	OutsideClusterCIDR     Reason = "OutsideClusterCIDR" // a pod CIDR
	OutsidePool            Reason = "OutsidePool"        // a block of Calico's
)
