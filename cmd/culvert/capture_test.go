package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"culvert/ctrl/api"
	"culvert/ctrl/api/apitest"
	kit "culvert/internal/pkttest"
)

const (
	podMAC, gwMAC = "0a:58:0a:f4:01:02", "ee:ee:ee:ee:ee:ee"
	pod1, pod2    = "10.244.1.2", "10.244.2.2"
)

// captured is an agent that has seen frames of all kinds.
func captured(t *testing.T) *apitest.Agent {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	pod := func(ls ...kit.Layer) []byte {
		return kit.Frame(t, append([]kit.Layer{kit.Eth(podMAC, gwMAC)}, ls...)...)
	}
	ping := pod(kit.IP4(pod1, pod2), kit.ICMP4(8, 0, 7, 1), kit.Payload(56))
	inner := pod(kit.IP4(pod1, pod2), kit.TCP(40000, 80, kit.Flags("S"), kit.Seq(5)))
	wire := kit.Frame(t, kit.Eth("02:00:00:00:00:01", "02:00:00:00:00:02"), kit.IP4("192.168.0.1", "192.168.0.2"), kit.UDP(50000, 8472), kit.VXLANHeader(1), kit.Bytes(inner...))
	big := pod(kit.IP4(pod1, pod2), kit.TCP(40000, 80, kit.Flags("PA"), kit.Seq(6), kit.Ack(9)), kit.Payload(4000))
	agent := apitest.New()
	add := func(f api.CapturedFrame, data []byte) {
		f.Time, f.Kind, f.Length = at, "veth", len(data)
		if f.Data = data; len(data) > 2048 {
			f.Data = data[:2048]
		}
		agent.CaptureList = append(agent.CaptureList, api.CaptureEvent{Event: api.CaptureFrame, Frame: &f})
		at = at.Add(time.Millisecond)
	}
	add(api.CapturedFrame{Port: "cva", Direction: "rx"}, ping)
	add(api.CapturedFrame{Port: "cva", Direction: "drop", Reason: "no_route"}, ping)
	agent.CaptureList = append(agent.CaptureList, api.CaptureEvent{Event: api.CaptureMissed, Missed: 12})
	add(api.CapturedFrame{Port: "eth0", Direction: "tx", Checksum: "completed"}, wire)
	add(api.CapturedFrame{Port: "cva", Direction: "rx", Checksum: "partial", GSO: &api.GSO{Type: "tcp4", Size: 1398, Segments: 3}}, big)
	add(api.CapturedFrame{Direction: "rx"}, pod(kit.ARPRequest(podMAC, pod1, "169.254.1.1")))
	add(api.CapturedFrame{Port: "cva", Direction: "rx"}, pod(kit.IP6("fd00::1", "fd00::2"), kit.UDP(5353, 53), kit.Payload(3)))
	add(api.CapturedFrame{Port: "cva", Direction: "rx"}, pod(kit.IP4(pod1, pod2, kit.Fragment(1480, false), kit.Proto(17)), kit.Payload(64)))
	add(api.CapturedFrame{Port: "cva", Direction: "drop", Reason: "frame_too_short"}, []byte{1, 2, 3})
	add(api.CapturedFrame{Port: "cva", Direction: "rx"}, kit.Frame(t, kit.EthType(podMAC, gwMAC, 0x88b5), kit.Payload(46)))
	agent.CaptureList = append(agent.CaptureList, api.CaptureEvent{Event: api.CaptureEnd, Reason: "count"})
	return agent
}

// captureOf runs the command and returns what it wrote to both outputs.
func captureOf(t *testing.T, agent *apitest.Agent, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	args = append([]string{"capture", "--socket", serve(t, agent)}, args...)
	if code := run(t.Context(), args, &out, &err); code != 0 {
		t.Errorf("exit code %d: %s", code, &err)
	}
	return out.String(), err.String()
}

// Times are printed in the local zone. Set before there is a goroutine that asks for it.
func init() { time.Local = time.UTC }

func TestCapturePrints(t *testing.T) {
	agent := captured(t)
	agent.CaptureList[3].Frame.Port = "eth0"
	got, told := captureOf(t, agent)
	// The tunnel's port is what the agent says.
	want := `03:04:05.678901 cva In IP 10.244.1.2 > 10.244.2.2: ICMP echo request, id 7, seq 1, length 64, 98 bytes
03:04:05.679901 cva Drop(no_route) IP 10.244.1.2 > 10.244.2.2: ICMP echo request, id 7, seq 1, length 64, 98 bytes
12 frames missed
03:04:05.680901 eth0 Out IP 192.168.0.1.50000 > 192.168.0.2.8472: UDP, length 62, 104 bytes
03:04:05.681901 cva In IP 10.244.1.2.40000 > 10.244.2.2.80: Flags [P.], seq 6, ack 9, win 500, length 4000, 4054 bytes, 3 segments of 1398
03:04:05.682901 gone In ARP, Request who-has 169.254.1.1 tell 10.244.1.2, 42 bytes
03:04:05.683901 cva In IP6 fd00::1.5353 > fd00::2.53: UDP, length 3, 65 bytes
03:04:05.684901 cva In IP 10.244.1.2 > 10.244.2.2: UDP fragment at 1480, length 64, 98 bytes
03:04:05.685901 cva Drop(frame_too_short) 3 bytes that are no packet, 3 bytes
03:04:05.686901 cva In 0a:58:0a:f4:01:02 > ee:ee:ee:ee:ee:ee, ethertype 0x88b5, 60 bytes
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if !strings.HasPrefix(told, "capturing until 10000 frames, 1m0s or an interrupt\n") || !strings.HasSuffix(told, "\n9 frames captured, 12 missed\n") {
		t.Errorf("told %q", told)
	}
}

// Inside a tunnel, by whatever port, and with all that the headers have.
func TestDescribeTunnels(t *testing.T) {
	agent := captured(t)
	d := describer{vxlan: []uint16{8472}}
	got := d.describe(agent.CaptureList[3].Frame.Data)
	want := "IP 192.168.0.1.50000 > 192.168.0.2.8472: UDP, length 62: VXLAN, vni 1: IP 10.244.1.2.40000 > 10.244.2.2.80: Flags [S], seq 5, win 500, length 0"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	ipip := kit.Frame(t, kit.Eth(podMAC, gwMAC), kit.IP4("192.168.0.1", "192.168.0.2"), kit.IP4(pod1, pod2), kit.ICMP4(0, 0, 1, 2))
	if got, want := d.describe(ipip), "IP 192.168.0.1 > 192.168.0.2: IP 10.244.1.2 > 10.244.2.2: ICMP echo reply, id 1, seq 2, length 8"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCaptureJSON(t *testing.T) {
	got, _ := captureOf(t, captured(t), "-o", "json")
	lines := strings.Split(strings.TrimSpace(got), "\n")
	if len(lines) != 12 || lines[0] != `{"event":"BEGIN","vxlan":[4789]}` || lines[11] != `{"event":"END","reason":"count"}` ||
		!strings.HasPrefix(lines[2], `{"event":"FRAME","frame":{"time":"2026-01-02T03:04:05.679901234Z","port":"cva","kind":"veth","direction":"drop","reason":"no_route","length":98,"data":"`) {
		t.Errorf("%q", lines)
	}
}

// The file is what gopacket reads: every frame, its time to the nanosecond, whole
// length and port; the options, which gopacket passes over, are read here.
func TestCaptureFile(t *testing.T) {
	agent := captured(t)
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if out, _ := captureOf(t, agent, "-w", file); out != "" {
		t.Errorf("printed %q", out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(file); info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if piped, _ := captureOf(t, captured(t), "-w", "-"); piped != string(b) {
		t.Error("standard output gets something else")
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	options := packetOptions(t, b)
	i := 0
	for _, e := range agent.CaptureList {
		if e.Frame == nil {
			continue
		}
		data, ci, err := r.ReadPacketData()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		f := e.Frame
		intf, err := r.Interface(ci.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		port := f.Port
		if port == "" {
			port = "culvert"
		}
		if !bytes.Equal(data, f.Data) || !ci.Timestamp.Equal(f.Time) || ci.Length != f.Length || intf.Name != port || intf.LinkType != layers.LinkTypeEthernet || intf.SnapLength != 2048 {
			t.Errorf("frame %d: %+v at %q, want %+v", i, ci, intf.Name, f)
		}
		i++
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last frame: %v", err)
	}
	in, out := []byte{1, 0, 0, 0}, []byte{2, 0, 0, 0}
	want := [][]option{
		{{2, in}},
		{{1, []byte("dropped: no_route: no route matches the destination")}},
		{{2, out}, {4, []byte{12, 0, 0, 0, 0, 0, 0, 0}}},
		{{2, in}, {1, []byte("gso: tcp4, 3 segments of 1398 bytes")}, {1, []byte("checksum: partial, left to a device by the sender")}},
		{{2, in}}, {{2, in}}, {{2, in}},
		{{1, []byte("dropped: frame_too_short: the frame ends inside its Ethernet header")}},
		{{2, in}},
	}
	if len(options) != len(want) {
		t.Fatalf("%d packet blocks, want %d", len(options), len(want))
	}
	for i := range want {
		if !slices.EqualFunc(options[i], want[i], func(a, b option) bool { return a.code == b.code && bytes.Equal(a.value, b.value) }) {
			t.Errorf("frame %d has options %v, want %v", i, options[i], want[i])
		}
	}
}

// option is one of a pcapng block.
type option struct {
	code  uint16
	value []byte
}

// packetOptions are the options of each packet block of a file in little-endian.
func packetOptions(t *testing.T, b []byte) (all [][]option) {
	t.Helper()
	le := binary.LittleEndian
	for len(b) > 0 {
		size := le.Uint32(b[4:])
		block := b[:size]
		b = b[size:]
		if le.Uint32(block[size-4:]) != size || size%4 != 0 {
			t.Fatalf("a block of %d bytes ends with %d", size, le.Uint32(block[size-4:]))
		}
		if le.Uint32(block) != blockEnhancedPacket {
			continue
		}
		var mine []option
		opts := block[28+(le.Uint32(block[20:])+3)/4*4 : size-4]
		for le.Uint16(opts) != optEnd {
			n := le.Uint16(opts[2:])
			mine = append(mine, option{le.Uint16(opts), opts[4 : 4+n]})
			opts = opts[4+(n+3)/4*4:]
		}
		all = append(all, mine)
	}
	return all
}

// A capture that is interrupted before a frame came leaves a file all the same, and the
// end of the agent is an error.
func TestCaptureWithoutFrames(t *testing.T) {
	agent := apitest.New() // without an END line
	file := filepath.Join(t.TempDir(), "x.pcapng")
	ctx, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"capture", "--socket", serve(t, agent), "-w", file}, &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestCaptureUsage(t *testing.T) {
	socket := serve(t, apitest.New())
	for args, code := range map[string]int{
		"--port nowhere": 1, "-w /nonexistent/file": 1,
		"--count 0": 2, "--snaplen -1": 2, "--duration 0s": 2, "--duration 25h": 2, "--direction up": 2, "--reason bogus": 2,
		"--proto bogus": 2, "--src bogus": 2, "-w x -o json": 2, "bogus": 2, "--sport 65536": 2,
	} {
		var stdout, stderr bytes.Buffer
		if got := run(t.Context(), append([]string{"capture", "--socket", socket}, strings.Fields(args)...), &stdout, &stderr); got != code {
			t.Errorf("capture %s: exit code %d, want %d: %s", args, got, code, &stderr)
		}
		if stdout.Len() != 0 || !strings.HasPrefix(stderr.String(), "culvert: ") {
			t.Errorf("capture %s: printed %q and %q", args, &stdout, &stderr)
		}
	}
}

// Whatever comes, it is described in one line, and its packet block is sound.
func FuzzDescribe(f *testing.F) {
	f.Add([]byte{}, uint16(4789))
	f.Add(kit.Frame(f, kit.Eth(podMAC, gwMAC), kit.IP6("fd00::1", "fd00::2"), kit.ICMP6(128, 0), kit.Payload(8)), uint16(4789))
	f.Add(kit.Frame(f, kit.Eth(podMAC, gwMAC), kit.IP4(pod1, pod2), kit.UDP(1, 4789), kit.VXLANHeader(1), kit.Eth(podMAC, gwMAC), kit.IP4(pod1, pod2), kit.UDP(1, 2)), uint16(4789))
	f.Fuzz(func(t *testing.T, b []byte, vxlan uint16) {
		d := describer{vxlan: []uint16{vxlan}}
		if line := d.describe(b); line == "" || strings.ContainsAny(line, "\n\r") {
			t.Errorf("%q", line)
		}
		var out bytes.Buffer
		p := newPcapWriter(&out, len(b))
		if err := p.frame(&api.CapturedFrame{Port: "x", Data: b, Length: len(b), Direction: "rx", Time: time.Unix(1, 2)}); err != nil {
			t.Fatal(err)
		}
		r, err := pcapgo.NewNgReader(&out, pcapgo.NgReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var got gopacket.CaptureInfo
		var data []byte
		if data, got, err = r.ReadPacketData(); err != nil || !bytes.Equal(data, b) || got.Length != len(b) {
			t.Errorf("%v: %x", err, data)
		}
	})
}
