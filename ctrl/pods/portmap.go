package pods

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"culvert/ctrl/api"
)

// PortMapping is a port of the node at which a port of the pod is to be reached.
type PortMapping struct {
	HostPort      uint16 `json:"hostPort"`      // 1 to 65535
	ContainerPort uint16 `json:"containerPort"` // 1 to 65535
	Protocol      string `json:"protocol"`      // tcp, udp or sctp
	// HostIP is the node's address that it is for. Empty: every one of them; 0.0.0.0 and
	// ::, every one of that family.
	HostIP string `json:"hostIP,omitempty"`
}

// String is the mapping in Docker's way.
func (m PortMapping) String() string {
	host := fmt.Sprint(m.HostPort)
	if m.HostIP != "" {
		host = netip.AddrPortFrom(m.hostAddr(), m.HostPort).String()
	}
	return fmt.Sprintf("%s->%d/%s", host, m.ContainerPort, m.Protocol)
}

// hostAddr is HostIP, or the invalid address for every one.
func (m PortMapping) hostAddr() netip.Addr {
	addr, _ := netip.ParseAddr(m.HostIP)
	return addr
}

// maxPortMappings of a pod: more than that are a mistake.
const maxPortMappings = 1024

// wishedPort is a port mapping as a runtime sends it. Keys are matched without
// regard to case: containerd's begin with a capital.
type wishedPort struct {
	HostPort      int64  `json:"hostPort"`
	ContainerPort int64  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// parsePortMappings checks what a runtime sent. A mapping to host port 0 asks for nothing
// on the node: it is a container port that is only named.
func parsePortMappings(wishes []wishedPort) (all []PortMapping, err error) {
	if len(wishes) > maxPortMappings {
		return nil, refuse(api.CNIInvalidConfig, "%d port mappings are asked for: at most %d are possible", len(wishes), maxPortMappings)
	}
	for i, w := range wishes {
		if w.HostPort == 0 {
			continue
		}
		m, err := w.mapping()
		if err != nil {
			return nil, refuse(api.CNIInvalidConfig, "port mapping %d: %v", i, err)
		}
		if slices.Contains(all, m) {
			continue
		}
		for _, other := range all {
			if m.clashes(other) && m.ContainerPort != other.ContainerPort {
				return nil, refuse(api.CNIInvalidConfig, "port mappings %s and %s are for the same port of the node", other, m)
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// mapping is the wish if it can be fulfilled.
func (w *wishedPort) mapping() (m PortMapping, err error) {
	if w.HostPort < 1 || w.HostPort > 65535 {
		return m, fmt.Errorf("host port %d is not from 1 to 65535", w.HostPort)
	}
	if w.ContainerPort < 1 || w.ContainerPort > 65535 {
		return m, fmt.Errorf("container port %d is not from 1 to 65535", w.ContainerPort)
	}
	m = PortMapping{HostPort: uint16(w.HostPort), ContainerPort: uint16(w.ContainerPort), Protocol: strings.ToLower(w.Protocol)}
	switch m.Protocol {
	case "":
		m.Protocol = "tcp" // as Kubernetes has it
	case "tcp", "udp", "sctp":
	default:
		return m, fmt.Errorf("protocol %.20q is none of tcp, udp and sctp", w.Protocol)
	}
	if w.HostIP != "" {
		addr, err := netip.ParseAddr(w.HostIP)
		if err != nil || addr.Zone() != "" || addr.IsMulticast() {
			return m, fmt.Errorf("host address %.60q is none that a node has", w.HostIP)
		}
		m.HostIP = addr.Unmap().String()
	}
	return m, nil
}

// clashes reports whether some packet to the node would be for both mappings.
func (m PortMapping) clashes(n PortMapping) bool {
	if m.HostPort != n.HostPort || m.Protocol != n.Protocol {
		return false
	}
	a, b := m.hostAddr(), n.hostAddr()
	switch {
	case !a.IsValid() || !b.IsValid() || a == b:
		return true
	case a.Is4() != b.Is4():
		return false
	}
	return a.IsUnspecified() || b.IsUnspecified()
}

// validate refuses a mapping from disk that parsePortMappings has not made.
func (m PortMapping) validate() error {
	w := wishedPort{int64(m.HostPort), int64(m.ContainerPort), m.Protocol, m.HostIP}
	if again, err := w.mapping(); err != nil {
		return err
	} else if again != m {
		return fmt.Errorf("port mapping %s", m)
	}
	return nil
}

// portTaken refuses a host port that is another pod's. The caller holds the manager's
// mutex. A pod whose link is gone has none any more.
func (m *Manager) portTaken(rec *Record) error {
	if len(rec.PortMappings) == 0 {
		return nil
	}
	for _, p := range m.pods {
		if p.gone {
			continue
		}
		for _, theirs := range p.rec.PortMappings {
			if i := slices.IndexFunc(rec.PortMappings, theirs.clashes); i >= 0 {
				return refuse(api.CNIHostPortTaken, "the node's port of mapping %s is taken: %s has the mapping %s", rec.PortMappings[i], p.rec.Name(), theirs)
			}
		}
	}
	return nil
}
