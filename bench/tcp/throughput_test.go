package tcp

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Flags of the measurement. It is run by "make bench-tcp" only: other tests at
// the same time would be measured, too.
var (
	measured    = flag.Bool("tcp", false, "run TestThroughput")
	scenarios   = flag.String("scenarios", "", "comma-separated subset of the scenarios, or mtu-wire-gro")
	pairs       = flag.String("pairs", "", "comma-separated subset of the pairs: kernel-kernel, culvert-kernel, ...")
	pods        = flag.String("pods", "veth,tap", "kinds of pods of culvert nodes")
	connections = flag.String("connections", "1,8", "numbers of connections at the same time")
	rounds      = flag.Int("rounds", 3, "rounds of TestThroughput")
	seconds     = flag.Int("seconds", 4, "seconds of each turn")
	warmUp      = flag.Int("warm-up", 1, "seconds before them that are left out")
	latency     = flag.Bool("latency", false, "ping, too")
	congestion  = flag.String("congestion", "", "congestion control, instead of the machine's")
	patience    = flag.Duration("patience", 10*time.Second, "how long to wait for a quiet machine before each turn")
	bin         = flag.String("bin", "../../bin", "directory of culvertd and culvert-cni")
	jsonFile    = flag.String("report", "../out/tcp.json", "where the report goes")
)

// flagOptions are the options that the flags say.
func flagOptions() (o Options, err error) {
	o = Options{
		Rounds: *rounds, Seconds: *seconds, WarmUp: *warmUp, Congestion: *congestion, Patience: *patience,
		Progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	}
	if *latency {
		o.Echoes = 20000
	}
	for text := range strings.SplitSeq(*connections, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return o, fmt.Errorf("connections %q: %w", text, err)
		}
		o.Connections = append(o.Connections, n)
	}
	if o.Bin, err = filepath.Abs(*bin); err != nil {
		return o, err
	}
	o.Scenarios, err = Choose(*scenarios, *pairs, *pods)
	return o, err
}

// TestThroughput is the measurement. It reports also what it measured before
// something failed.
func TestThroughput(t *testing.T) {
	if !*measured {
		t.Skip("a measurement needs the machine for itself: make bench-tcp")
	}
	o, err := flagOptions()
	if err != nil {
		t.Fatal(err)
	}
	report, err := Run(stopped, o)
	if err != nil {
		t.Error(err)
	}
	if err := report.WriteTable(os.Stdout); err != nil {
		t.Error(err)
	}
	if err := report.WriteJSON(*jsonFile); err != nil {
		t.Error(err)
	}
}
