package pods

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

// The longest values that are taken. A container ID is part of a file name; a
// runtime's has 64 digits.
const (
	maxContainerID = 200
	maxPodName     = 253 // of a DNS name, which Kubernetes' names are
	maxPath        = 4096
)

// podName is what namespaces, pod names and UIDs are made of. Kubernetes is
// stricter; other runtimes need not be.
var podName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// netConf is the part of the network configuration that Culvert reads. Keys
// are matched without regard to case, which some runtimes need.
type netConf struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	Interface     podlink.Kind    `json:"interface"`
	DNS           types.DNS       `json:"dns"`
	PrevResult    json.RawMessage `json:"prevResult"`
	RuntimeConfig struct {
		IPs          []string     `json:"ips"`
		MAC          string       `json:"mac"`
		PortMappings []wishedPort `json:"portMappings"`
		promises
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
	// Valid and the misspelled twin that libcni sends beside it say which
	// attachments GC keeps; nil: the key is not there, or null.
	Valid     *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
	ValidTwin *[]types.GCAttachment `json:"cni.dev/attachments"`
}

// kind is that of the links that the configuration asks for.
func (c *netConf) kind() podlink.Kind {
	if c.Interface == "" {
		return podlink.Veth
	}
	return c.Interface
}

// request is a validated CNIRequest.
type request struct {
	key       Key
	netns     string
	namespace string
	pod, uid  string
	ips       []netip.Addr // that were asked for
	given     []netip.Addr // by another IPAM plugin
	mac       net.HardwareAddr
	ports     []PortMapping
	conf      netConf
}

// parse validates what the runtime sent. Errors are *Error.
func parse(in *api.CNIRequest) (*request, error) {
	r := &request{key: Key{in.ContainerID, in.IfName}, netns: in.Netns}
	if err := parseConf(in.Config, &r.conf); err != nil {
		return nil, err
	}
	if in.Command == api.CNIStatus || in.Command == api.CNIGC {
		if !api.CNISince(r.conf.CNIVersion, "1.1.0") {
			return nil, refuse(api.CNIIncompatibleVersion, "CNI version %s has no %s", r.conf.CNIVersion, in.Command)
		}
		return r, nil
	}
	if err := validContainerID(in.ContainerID); err != nil {
		return nil, err
	}
	if err := validIfName(in.IfName); err != nil {
		return nil, err
	}
	if len(in.Netns) > maxPath || strings.ContainsRune(in.Netns, 0) {
		return nil, refuse(api.CNIInvalidEnvironment, "CNI_NETNS is not a path")
	}
	if in.Netns == "" && in.Command != api.CNIDel {
		return nil, refuse(api.CNIInvalidEnvironment, "CNI_NETNS is missing: %s needs the pod's network namespace", in.Command)
	}
	if in.Command == api.CNICheck && !api.CNISince(r.conf.CNIVersion, "0.4.0") {
		return nil, refuse(api.CNIIncompatibleVersion, "CNI version %s has no CHECK", r.conf.CNIVersion)
	}
	if err := r.parseArgs(in.Args); err != nil {
		return nil, err
	}
	if in.Command != api.CNIAdd {
		return r, nil
	}
	for _, g := range in.Given {
		addr, err := parseAddr(g)
		if err != nil {
			return nil, refuse(api.CNIInvalidConfig, "%q was given by the IPAM plugin as the pod's address, and is none", g)
		}
		r.given = append(r.given, addr)
	}
	return r, r.parseWishes(in.Args)
}

// parseConf decodes and checks the network configuration.
func parseConf(data []byte, conf *netConf) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return refuse(api.CNIDecodingFailure, "no network configuration on standard input")
	}
	if err := json.Unmarshal(data, conf); err != nil {
		return wrap(api.CNIDecodingFailure, "the network configuration is not what CNI defines", err)
	}
	if !slices.Contains(api.CNIVersions, conf.CNIVersion) {
		return refuse(api.CNIIncompatibleVersion, "cniVersion %q is not supported: one of %s is needed",
			conf.CNIVersion, strings.Join(api.CNIVersions, ", "))
	}
	if err := utils.ValidateNetworkName(conf.Name); err != nil {
		return refuse(api.CNIInvalidConfig, "name %q of the network configuration: %s", conf.Name, err.Msg)
	}
	switch conf.Interface {
	case "", podlink.Veth, podlink.TAP:
		return nil
	}
	return refuse(api.CNIInvalidConfig, `interface %q: "veth" or "tap" is needed`, conf.Interface)
}

// parseArgs takes over who the pod is.
func (r *request) parseArgs(args map[string]string) error {
	r.namespace, r.pod, r.uid = args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"], args["K8S_POD_UID"]
	for name, v := range map[string]string{"K8S_POD_NAMESPACE": r.namespace, "K8S_POD_NAME": r.pod, "K8S_POD_UID": r.uid} {
		if v != "" && (len(v) > maxPodName || !podName.MatchString(v)) {
			return refuse(api.CNIInvalidEnvironment, "%s in CNI_ARGS is not a Kubernetes name", name)
		}
	}
	return nil
}

// parseWishes takes over the addresses, the MAC and the port mappings that were asked for.
func (r *request) parseWishes(args map[string]string) (err error) {
	if err := r.conf.RuntimeConfig.refuse(); err != nil {
		return err
	}
	if r.ports, err = parsePortMappings(r.conf.RuntimeConfig.PortMappings); err != nil {
		return err
	}
	wishes := slices.Concat(r.conf.RuntimeConfig.IPs, r.conf.Args.CNI.IPs)
	if ip := args["IP"]; ip != "" {
		wishes = append(wishes, strings.Split(ip, ",")...)
	}
	for _, w := range wishes {
		addr, err := parseAddr(w)
		if err != nil {
			return refuse(api.CNIInvalidConfig, "%q was asked for as the pod's address, and is none", w)
		}
		if !slices.Contains(r.ips, addr) {
			r.ips = append(r.ips, addr)
		}
	}
	mac := r.conf.RuntimeConfig.MAC
	if mac == "" {
		mac = args["MAC"]
	}
	if mac == "" {
		return nil
	}
	if r.mac, err = net.ParseMAC(mac); err != nil || len(r.mac) != 6 || r.mac[0]&1 != 0 || isZero(r.mac) {
		return refuse(api.CNIInvalidConfig, "%q was asked for as the pod's MAC, and is no unicast Ethernet address", mac)
	}
	return nil
}

// parseAddr reads an address with or without a prefix length.
func parseAddr(s string) (netip.Addr, error) {
	s = strings.TrimSpace(s)
	host, _, hasPrefix := strings.Cut(s, "/")
	if hasPrefix {
		if _, err := netip.ParsePrefix(s); err != nil {
			return netip.Addr{}, err
		}
	}
	addr, err := netip.ParseAddr(host)
	if err == nil && addr.Zone() != "" {
		err = fmt.Errorf("address %s has a zone", addr)
	}
	return addr.Unmap(), err
}

func isZero(mac net.HardwareAddr) bool {
	return !slices.ContainsFunc(mac, func(b byte) bool { return b != 0 })
}

// validContainerID checks CNI_CONTAINERID.
func validContainerID(id string) error {
	if id == "" {
		return refuse(api.CNIInvalidEnvironment, "CNI_CONTAINERID is missing")
	}
	if len(id) > maxContainerID {
		return refuse(api.CNIInvalidEnvironment, "CNI_CONTAINERID is %d characters long: at most %d are possible", len(id), maxContainerID)
	}
	if utils.ValidateContainerID(id) != nil {
		return refuse(api.CNIInvalidEnvironment, "CNI_CONTAINERID %q is invalid: letters, digits and _ . - are possible", id)
	}
	return nil
}

// validIfName checks CNI_IFNAME: a name that Linux takes, and none that means
// something else to it.
func validIfName(name string) error {
	if err := utils.ValidateInterfaceName(name); err != nil {
		if len(name) > 64 {
			name = name[:64] + "…"
		}
		return refuse(api.CNIInvalidEnvironment, "CNI_IFNAME %q: %s", name, err.Msg)
	}
	// all and default are directories of /proc/sys/net/ipv4/conf; % makes the
	// kernel number the device; @ separates the parts of a record's name.
	if name == "lo" || name == "all" || name == "default" || strings.ContainsAny(name, "%@\\") || !printable(name) {
		return refuse(api.CNIInvalidEnvironment, "CNI_IFNAME %q cannot be the name of a pod's interface", name)
	}
	return nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
