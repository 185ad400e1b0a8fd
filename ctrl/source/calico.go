package source

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kinds of crd.projectcalico.org/v1 that Culvert reads, with the fields
// that Calico 3.26 to 3.33 writes (api/pkg/apis/projectcalico/v3 and libcalico-go).

// IPPool is a prefix that pods get addresses of, and how it is carried.
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPPoolSpec    `json:"spec"`
	Status            *IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec is what an administrator writes.
type IPPoolSpec struct {
	CIDR              string      `json:"cidr"`
	VXLANMode         string      `json:"vxlanMode,omitempty"` // Never, Always or CrossSubnet
	IPIPMode          string      `json:"ipipMode,omitempty"`
	NATOutgoing       bool        `json:"natOutgoing,omitempty"`
	Disabled          bool        `json:"disabled,omitempty"`
	DisableBGPExport  bool        `json:"disableBGPExport,omitempty"`
	BlockSize         int         `json:"blockSize,omitempty"`
	NodeSelector      string      `json:"nodeSelector,omitempty"`
	NamespaceSelector string      `json:"namespaceSelector,omitempty"`
	AllowedUses       []string    `json:"allowedUses,omitempty"`
	AssignmentMode    *string     `json:"assignmentMode,omitempty"`
	LegacyNAT         bool        `json:"nat-outgoing,omitempty"`
	LegacyIPIP        *LegacyIPIP `json:"ipip,omitempty"`
}

// LegacyIPIP is how early versions wrote ipipMode.
type LegacyIPIP struct {
	Enabled bool   `json:"enabled,omitempty"`
	Mode    string `json:"mode,omitempty"`
}

// IPPoolStatus is what Calico's controllers write.
type IPPoolStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BlockAffinity says which node a block belongs to.
type BlockAffinity struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BlockAffinitySpec `json:"spec"`
}

// BlockAffinitySpec is the affinity.
type BlockAffinitySpec struct {
	State   string `json:"state"` // pending, confirmed or pendingDeletion
	Node    string `json:"node"`
	Type    string `json:"type,omitempty"` // host, the default, or virtual
	CIDR    string `json:"cidr"`
	Deleted string `json:"deleted"` // "true" or "false"
}

// IPAMBlock is a block of addresses and who has them.
type IPAMBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPAMBlockSpec `json:"spec"`
}

// IPAMBlockSpec is the block.
type IPAMBlockSpec struct {
	CIDR              string       `json:"cidr"`
	Affinity          *string      `json:"affinity,omitempty"` // host:NODE
	AffinityClaimTime *metav1.Time `json:"affinityClaimTime,omitempty"`
	// Allocations has an entry per address: an index into Attributes, or null.
	Allocations                 []*int               `json:"allocations"`
	Unallocated                 []int                `json:"unallocated"`
	Attributes                  []IPAMBlockAttribute `json:"attributes"`
	SequenceNumber              uint64               `json:"sequenceNumber"`
	SequenceNumberForAllocation map[string]uint64    `json:"sequenceNumberForAllocation,omitempty"`
	Deleted                     bool                 `json:"deleted,omitempty"`
	StrictAffinity              bool                 `json:"strictAffinity"`
}

// IPAMBlockAttribute says whose addresses are.
type IPAMBlockAttribute struct {
	HandleID            *string           `json:"handle_id,omitempty"`
	Secondary           map[string]string `json:"secondary,omitempty"`
	AlternateOwnerAttrs map[string]string `json:"alternateOwnerAttrs,omitempty"`
	ReleasedAt          *metav1.Time      `json:"releasedAt,omitempty"`
}

// IPAMHandle counts the addresses of one owner, block by block.
type IPAMHandle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPAMHandleSpec `json:"spec"`
}

// IPAMHandleSpec is the handle.
type IPAMHandleSpec struct {
	HandleID string         `json:"handleID"`
	Block    map[string]int `json:"block"` // addresses by the block's CIDR
	Deleted  bool           `json:"deleted,omitempty"`
}

// IPAMConfig is how Calico's IPAM gives blocks (IPAMConfiguration in projectcalico.org/v3).
type IPAMConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPAMConfigSpec `json:"spec"`
}

// IPAMConfigSpec is the configuration; its object's name is default.
type IPAMConfigSpec struct {
	// StrictAffinity: no node takes addresses of another one's block.
	StrictAffinity bool `json:"strictAffinity"`
	// AutoAllocateBlocks: nodes claim blocks; nil: they do.
	AutoAllocateBlocks *bool `json:"autoAllocateBlocks,omitempty"`
	// MaxBlocksPerHost of one family; 0: 20.
	MaxBlocksPerHost int `json:"maxBlocksPerHost,omitempty"`
	// IPCooldownSeconds is how long a released address is not given again; 0: not at all.
	IPCooldownSeconds int `json:"ipCooldownSeconds,omitempty"`
}

// IPReservation is addresses that nobody is given by itself.
type IPReservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPReservationSpec `json:"spec"`
}

// IPReservationSpec is the reservation.
type IPReservationSpec struct {
	ReservedCIDRs []string `json:"reservedCIDRs,omitempty"`
}

// FelixConfiguration is Felix's, of the cluster ("default") or of one node ("node.NAME").
type FelixConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              FelixConfigurationSpec `json:"spec"`
}

// FelixConfigurationSpec are the few settings that Culvert goes by; what is not
// set is nil.
type FelixConfigurationSpec struct {
	VXLANVNI   *int `json:"vxlanVNI,omitempty"`
	VXLANPort  *int `json:"vxlanPort,omitempty"`
	VXLANMTU   *int `json:"vxlanMTU,omitempty"`
	VXLANMTUV6 *int `json:"vxlanMTUV6,omitempty"`
	IPIPMTU    *int `json:"ipipMTU,omitempty"`
}

// UnmarshalJSON passes over the settings that are Felix's own: there are more
// than a hundred, and every version brings some.
func (s *FelixConfigurationSpec) UnmarshalJSON(text []byte) error {
	type plain FelixConfigurationSpec
	return json.Unmarshal(text, (*plain)(s))
}
