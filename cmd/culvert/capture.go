package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"culvert/ctrl/api"
)

func (a *app) captureCommand() *cobra.Command {
	var req api.CaptureRequest
	var file string
	c := &cobra.Command{
		Use:   "capture",
		Short: "Print frames as the dataplane sees them, or write them to a file",
		Long: "Print frames as the dataplane receives them (In), hands them to a device (Out) and drops\n" +
			"them (Drop, with the reason), or write them as pcapng. A tunnel packet is received before\n" +
			"it is opened and sent after it is packed; the filter looks inside. A dropped frame was\n" +
			"received before: --direction drop has it once. The capture ends after --count frames or\n" +
			"--duration. Frames that come faster than they are read are counted as missed.",
		Example: "  culvert capture --port eth0 -p icmp\n" +
			"  culvert capture --direction drop --count 10\n" +
			"  culvert capture --addr 10.244.1.2 -w pod.pcapng\n" +
			"  culvert capture -w - | wireshark -k -i -",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.capture(cmd, &req, file) },
	}
	f := c.Flags()
	f.StringVarP(&file, "write", "w", "", "write pcapng to a file, - for standard output, instead of printing")
	f.StringArrayVar(&req.Ports, "port", nil, "port, by its name; may be given several times; default all")
	f.Var(&parsedFlag{&req.Direction, api.ParseCaptureDirection}, "direction", "rx, tx, drop or any (default any)")
	f.Var(&parsedFlag{&req.Reason, api.ParseDropReason}, "reason", "drop reason: dropped frames with that one only")
	f.VarP(&parsedFlag{&req.Proto, api.ParseCaptureProto}, "proto", "p", "protocol: tcp, udp, sctp, icmp, icmpv6, ipip, arp, or a number")
	f.VarP((*prefixFlag)(&req.Src), "src", "s", "source address or prefix")
	f.VarP((*prefixFlag)(&req.Dst), "dst", "d", "destination address or prefix")
	f.Var((*prefixFlag)(&req.Addr), "addr", "address or prefix of either end")
	f.Uint16Var(&req.Sport, "sport", 0, "source port of TCP, UDP or SCTP")
	f.Uint16Var(&req.Dport, "dport", 0, "destination port")
	f.Uint16Var(&req.L4Port, "l4port", 0, "port of either end")
	f.IntVarP(&req.Count, "count", "c", api.DefaultCaptureCount, "end after so many frames")
	f.DurationVar(&req.Duration, "duration", api.DefaultCaptureDuration, "end after that time, 24h at most")
	f.IntVar(&req.Snaplen, "snaplen", api.DefaultSnaplen, "bytes kept of a frame")
	completeEnum(c, "direction", api.CaptureDirections())
	completeEnum(c, "proto", append([]string{api.ProtoARP}, flowProtocols...))
	return c
}

// errCaptureEnded ends the watch: the agent has said that it is done.
var errCaptureEnded = errors.New("the capture has ended")

// captureSink takes the frames of a capture.
type captureSink interface {
	begin(e *api.CaptureEvent) error
	frame(f *api.CapturedFrame) error
	missed(n uint64) error
}

func (a *app) capture(cmd *cobra.Command, req *api.CaptureRequest, file string) (err error) {
	for flag, n := range map[string]int{"count": req.Count, "snaplen": req.Snaplen, "duration": int(req.Duration)} {
		if n < 1 {
			return &usageError{fmt.Errorf("--%s: must be more than 0", flag)}
		}
	}
	if file != "" && a.json() {
		return &usageError{errors.New("-w writes pcapng: it cannot be had with -o json")}
	}
	sink, done, err := newCaptureSink(a, cmd, file, req.Snaplen)
	if err != nil {
		return err
	}
	frames, missed := 0, uint64(0)
	err = a.client().Watch(cmd.Context(), "/v1/capture?"+req.Query().Encode(), func(line []byte) error {
		var e api.CaptureEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("a line that this version does not expect: %w", err)
		}
		if a.json() {
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", line)
		}
		switch e.Event {
		case api.CaptureBegin:
			fmt.Fprintf(cmd.ErrOrStderr(), "capturing until %d frames, %v or an interrupt\n", req.Count, req.Duration.Round(time.Millisecond))
			return sink.begin(&e)
		case api.CaptureFrame:
			frames++
			return sink.frame(e.Frame)
		case api.CaptureMissed:
			missed += e.Missed
			return sink.missed(e.Missed)
		case api.CaptureEnd:
			return errCaptureEnded
		}
		return nil
	})
	if errors.Is(err, errCaptureEnded) {
		err = nil
	}
	if err = errors.Join(err, done()); err == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d frames captured, %d missed\n", frames, missed)
	}
	return err
}

// newCaptureSink opens what the frames go to. done ends it.
func newCaptureSink(a *app, cmd *cobra.Command, file string, snaplen int) (sink captureSink, done func() error, err error) {
	nothing := func() error { return nil }
	switch {
	case a.json():
		return noSink{}, nothing, nil
	case file == "":
		return &linePrinter{w: cmd.OutOrStdout()}, nothing, nil
	case file == "-":
		return newPcapWriter(cmd.OutOrStdout(), snaplen), nothing, nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // frames are nobody else's to read
	if err != nil {
		return nil, nil, fmt.Errorf("writing the capture: %w", err)
	}
	return newPcapWriter(f, snaplen), f.Close, nil
}

// noSink is of a capture whose lines are passed on as they are.
type noSink struct{}

func (noSink) begin(*api.CaptureEvent) error  { return nil }
func (noSink) frame(*api.CapturedFrame) error { return nil }
func (noSink) missed(uint64) error            { return nil }

// linePrinter prints a line for each frame.
type linePrinter struct {
	w io.Writer
	d describer
}

func (p *linePrinter) begin(e *api.CaptureEvent) error {
	p.d.vxlan = e.VXLAN
	return nil
}

// directionWords are those of 'tcpdump -i any'.
var directionWords = map[string]string{"rx": "In", "tx": "Out", "drop": "Drop"}

func (p *linePrinter) frame(f *api.CapturedFrame) error {
	reason, notes := f.Reason, ""
	if reason != "" {
		reason = "(" + reason + ")"
	}
	if f.GSO != nil {
		notes += fmt.Sprintf(", %d segments of %d", f.GSO.Segments, f.GSO.Size)
	}
	_, err := fmt.Fprintf(p.w, "%s %s %s%s %s, %d bytes%s\n", f.Time.Local().Format("15:04:05.000000"), cmp.Or(f.Port, "gone"),
		directionWords[f.Direction], reason, p.d.describe(f.Data), f.Length, notes)
	return err
}

func (p *linePrinter) missed(n uint64) error {
	_, err := fmt.Fprintf(p.w, "%d frames missed\n", n)
	return err
}
