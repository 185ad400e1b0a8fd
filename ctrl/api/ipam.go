package api

import "time"

// IPAM is the answer to GET /v1/ipam: where this node's pods get addresses from.
type IPAM struct {
	Mode string `json:"mode"`
	// Cooldown is the seconds that a released address is held back.
	Cooldown float64    `json:"cooldown"`
	Pools    []IPAMPool `json:"pools"`
	// Findings are those of the last comparison that the agent made by itself, at
	// Checked, by kind.
	Findings map[string]int `json:"findings"`
	Checked  *time.Time     `json:"checked,omitempty"`
}

// IPAMPool is a pod CIDR or a Calico block of this node, with the number of its
// addresses that are in each state. A number beyond 2^63 is that.
type IPAMPool struct {
	CIDR     string `json:"cidr"`
	Kind     string `json:"kind"` // podcidr or block
	Size     uint64 `json:"size"`
	Used     uint64 `json:"used"`
	Cooling  uint64 `json:"cooling"`
	Free     uint64 `json:"free"`
	Reserved uint64 `json:"reserved"`
}

// IPAMAddress is the answer to GET /v1/ipam/address. Keys that say nothing are absent.
type IPAMAddress struct {
	Address string `json:"address"`
	State   string `json:"state"` // used, cooling, free, reserved, tunnel or foreign
	Why     string `json:"why,omitempty"`
	// CIDR is the pod CIDR or block, Kind which of the two.
	CIDR string `json:"cidr,omitempty"`
	Kind string `json:"kind,omitempty"`
	// The pod of a used address.
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	ContainerID string `json:"containerid,omitempty"`
	IfName      string `json:"ifname,omitempty"`
	Port        string `json:"port,omitempty"`
	NetNS       string `json:"netns,omitempty"`
	PodState    string `json:"podstate,omitempty"`
	// Handle is the IPAMHandle in Calico's IPAM.
	Handle string `json:"handle,omitempty"`
	// Since is when the pod got it, or when it was released.
	Since *time.Time `json:"since,omitempty"`
	// Until is when a cooling one is free.
	Until *time.Time `json:"until,omitempty"`
}

// IPAMCheckRequest is the body of POST /v1/ipam/check.
type IPAMCheckRequest struct {
	// Repair frees what is certainly nobody's.
	Repair bool `json:"repair,omitempty"`
}

// IPAMCheck is the answer to POST /v1/ipam/check.
type IPAMCheck struct {
	// Compared is what was looked at, and Skipped what could not be, and why.
	Compared []string      `json:"compared"`
	Skipped  []string      `json:"skipped,omitempty"`
	Findings []IPAMFinding `json:"findings"`
}

// IPAMFinding is something that does not fit.
type IPAMFinding struct {
	// Kind is one of package ipamcheck's.
	Kind    string `json:"kind"`
	Address string `json:"address,omitempty"`
	// Owner is the pod, container or device that it is about.
	Owner string `json:"owner,omitempty"`
	What  string `json:"what"`
	Do    string `json:"do"`
	// Repaired: nothing is left to do.
	Repaired bool `json:"repaired,omitempty"`
}
