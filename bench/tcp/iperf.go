package tcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// transfer is what iperf3 says of one run.
type transfer struct {
	Gbits       float64 // a second, at the receiver
	Retransmits int     // of segments, by the sender
	Congestion  string  // control, of the sender
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
	args := []string{"-c", b.to.addr.String(), "-P", strconv.Itoa(connections), "-J",
		"-t", strconv.Itoa(o.Seconds), "-O", strconv.Itoa(o.WarmUp)}
	if o.Congestion != "" {
		args = append(args, "-C", o.Congestion)
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
	out, err := b.from.space.Run(running, exec.Command("iperf3", args...))
	if err != nil {
		stop(err)
	}
	<-ended
	if err := context.Cause(running); err != nil {
		return t, fmt.Errorf("iperf3 from %s to %s: %w", b.from.addr, b.to.addr, err)
	}
	return parseIperf([]byte(out))
}

// parseIperf reads what the client printed for -J.
func parseIperf(out []byte) (transfer, error) {
	var report struct {
		Error string
		End   struct {
			SumSent     struct{ Retransmits int } `json:"sum_sent"`
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
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
	return transfer{end.SumReceived.BitsPerSecond / 1e9, end.SumSent.Retransmits, end.Congestion}, nil
}

// echoes are the statistics of a series of pings.
type echoes struct {
	Sent, Received int
	MeanMicros     float64
}

// ping sends n echo requests from pod to pod, each as soon as the one before
// it is answered.
func (b *bed) ping(ctx context.Context, n int) (echoes, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := b.from.space.Run(ctx, exec.Command("ping", "-f", "-q", "-c", strconv.Itoa(n), b.to.addr.String()))
	if err != nil {
		return echoes{}, err
	}
	return parsePing(out)
}

var (
	pingCounts = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)
	pingTimes  = regexp.MustCompile(`= [\d.]+/([\d.]+)/[\d.]+/[\d.]+ ms`)
)

// parsePing reads the last lines of ping.
func parsePing(out string) (e echoes, err error) {
	counts, times := pingCounts.FindStringSubmatch(out), pingTimes.FindStringSubmatch(out)
	if counts == nil || times == nil {
		return e, fmt.Errorf("ping printed something else: %s", out)
	}
	var errs [3]error
	e.Sent, errs[0] = strconv.Atoi(counts[1])
	e.Received, errs[1] = strconv.Atoi(counts[2])
	e.MeanMicros, errs[2] = strconv.ParseFloat(times[1], 64)
	e.MeanMicros *= 1000
	return e, errors.Join(errs[:]...)
}
