package xdpgen

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"culvert/bench/load"

	"github.com/cilium/ebpf"
)

// headers is how much of a frame the program writes, at most: WORDS of it.
const headers = 128

// Kinds of tunnels, as the program has them.
var kinds = map[load.Kind]uint32{load.VXLAN: 1, load.IPIP: 2}

// loadGenerator loads the program with a plan's constants and tables.
func loadGenerator(p *load.Plan) (*ebpf.Collection, error) {
	spec, err := loadGenerate()
	if err != nil {
		return nil, err
	}
	for name, value := range constants(p) {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	for name, entries := range map[string]int{"out": len(p.Outs), "destination": len(p.Destinations), "draw": len(p.Order)} {
		spec.Maps[name].MaxEntries = uint32(max(entries, 1))
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	if err := fill(coll, p); err != nil {
		coll.Close()
		return nil, err
	}
	return coll, nil
}

// constants are the program's settings.
func constants(p *load.Plan) map[string]any {
	var lens [load.MaxWeight]uint16
	for i, n := range p.Lens {
		lens[i] = uint16(n)
	}
	one := single(p)
	var head [headers]byte
	copy(head[:], one.head)
	var words [headers / 8]uint64
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(head[8*i:])
	}
	all := map[string]any{
		"device": uint32(p.Outs[0].Device), "flows": uint32(p.Flows), "outs": uint32(len(p.Outs)),
		"destinations": uint32(len(p.Destinations)), "draws": uint32(len(p.Order)), "every": p.Every,
		"interval": uint64(0), "max_frames": p.MaxFrames,
		"sizes": uint32(len(p.Lens)), "size": lens, "largest": uint32(p.Largest),
		// The template ends with the payload's first words. All frames are as long.
		"frame_words": uint32((len(p.Template) + 7) / 8), "frame_template": words,
		"tunnel": uint32(0), "ip_offset": uint32(p.IP), "udp_offset": uint32(p.UDP),
		"ip_sum": one.ip, "udp_sum": one.udp, "tunnel_sum": one.tunnel,
		"first_port": uint32(load.FirstPort), "destination_port": uint32(load.DestinationPort), "port_bits": uint32(load.PortBits),
		"tunnel_port": uint32(load.TunnelPort), "tunnel_ports": uint32(load.TunnelPorts),
	}
	if p.Tunnel != nil {
		all["tunnel"] = kinds[p.Tunnel.Kind]
	}
	if p.Rate > 0 {
		all["interval"] = uint64(1e9 / p.Rate * (1 << nanosShift))
	}
	return all
}

// nanosShift is NANOS_SHIFT of the program.
const nanosShift = 20

// folded are a template and the sums of its checksums.
type folded struct {
	head            []byte
	ip, udp, tunnel uint32
}

// single is the plan's template with all in it of which there is only one, as
// the program does not write that.
func single(p *load.Plan) folded {
	s := folded{head: p.Frame(0, p.Largest), ip: p.IPSum, udp: p.UDPSum, tunnel: p.TunnelSum}
	s.head = s.head[:len(p.Template)]
	if len(p.Outs) == 1 {
		o := p.Outs[0]
		s.ip += sum(o.Addr)
		s.udp += sum(o.Addr)
		if p.Tunnel != nil {
			s.tunnel += sum(o.Peer)
		}
	}
	if len(p.Destinations) == 1 {
		s.ip += sum(p.Destinations[0])
		s.udp += sum(p.Destinations[0])
	}
	if len(p.Lens) == 1 {
		s.ip += uint32(p.Largest - p.IP)
		s.udp += 2 * uint32(p.Largest-p.UDP)
		s.tunnel += uint32(p.Largest) - lenEthernet
	}
	s.ip, s.udp, s.tunnel = uint32(load.Fold(s.ip)), uint32(load.Fold(s.udp)), uint32(load.Fold(s.tunnel))
	return s
}

const lenEthernet = 14

func sum(a netip.Addr) uint32 {
	b := a.As4()
	return load.Sum(0, b[:])
}

// fill writes the tables of what there are several of.
func fill(coll *ebpf.Collection, p *load.Plan) error {
	if len(p.Outs) > 1 {
		all := make([]generateOut, len(p.Outs))
		for i, o := range p.Outs {
			all[i] = generateOut{Ifindex: uint32(o.Device), Mac: mac(o.MAC), Addr: words(o.Addr), Sum: load.Fold(sum(o.Addr))}
			if p.Tunnel != nil {
				all[i].Peer, all[i].PeerSum = words(o.Peer), load.Fold(sum(o.Peer))
			}
		}
		if err := write(coll, "out", all); err != nil {
			return err
		}
	}
	if len(p.Destinations) > 1 {
		all := make([]generateDestination, len(p.Destinations))
		for i, d := range p.Destinations {
			all[i] = generateDestination{Addr: words(d), Sum: load.Fold(sum(d))}
		}
		if err := write(coll, "destination", all); err != nil {
			return err
		}
	}
	if len(p.Order) > 0 {
		return write(coll, "draw", p.Order)
	}
	return nil
}

func write[T any](coll *ebpf.Collection, name string, values []T) error {
	keys := make([]uint32, len(values))
	for i := range keys {
		keys[i] = uint32(i)
	}
	if _, err := coll.Maps[name].BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("writing the table %s: %w", name, err)
	}
	return nil
}

// words is an address in the byte order of packets.
func words(a netip.Addr) [2]uint16 {
	b := a.As4()
	return [2]uint16{binary.NativeEndian.Uint16(b[:]), binary.NativeEndian.Uint16(b[2:])}
}

func mac(m net.HardwareAddr) (w [3]uint16) {
	if len(m) == 6 { // IPIP has none
		for i := range w {
			w[i] = binary.NativeEndian.Uint16(m[2*i:])
		}
	}
	return w
}
