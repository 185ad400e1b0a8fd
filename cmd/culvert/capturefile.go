package main

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"culvert/ctrl/api"
	"culvert/internal/drop"
	"culvert/internal/version"
)

// pcapWriter writes frames as pcapng (draft-ietf-opsawg-pcapng): an interface for each
// port, and for what is particular about a frame a comment. gopacket writes the
// section's and the interfaces' blocks; its packet blocks know no options.
type pcapWriter struct {
	w       io.Writer
	ng      *pcapgo.NgWriter
	ports   map[string]uint32 // interfaces by port
	snaplen int
	buf     []byte
	lost    uint64 // frames missed in front of the next one
}

func newPcapWriter(w io.Writer, snaplen int) *pcapWriter {
	return &pcapWriter{w: w, ports: map[string]uint32{}, snaplen: snaplen}
}

func (p *pcapWriter) begin(*api.CaptureEvent) error {
	// A file without frames is to be one all the same, and gopacket's first
	// interface comes with the section: one of no port.
	_, err := p.interfaceOf("culvert", "frames of all ports that are gone")
	return err
}

// interfaceOf is the number of the interface that stands for a port.
func (p *pcapWriter) interfaceOf(port, description string) (uint32, error) {
	if id, known := p.ports[port]; known {
		return id, nil
	}
	intf := pcapgo.NgInterface{Name: port, Description: description, LinkType: layers.LinkTypeEthernet, SnapLength: uint32(p.snaplen)}
	if p.ng == nil {
		var err error
		options := pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "culvert " + version.String()}}
		if p.ng, err = pcapgo.NewNgWriterInterface(p.w, intf, options); err != nil {
			return 0, fmt.Errorf("writing the capture: %w", err)
		}
	} else if _, err := p.ng.AddInterface(intf); err != nil {
		return 0, fmt.Errorf("writing the capture: interface %s: %w", port, err)
	}
	if err := p.ng.Flush(); err != nil {
		return 0, fmt.Errorf("writing the capture: %w", err)
	}
	id := uint32(len(p.ports))
	p.ports[port] = id
	return id, nil
}

func (p *pcapWriter) missed(n uint64) error {
	p.lost += n
	return nil
}

// The numbers of draft-ietf-opsawg-pcapng, 4.3.
const (
	blockEnhancedPacket = 6
	optEnd              = 0
	optComment          = 1
	optFlags            = 2
	optDropCount        = 4
	flagInbound         = 1 // of the two lowest bits of optFlags
	flagOutbound        = 2
)

func (p *pcapWriter) frame(f *api.CapturedFrame) error {
	port := f.Port
	if port == "" {
		port = "culvert"
	}
	id, err := p.interfaceOf(port, f.Kind+" port of culvert")
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	ns := uint64(f.Time.UnixNano())
	b := p.buf[:0]
	b = le.AppendUint32(b, blockEnhancedPacket)
	b = le.AppendUint32(b, 0) // the length, when it is known
	b = le.AppendUint32(b, id)
	b = le.AppendUint32(b, uint32(ns>>32))
	b = le.AppendUint32(b, uint32(ns))
	b = le.AppendUint32(b, uint32(len(f.Data)))
	b = le.AppendUint32(b, uint32(f.Length))
	b = pad4(append(b, f.Data...))
	if flags := map[string]uint32{"rx": flagInbound, "tx": flagOutbound}[f.Direction]; flags != 0 {
		b = appendOption(b, optFlags, le.AppendUint32(nil, flags))
	}
	if p.lost > 0 {
		b = appendOption(b, optDropCount, le.AppendUint64(nil, p.lost))
		p.lost = 0
	}
	for _, comment := range comments(f) {
		b = appendOption(b, optComment, []byte(comment))
	}
	b = appendOption(b, optEnd, nil)
	size := uint32(len(b) + 4)
	b = le.AppendUint32(b, size)
	le.PutUint32(b[4:], size)
	p.buf = b
	if _, err := p.w.Write(b); err != nil {
		return fmt.Errorf("writing the capture: %w", err)
	}
	return nil
}

func appendOption(b []byte, code uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad4(append(b, value...))
}

// pad4 appends zeros up to a multiple of four; blocks begin at one.
func pad4(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// comments are what is particular about a frame.
func comments(f *api.CapturedFrame) (all []string) {
	if f.Reason != "" {
		text := "dropped: " + f.Reason
		if r, ok := drop.ByName(f.Reason); ok {
			text += ": " + r.What()
		}
		all = append(all, text)
	}
	sum := ""
	switch f.Checksum {
	case "completed":
		sum = "checksum: left to a device by the sender, completed in this file only"
	case "partial":
		sum = "checksum: partial, left to a device by the sender"
	}
	if f.GSO != nil {
		all = append(all, fmt.Sprintf("gso: %s, %d segments of %d bytes", f.GSO.Type, f.GSO.Segments, f.GSO.Size))
	}
	if sum != "" && (f.GSO != nil || f.Checksum == "partial") { // of small ones nearly all are completed
		all = append(all, sum)
	}
	return all
}
