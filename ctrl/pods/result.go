package pods

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"culvert/ctrl/api"
	"culvert/ctrl/podlink"
)

// Short names for the CNI library's current types.
type (
	prevResult = types100.Result
	ipConfig   = types100.IPConfig
)

// prevResult decodes the result of the plugin before us, or, in CHECK, the
// final one. nil: there is none.
func (r *request) prevResult() (*prevResult, error) {
	raw := bytes.TrimSpace(r.conf.PrevResult)
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return nil, nil
	}
	var version struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(raw, &version); err != nil {
		return nil, wrap(api.CNIDecodingFailure, "prevResult is not a CNI result", err)
	}
	if version.CNIVersion == "" { // runtimes strip it: it is the configuration's
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil {
			return nil, wrap(api.CNIDecodingFailure, "prevResult is not a CNI result", err)
		}
		fields["cniVersion"], _ = json.Marshal(r.conf.CNIVersion)
		raw, _ = json.Marshal(fields)
	}
	prev, err := create.CreateFromBytes(raw)
	if err != nil {
		return nil, wrap(api.CNIDecodingFailure, "prevResult is not a CNI result", err)
	}
	out, err := types100.NewResultFromResult(prev)
	if err != nil {
		return nil, wrap(api.CNIDecodingFailure, "prevResult is not a CNI result", err)
	}
	for _, i := range out.Interfaces {
		if i == nil {
			return nil, refuse(api.CNIDecodingFailure, "prevResult is not a CNI result: it has an empty interface")
		}
	}
	for _, ip := range out.IPs {
		if ip == nil {
			return nil, refuse(api.CNIDecodingFailure, "prevResult is not a CNI result: it has an empty address")
		}
	}
	return out, nil
}

// first makes sure that no plugin before us in the chain has made the pod's interface:
// that is our part. What others have done (lo, an interface of another name) is passed on.
func (r *request) first(prev *prevResult) error {
	if prev == nil {
		return nil
	}
	for _, i := range prev.Interfaces {
		if i.Name == r.key.IfName && i.Sandbox != "" {
			return refuse(api.CNIInvalidConfig, "culvert-cni makes the pod's interface, and prevResult has %s already: it is to be the first of the plugins, or in the place of the one before it", i.Name)
		}
	}
	return nil
}

// result is what ADD answers: what was there before, then ours.
func result(rec *Record, prev *prevResult, dns types.DNS) *prevResult {
	out := &prevResult{CNIVersion: types100.ImplementedSpecVersion}
	if prev != nil {
		out.Interfaces, out.IPs, out.Routes, out.DNS = prev.Interfaces, prev.IPs, prev.Routes, prev.DNS
	}
	if !dns.IsEmpty() {
		out.DNS = dns
	}
	if rec.Kind != podlink.TAP { // which has no other end
		out.Interfaces = append(out.Interfaces, &types100.Interface{Name: rec.HostName, Mac: podlink.HostMAC.String()})
	}
	out.Interfaces = append(out.Interfaces, &types100.Interface{Name: rec.IfName, Mac: rec.MAC, Mtu: rec.MTU, Sandbox: rec.Netns})
	for _, a := range rec.Addrs {
		gw, zero := podlink.Gateway4, netip.IPv4Unspecified()
		if a.Is6() {
			gw, zero = podlink.Gateway6, netip.IPv6Unspecified()
		}
		out.IPs = append(out.IPs, &types100.IPConfig{
			Interface: types100.Int(len(out.Interfaces) - 1),
			Address:   net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
			Gateway:   gw.AsSlice(),
		})
		out.Routes = append(out.Routes, &types.Route{
			Dst: net.IPNet{IP: zero.AsSlice(), Mask: net.CIDRMask(0, a.BitLen())},
			GW:  gw.AsSlice(),
		})
	}
	return out
}

// encode is the result in the version that the configuration asked for.
func encode(res *prevResult, version string) (json.RawMessage, error) {
	if !api.CNISince(version, "1.1.0") {
		for _, i := range res.Interfaces {
			i.Mtu, i.SocketPath, i.PciID = 0, "", "" // 1.1 brought them
		}
	}
	out, err := res.GetAsVersion(version)
	if err != nil {
		return nil, wrap(api.CNIIncompatibleVersion, "the result has no form in CNI "+version, err)
	}
	return json.Marshal(out)
}

// parseMAC is nil for what is no MAC.
func parseMAC(s string) net.HardwareAddr {
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return nil
	}
	return mac
}

// keyString is the record's name as an owner of addresses.
func (r *Record) keyString() string { return r.Key().String() }
