package pods

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

// Key names an attachment: one interface of one container. CNI promises that
// it is unique on the node.
type Key struct {
	ContainerID string
	IfName      string
}

// String is the key in a file name and as the owner of addresses. Neither
// part can contain an @ (see request.go), so that it is unambiguous.
func (k Key) String() string { return k.ContainerID + "@" + k.IfName }

// State of a record.
type State string

// The states.
const (
	StateAdding State = "adding" // an ADD is on its way, or was cut short
	StateReady  State = "ready"
	// In List only:
	StateGone     State = "gone"     // the link vanished, a DEL is awaited
	StateDetached State = "detached" // the link is there, but not in the dataplane: see Cause
)

// Record is what is kept of an attachment, a JSON file each. Records are
// values; the slices in them are not changed.
type Record struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
	Netns       string `json:"netns"`
	Network     string `json:"network"` // name of the CNI configuration
	Namespace   string `json:"namespace,omitempty"`
	Pod         string `json:"pod,omitempty"`
	UID         string `json:"uid,omitempty"`
	// Kind is the link's; records without one are of a version that knew veth only.
	Kind     podlink.Kind `json:"kind,omitempty"`
	HostName string       `json:"hostName"`
	// Ifindex is the host end's index on the node; a TAP's, in the pod. 0: the
	// link is not made yet.
	Ifindex int          `json:"hostIfindex,omitempty"`
	MAC     string       `json:"mac,omitempty"` // the pod's
	Addrs   []netip.Addr `json:"addrs"`
	// PortMappings are those that the runtime asked of us, and not of a portmap plugin.
	PortMappings []PortMapping `json:"portMappings,omitempty"`
	MTU          int           `json:"mtu"`
	Queues       int           `json:"queues"` // the veth's; what the TAP is opened with
	State        State         `json:"state"`
	Created      time.Time     `json:"created"`
	Cause        string        `json:"-"` // in List only: why it is detached
}

// Key is the record's key.
func (r *Record) Key() Key { return Key{r.ContainerID, r.IfName} }

// Name is the pod as a person calls it.
func (r *Record) Name() string {
	if r.Pod == "" {
		return "container " + r.ContainerID
	}
	return r.Namespace + "/" + r.Pod
}

// HardwareAddr is the pod's MAC.
func (r *Record) HardwareAddr() net.HardwareAddr {
	mac, err := net.ParseMAC(r.MAC)
	if err != nil {
		return nil // before the link is made
	}
	return mac
}

// Link names the record's link.
func (r *Record) Link() podlink.Ref {
	return podlink.Ref{Kind: r.Kind, HostName: r.HostName, Netns: r.Netns, IfName: r.IfName}
}

// spec is the link that the record wants.
func (r *Record) spec() podlink.Spec {
	return podlink.Spec{
		Ref: r.Link(), MAC: r.HardwareAddr(), Addrs: r.Addrs, MTU: r.MTU, Queues: r.Queues, Alias: r.alias(),
	}
}

// alias is what `ip link` shows beside the host end.
func (r *Record) alias() string {
	var addrs []string
	for _, a := range r.Addrs {
		addrs = append(addrs, a.String())
	}
	return fmt.Sprintf("%s%s %s %s", podlink.AliasPrefix, r.Name(), r.IfName, strings.Join(addrs, " "))
}

// validate refuses a record from disk that no ADD of ours has written.
func (r *Record) validate() error {
	switch {
	case validContainerID(r.ContainerID) != nil || validIfName(r.IfName) != nil:
		return errors.New("no valid container and interface")
	case r.HostName == "" || len(r.HostName) > 15 || strings.ContainsAny(r.HostName, "/ "):
		return fmt.Errorf("host interface %q", r.HostName)
	case r.Kind != "" && r.Kind != podlink.Veth && r.Kind != podlink.TAP:
		return fmt.Errorf("link of kind %q", r.Kind)
	case r.State != StateAdding && r.State != StateReady:
		return fmt.Errorf("state %q", r.State)
	case r.State == StateReady && len(r.HardwareAddr()) != 6:
		return fmt.Errorf("MAC %q", r.MAC)
	}
	for _, a := range r.Addrs {
		if !a.IsValid() {
			return errors.New("an address is missing")
		}
	}
	for _, m := range r.PortMappings {
		if err := m.validate(); err != nil {
			return err
		}
	}
	return nil
}

// API is the record as GET /v1/pods shows it.
func (r *Record) API() api.Pod {
	p := api.Pod{
		Namespace: r.Namespace, Name: r.Pod, ContainerID: r.ContainerID, IfName: r.IfName,
		Port: r.HostName, MAC: r.MAC, NetNS: r.Netns, State: string(r.State), Error: r.Cause, Addrs: []string{},
	}
	for _, a := range r.Addrs {
		p.Addrs = append(p.Addrs, a.String())
	}
	for _, m := range r.PortMappings {
		p.PortMappings = append(p.PortMappings, api.PortMapping(m))
	}
	return p
}
