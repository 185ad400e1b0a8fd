package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// demoBytes is what the demo sends over TCP, each time.
const demoBytes = 100_000_000

// RunDemo builds a lab, shows it at work on out, and takes it down: also when
// something fails, ctx ends, a signal to end arrives, or nobody reads standard
// output any more. An error says what did not work; out has shown the rest.
func RunDemo(ctx context.Context, opts Options, out io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	start := time.Now()
	if opts.Progress == nil {
		opts.Progress = out
	}
	l, err := Up(ctx, opts)
	if err != nil {
		return err
	}
	defer func() {
		fmt.Fprintln(out)
		l.say("lab %s: taking everything down", l.Name)
		if derr := l.Down(); derr != nil {
			err = errors.Join(err, derr)
			return
		}
		l.say("lab %s: nothing is left; the demo took %.1f s", l.Name, time.Since(start).Seconds())
	}()
	return l.Demo(ctx, out)
}

// Demo sends traffic between the lab's pods and shows what happened on out. It
// goes on after a failure, and returns all of them. The lab stays up.
func (l *Lab) Demo(ctx context.Context, out io.Writer) error {
	d := &demo{lab: l, out: out, ended: ctx.Err}
	d.topology()
	pairs := d.pairs()
	for _, part := range []func(context.Context, [][2]*Pod){d.pings, d.transfers, d.traceroutes, d.tables} {
		part(ctx, pairs)
		if err := ctx.Err(); err != nil {
			return errors.Join(append(d.failures, fmt.Errorf("the demo was interrupted: %w", err))...)
		}
	}
	return errors.Join(d.failures...)
}

// demo is one showing.
type demo struct {
	lab      *Lab
	out      io.Writer
	ended    func() error // why to stop: the context's error
	failures []error
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// section begins a part with its headline.
func (d *demo) section(title string) {
	d.printf("\n%s\n%s\n", title, strings.Repeat("─", len([]rune(title))))
}

// fail shows a failure and keeps it. What fails because the demo was told to
// end is none.
func (d *demo) fail(format string, args ...any) {
	if d.ended() != nil {
		return
	}
	err := fmt.Errorf(format, args...)
	d.failures = append(d.failures, err)
	d.printf("  ✗ %v\n", err)
}

// pairs are the pods that talk: two of the first node, and the first node's
// with the last node's, in both directions.
func (d *demo) pairs() (pairs [][2]*Pod) {
	first, last := d.lab.Nodes[0], d.lab.Nodes[len(d.lab.Nodes)-1]
	if len(first.Pods) > 1 {
		pairs = append(pairs, [2]*Pod{first.Pods[0], first.Pods[1]})
	}
	if first != last {
		pairs = append(pairs, [2]*Pod{first.Pods[0], last.Pods[0]}, [2]*Pod{last.Pods[0], first.Pods[0]})
	}
	return pairs
}

// topology draws who is where.
func (d *demo) topology() {
	over := "IPv4"
	if d.lab.underlay6() {
		over = "IPv6"
	}
	d.section(fmt.Sprintf("Lab %s: VXLAN %d over UDP port %d, %s", d.lab.Name, d.lab.VNI, d.lab.Port, over))
	for _, n := range d.lab.Nodes {
		runs := map[Kind]string{Culvert: "culvertd", Flannel: "kernel VXLAN, as Flannel sets it up", Calico: "kernel VXLAN, as Calico sets it up"}[n.Kind]
		d.printf("  %s  %-15s pods %-15s %s\n", n.Name, n.Addr, joined(n.PodCIDRs), runs)
		for i, p := range n.Pods {
			branch := "├──"
			if i == len(n.Pods)-1 {
				branch = "└──"
			}
			d.printf("   %s pod %-4s %s\n", branch, p.Name, joined(p.Addrs))
		}
	}
}

// joined are addresses or prefixes in a row.
func joined[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}

// route is "a1 → b1" and where that goes.
func (d *demo) route(p [2]*Pod) string {
	where := "same node"
	if p[0].Node != p[1].Node {
		where = p[0].Node + " to " + p[1].Node
	}
	return fmt.Sprintf("%-4s → %-4s %-18s", p[0].Name, p[1].Name, where)
}

func (d *demo) pings(ctx context.Context, pairs [][2]*Pod) {
	largest := d.lab.PodMTU() - 28
	if pairs == nil || pairs[0][0].Addr.Is6() {
		largest = d.lab.PodMTU() - 48
	}
	d.section(fmt.Sprintf("Ping, don't-fragment set; %d bytes of data is the most that fits", largest))
	d.printf("  %-29s %8s %8s\n", "", "56 B", fmt.Sprint(largest, " B"))
	for _, p := range pairs {
		// The first packet resolves the gateway; it is not part of the measure.
		if _, err := Ping(ctx, p[0], p[1].Addr, 56, 1); err != nil {
			d.fail("ping %s to %s: %w", p[0].Name, p[1].Name, err)
			continue
		}
		small, err := Ping(ctx, p[0], p[1].Addr, 56, 10)
		if err != nil {
			d.fail("ping %s to %s: %w", p[0].Name, p[1].Name, err)
			continue
		}
		large, err := Ping(ctx, p[0], p[1].Addr, largest, 3)
		if err != nil {
			d.fail("ping %s to %s: %w", p[0].Name, p[1].Name, err)
			continue
		}
		d.printf("  %s %8s %8s   %s at best, %s on average\n", d.route(p),
			fmt.Sprint(small.Received, " of ", small.Sent), fmt.Sprint(large.Received, " of ", large.Sent), micros(small.Min), micros(small.Avg))
		if lost := small.Sent - small.Received + large.Sent - large.Received; lost > 0 {
			d.fail("%d of %d pings from %s to %s were not answered", lost, small.Sent+large.Sent, p[0].Name, p[1].Name)
		}
	}
}

func micros(t time.Duration) string { return fmt.Sprintf("%d µs", t.Microseconds()) }

func (d *demo) transfers(ctx context.Context, pairs [][2]*Pod) {
	d.section(fmt.Sprintf("TCP: %d MB of random data, SHA-256 at both ends", demoBytes/1_000_000))
	for _, p := range pairs {
		r, err := Transfer(ctx, p[0], p[1], demoBytes)
		if err != nil {
			d.fail("transfer from %s to %s: %w", p[0].Name, p[1].Name, err)
			continue
		}
		d.printf("  %s %5.2f s  %5.2f Gbit/s   sent %x…  received %x…\n", d.route(p), r.Took.Seconds(), r.Rate(), r.Sent[:4], r.Received[:4])
		if !r.Intact() {
			d.fail("what %s received is not what %s sent", p[1].Name, p[0].Name)
		}
	}
}

func (d *demo) traceroutes(ctx context.Context, pairs [][2]*Pod) {
	if len(pairs) == 0 {
		return
	}
	p := pairs[0]
	if i := slices.IndexFunc(pairs, func(p [2]*Pod) bool { return p[0].Node != p[1].Node }); i >= 0 {
		p = pairs[i]
	}
	d.section(fmt.Sprintf("Traceroute from %s to %s", p[0].Name, p[1].Name))
	hops, err := Traceroute(ctx, p[0], p[1].Addr)
	if err != nil {
		d.fail("traceroute from %s to %s: %w", p[0].Name, p[1].Name, err)
		return
	}
	for _, h := range hops {
		if !h.Addr.IsValid() {
			d.printf("  %d  *\n", h.TTL)
			continue
		}
		d.printf("  %d  %-15s %7s  %s\n", h.TTL, h.Addr, micros(h.RTT), d.lab.whose(h.Addr))
	}
	if len(hops) == 0 || !hops[len(hops)-1].Final {
		d.fail("the traceroute from %s did not reach %s", p[0].Name, p[1].Name)
	}
}

// whose says who has an address of the lab.
func (l *Lab) whose(a netip.Addr) string {
	for _, n := range l.Nodes {
		if a == n.Addr {
			return n.Name
		}
		for _, c := range n.PodCIDRs {
			switch a {
			case c.Addr():
				return n.Name + ", tunnel address"
			case c.Addr().Next():
				return n.Name + ", pods' gateway"
			}
		}
		for _, p := range n.Pods {
			if slices.Contains(p.Addrs, a) {
				return "pod " + p.Name
			}
		}
	}
	return ""
}

// tables shows what the agents say, through the operator's command.
func (d *demo) tables(ctx context.Context, _ [][2]*Pod) {
	for _, n := range d.lab.Nodes {
		if n.Kind != Culvert {
			continue
		}
		nouns := []string{"route", "fdb", "flow"}
		if n != d.lab.Nodes[0] {
			nouns = nouns[:1] // the second node's rest is the mirror of the first's
		}
		for _, noun := range nouns {
			d.section(fmt.Sprintf("%s: culvert %s", n.Name, noun))
			d.command(ctx, n, noun)
		}
	}
}

func (d *demo) command(ctx context.Context, n *Node, args ...string) {
	cmd := exec.CommandContext(ctx, d.lab.program("culvert"), append([]string{"--socket", n.Socket}, args...)...)
	text, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(text)) {
		d.printf("  %s\n", strings.TrimRight(line, "\n"))
	}
	if err != nil {
		d.fail("culvert %s on %s: %w", strings.Join(args, " "), n.Name, err)
	}
}
