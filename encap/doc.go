// Package encap writes and reads what stands in front of a packet on its way: the
// Ethernet header, and the outer headers of VXLAN (RFC 7348) and IPIP (RFC 2003)
// tunnels, as Linux's vxlan and ipip devices have them.
//
// Writing is a copy: a Template holds every byte of an adjacency's headers, made
// once by the control plane; Push copies it in front of the inner IP packet and
// patches the few fields that depend on that packet. Reading is a validation:
// PopVXLAN and PopIPIP check the outer headers and say where the inner frame or
// packet starts. Whether the tunnel is one of ours (addresses, port, VNI, MACs)
// is the caller's to decide.
//
// No socket, goroutine or clock; nothing allocates.
package encap
