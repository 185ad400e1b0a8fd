package bulk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// transfer is what iperf3 says of one run.
type transfer struct {
	Gbits       float64 // a second, at the receiver
	Retransmits int     // of segments, by the sender
	Lost        float64 // part of the datagrams, 0 to 1
	Congestion  string  // control, of the sender; empty for UDP
}

// iperfSlack is how long iperf3 may take beyond its measured time.
const iperfSlack = 15 * time.Second

// iperf runs a server in one pod and a client in the other, and during while the
// client runs. The context of during ends if the client fails.
func (b *bed) iperf(ctx context.Context, o Options, connections int, during func(context.Context) error) (t transfer, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(o.WarmUp+o.Seconds)*time.Second+iperfSlack)
	defer cancel()
	server, err := b.to.space.Start(
		exec.Command("iperf3", "-s", "-4", "-B", b.to.addr.String(), "--forceflush"), filepath.Join(b.dir, "iperf3.log"))
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	err = server.Await(ctx, 5*time.Second, func() error {
		if !strings.Contains(server.Log(), "Server listening") {
			return errors.New("does not listen")
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	// Whichever of the two fails first ends the other.
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := during(running); err != nil {
			stop(err)
		}
	}()
	out, err := b.from.space.Run(running, exec.Command("iperf3", b.client(o, connections)...))
	if err != nil {
		stop(err)
	}
	<-ended
	if err := context.Cause(running); err != nil {
		return t, fmt.Errorf("iperf3 from %s to %s: %w", b.from.addr, b.to.addr, err)
	}
	return parseIperf([]byte(out))
}

// client are the arguments of iperf3 that sends.
func (b *bed) client(o Options, connections int) []string {
	args := []string{"-c", b.to.addr.String(), "-P", strconv.Itoa(connections), "-J"}
	if o.Datagrams > 0 {
		// iperf3 3.12 counts what the receiver lost in the time that -O leaves out: all
		// of it is of the measurement.
		return append(args, "-u", "-b", "0", "-l", strconv.Itoa(o.Datagrams), "-t", strconv.Itoa(o.WarmUp+o.Seconds))
	}
	args = append(args, "-t", strconv.Itoa(o.Seconds), "-O", strconv.Itoa(o.WarmUp))
	if o.Congestion != "" {
		args = append(args, "-C", o.Congestion)
	}
	return args
}

// parseIperf reads what the client printed for -J. Warnings may be before it.
func parseIperf(out []byte) (transfer, error) {
	if begin := bytes.IndexByte(out, '{'); begin > 0 {
		out = out[begin:]
	}
	var report struct {
		Error string
		End   struct {
			SumSent     struct{ Retransmits int } `json:"sum_sent"`
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
				LostPercent   float64 `json:"lost_percent"`
			} `json:"sum_received"`
			Congestion string `json:"sender_tcp_congestion"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return transfer{}, fmt.Errorf("what iperf3 printed: %w", err)
	}
	if report.Error != "" {
		return transfer{}, fmt.Errorf("iperf3: %s", report.Error)
	}
	end := report.End
	if end.SumReceived.BitsPerSecond <= 0 {
		return transfer{}, errors.New("iperf3 received nothing")
	}
	return transfer{
		Gbits: end.SumReceived.BitsPerSecond / 1e9, Retransmits: end.SumSent.Retransmits,
		Lost: end.SumReceived.LostPercent / 100, Congestion: end.Congestion,
	}, nil
}
