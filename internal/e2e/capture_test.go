package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"culvert/internal/lab"
	kit "culvert/internal/pkttest"
)

// running is a 'culvert capture' that has begun.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	told *lines
}

// startCapture begins a capture on a node. out is its standard output.
func startCapture(t *testing.T, n *lab.Node, out io.Writer, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command(filepath.Join(binDir, "culvert"), append([]string{"--socket", n.Socket, "capture"}, args...)...), told: &lines{}}
	r.cmd.Stdout, r.cmd.Stderr = out, r.told
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill() })
	eventually(t, "the capture begins", func() error {
		if !strings.Contains(r.told.text(), "capturing until") {
			return fmt.Errorf("it says %q", r.told.text())
		}
		return nil
	})
	return r
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// stop interrupts the capture as an operator does and returns the frames that it had
// and missed.
func (r *running) stop() (frames, missed int) {
	r.t.Helper()
	time.Sleep(100 * time.Millisecond) // what was just sent is told
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("culvert capture: %v: %s", err, r.told.text())
	}
	m := regexp.MustCompile(`(\d+) frames captured, (\d+) missed`).FindStringSubmatch(r.told.text())
	if m == nil {
		r.t.Fatalf("culvert capture says %q", r.told.text())
	}
	frames, _ = strconv.Atoi(m[1])
	missed, _ = strconv.Atoi(m[2])
	return frames, missed
}

// caught is a frame of a file.
type caught struct {
	port string
	data []byte
	size int // of the whole frame
	at   time.Time
}

// readCapture is what gopacket finds in a file.
func readCapture(t *testing.T, file string) (all []caught) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		intf, err := r.Interface(ci.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, caught{intf.Name, data, ci.Length, ci.Timestamp})
	}
}

// describe is a frame's headers that the test looks at, in short.
func describe(b []byte) string {
	var s []string
	for _, l := range gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default).Layers() {
		switch l := l.(type) {
		case *layers.IPv4:
			s = append(s, fmt.Sprintf("%s>%s ttl %d", l.SrcIP, l.DstIP, l.TTL))
		case *layers.VXLAN:
			s = append(s, fmt.Sprintf("vni %d", l.VNI))
		case *layers.ICMPv4:
			s = append(s, fmt.Sprintf("%s seq %d", l.TypeCode, l.Seq))
			return strings.Join(s, ", ")
		}
	}
	return strings.Join(s, ", ")
}

// A ping to another node is seen at the pod's port and at the uplink, in both
// directions, with the headers that it has there; what is dropped with the reason. A
// bulk transfer's checksums are right in the file, although no sender made them.
func TestCapture(t *testing.T) {
	c := up(t, lab.Options{})
	n, from, to := c.Nodes[0], c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]
	must(t, from.Netns, "ping", "-n", "-c", "1", "-W", "2", to.Addr.String()) // neighbours are known
	port := podNamed(t, n, from.Name).Port
	dir := t.TempDir()
	all, wire := filepath.Join(dir, "all.pcapng"), filepath.Join(dir, "wire.pcapng")
	var printed, dropped lines
	captures := []*running{
		startCapture(t, n, io.Discard, "--port", port, "--port", "eth0", "-p", "icmp", "-w", all),
		startCapture(t, n, io.Discard, "--addr", to.Addr.String(), "-p", "tcp", "-w", wire, "--snaplen", "262158", "--count", "100000"),
		startCapture(t, n, &printed, "-p", "icmp", "--src", from.Addr.String(), "--direction", "rx"),
		startCapture(t, n, &dropped, "--direction", "drop", "--addr", from.Addr.String(), "-o", "json"),
	}
	if out, err := exec.Command(filepath.Join(binDir, "culvert"), "--socket", n.Socket, "capture").CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "4 captures are running") {
		t.Errorf("a fifth capture: %v: %s", err, out)
	}
	must(t, from.Netns, "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", to.Addr.String())
	_, _ = netns(from.Netns, "ping", "-n", "-c", "1", "-W", "1", "-t", "1", to.Addr.String()) // which fails
	_, _ = netns(from.Netns, "ping", "-n", "-c", "1", "-W", "1", "10.244.99.1")
	transfer(t, from.Netns, to.Netns, to.Addr.String(), 2, 1<<20)
	for i, r := range captures {
		if frames, missed := r.stop(); frames == 0 || missed != 0 && i != 1 { // of the bulk a busy machine may miss some
			t.Errorf("capture %d had %d frames and missed %d", i, frames, missed)
		}
	}

	a, b, na, nb := from.Addr.String(), to.Addr.String(), n.Addr.String(), c.Nodes[1].Addr.String()
	vxlan := fmt.Sprintf("vni %d, ", c.VNI)
	var want []string
	for seq := 1; seq <= 2; seq++ {
		want = append(want,
			fmt.Sprintf("%s %s>%s ttl 64, EchoRequest seq %d", port, a, b, seq),
			fmt.Sprintf("eth0 %s>%s ttl 64, %s%s>%s ttl 63, EchoRequest seq %d", na, nb, vxlan, a, b, seq),
			fmt.Sprintf("eth0 %s>%s ttl 64, %s%s>%s ttl 63, EchoReply seq %d", nb, na, vxlan, b, a, seq),
			fmt.Sprintf("%s %s>%s ttl 62, EchoReply seq %d", port, b, a, seq))
	}
	for _, probe := range []string{b + " ttl 1", "10.244.99.1 ttl 64"} {
		seen := fmt.Sprintf("%s %s>%s, EchoRequest seq 1", port, a, probe)
		want = append(want, seen, seen) // received, and dropped
		answer := "TimeExceeded(TTLExceeded)"
		if strings.HasPrefix(probe, "10.244.99") {
			answer = "DestinationUnreachable(Net)"
		}
		want = append(want, fmt.Sprintf("%s %s>%s ttl 64, %s seq 0", port, na, a, answer))
	}
	var got []string
	before := time.Time{}
	for _, f := range readCapture(t, all) {
		got = append(got, f.port+" "+describe(f.data))
		if f.at.Before(before) || time.Since(f.at) > time.Minute || len(f.data) != f.size {
			t.Errorf("%s at %v, behind one at %v, %d of %d bytes", got[len(got)-1], f.at, before, len(f.data), f.size)
		}
		before = f.at
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("captured:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	file, _ := os.ReadFile(all)
	for _, comment := range []string{"dropped: ttl_exceeded: ", "dropped: no_route: "} {
		if !bytes.Contains(file, []byte(comment)) {
			t.Errorf("the file has no comment %q", comment)
		}
	}
	if n := strings.Count(printed.text(), port+" In IP "+a+" > "); n != 4 || strings.Contains(printed.text(), "eth0") {
		t.Errorf("printed:\n%s", printed.text())
	}
	for _, reason := range []string{"ttl_exceeded", "no_route"} {
		if n := strings.Count(dropped.text(), `"direction":"drop","reason":"`+reason+`"`); n != 1 {
			t.Errorf("%d drops with %s:\n%s", n, reason, dropped.text())
		}
	}
	checkBulk(t, readCapture(t, wire))
}

// checkBulk verifies the frames of a transfer, whose checksums were left to devices.
func checkBulk(t *testing.T, all []caught) {
	t.Helper()
	big := 0
	for i, f := range all {
		b := f.data
		if f.size > 2000 {
			big++
		}
		if f.size > 65535 { // BIG TCP: the IP header does not say how long it is
			continue
		}
		if f.port == "eth0" {
			if wrong := kit.CheckSums(b); wrong != "" {
				t.Fatalf("frame %d, outside: %s", i, wrong)
			}
			b = b[50:]
		}
		if wrong := kit.CheckSums(b); wrong != "" || len(f.data) != f.size {
			t.Fatalf("frame %d at %s, %d of %d bytes: %s", i, f.port, len(f.data), f.size, wrong)
		}
	}
	if big == 0 {
		t.Errorf("of %d frames none was big", len(all))
	}
}

// A capture that nobody reads costs the capture: beside a flood the pings of others are
// answered as without, what has no room is counted, and with the client it is over.
func TestSlowCaptureLeavesForwardingAlone(t *testing.T) {
	c := up(t, lab.Options{Nodes: 1, Pods: 4, Config: "workers: 1\n"})
	n := c.Nodes[0]
	flooder, sink, a, b := n.Pods[0], n.Pods[1], n.Pods[2], n.Pods[3]
	must(t, a.Netns, "ping", "-n", "-c", "1", "-W", "2", b.Addr.String())
	unread, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unread.Close()
	slow := startCapture(t, n, out, "-w", "-", "--count", "100000000")
	out.Close()
	pings := startPing(a.Netns, b.Addr.String())
	floodUDP(t, flooder, sink, 2*time.Second)
	sent, received := pings.result(t)
	spare := sent / 4 // the flood itself costs some, on a busy machine
	t.Logf("%d of %d pings answered, %v frames missed", received, sent, metric(t, n, "culvert_capture_missed_total"))
	if sent < 20 || sent-received > spare {
		t.Errorf("%d of %d pings were answered beside a flood that is captured", received, sent)
	}
	if metric(t, n, "culvert_captures") != 1 || metric(t, n, "culvert_capture_missed_total") == 0 {
		t.Errorf("%v captures run and missed %v frames", metric(t, n, "culvert_captures"), metric(t, n, "culvert_capture_missed_total"))
	}
	if err := slow.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = slow.cmd.Wait() // killed
	eventually(t, "the capture ends with its client", func() error {
		if v := metric(t, n, "culvert_captures"); v != 0 {
			return fmt.Errorf("%v captures run", v)
		}
		return nil
	})
	if metric(t, n, "culvert_capture_missed_total") == 0 {
		t.Error("what was missed is forgotten with the capture")
	}
	transfer(t, flooder.Netns, b.Netns, b.Addr.String(), 1, 1<<20)
}

// metric is a value of a node's metrics without labels.
func metric(t *testing.T, n *lab.Node, name string) float64 {
	t.Helper()
	var page []byte
	err := inside(n.Netns, func() error {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:9476", 2*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		page, err = io.ReadAll(conn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(page)
	if m == nil {
		t.Fatalf("there is no metric %s", name)
	}
	v, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
