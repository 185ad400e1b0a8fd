package tcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"culvert/bench/sample"
)

// Report is what a run found.
type Report struct {
	Started      time.Time      `json:"started"`
	Machine      sample.Machine `json:"machine"`
	Settings     Settings       `json:"settings"`
	Rows         []Row          `json:"rows"`
	NotAvailable []NotAvailable `json:"notAvailable,omitempty"`
	Measurements []Measurement  `json:"measurements"`
	Latencies    []Latency      `json:"latencies,omitempty"`
}

// Settings are the options that make runs comparable.
type Settings struct {
	Scenarios   []string `json:"scenarios"`
	Connections []int    `json:"connections"`
	Rounds      int      `json:"rounds"`
	Seconds     int      `json:"seconds"`
	WarmUp      int      `json:"warmUpSeconds"`
	Echoes      int      `json:"echoes"`
}

// NotAvailable is a pair that could not be measured.
type NotAvailable struct {
	Scenario string `json:"scenario"`
	Pair     string `json:"pair"`
	Why      string `json:"why"`
}

func newReport(o Options) *Report {
	s := Settings{Connections: o.Connections, Rounds: o.Rounds, Seconds: o.Seconds, WarmUp: o.WarmUp, Echoes: o.Echoes}
	for _, scenario := range o.Scenarios {
		s.Scenarios = append(s.Scenarios, scenario.Name)
	}
	return &Report{Started: time.Now().UTC().Truncate(time.Second), Machine: sample.ThisMachine(), Settings: s}
}

// WriteJSON writes the report to a file, making its directory.
func (r *Report) WriteJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// legend explains the names of the table.
const legend = `kernel: the kernel's routing and VXLAN; culvert: culvertd with pods on veths; tap: culvertd with pods on taps.
A pair's data goes from the first to the second. cores: of the machine, iperf3 included, and of all culvertds.
frame: mean bytes of the frames with data on the wire. ratio: to kernel-kernel, round by round.`

// WriteTable writes the report for a terminal.
func (r *Report) WriteTable(w io.Writer) error {
	s := r.Settings
	_, err := fmt.Fprintf(w, "TCP by iperf3 (%s), pod MTU 1450, %d rounds of %d s after %d s; Linux %s, %d × %s\n%s\n",
		r.congestion(), s.Rounds, s.Seconds, s.WarmUp, r.Machine.Kernel, r.Machine.Cores, r.Machine.Processor, legend)
	for _, scenario := range s.Scenarios {
		err = errors.Join(err, r.writeScenario(w, scenario))
	}
	if busy := r.background(); busy > sample.QuietCores {
		_, noteErr := fmt.Fprintf(w, "\nthe machine was not quiet: %.2f cores were busy before the turns (median)\n", busy)
		err = errors.Join(err, noteErr)
	}
	return err
}

func (r *Report) writeScenario(w io.Writer, scenario string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\n%s\tconns\tGbit/s\tmin\tmax\tretrans\tcores\tculvertd\tframe\tratio\tmin\tmax\t\n", scenario)
	for _, row := range r.Rows {
		if row.Scenario == scenario && row.Connections > 0 {
			fmt.Fprintf(t, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.0f\t%.2f\t%.2f\t%s\t%s\t\n", row.Pair, row.Connections,
				row.Gbits.Median, row.Gbits.Min, row.Gbits.Max, row.Retransmits, row.CoresBusy, row.AgentCores,
				frameLen(row.FrameLen), ratioCells(row.Ratio))
		}
	}
	err := t.Flush()
	for _, n := range r.NotAvailable {
		if n.Scenario == scenario {
			_, noteErr := fmt.Fprintf(w, "%s is not available: %s\n", n.Pair, n.Why)
			err = errors.Join(err, noteErr)
		}
	}
	for _, row := range r.Rows {
		if row.Scenario == scenario && len(row.Drops) > 0 {
			_, dropErr := fmt.Fprintf(w, "%s × %d dropped in all rounds: %s\n", row.Pair, row.Connections, dropList(row.Drops))
			err = errors.Join(err, dropErr)
		}
	}
	return errors.Join(err, r.writeLatencies(w, scenario))
}

func (r *Report) writeLatencies(w io.Writer, scenario string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, row := range slices.DeleteFunc(slices.Clone(r.Rows), func(row Row) bool {
		return row.Scenario != scenario || row.Connections > 0
	}) {
		if i == 0 {
			fmt.Fprintf(t, "\n%s\tping, µs\tmin\tmax\tlost\tratio\tmin\tmax\t\n", scenario)
		}
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%d\t%s\t\n", row.Pair, row.Micros.Median, row.Micros.Min, row.Micros.Max, row.Lost, ratioCells(row.Ratio))
	}
	return t.Flush()
}

func ratioCells(s *Spread) string {
	if s == nil {
		return "-\t-\t-"
	}
	return fmt.Sprintf("%.2f\t%.2f\t%.2f", s.Median, s.Min, s.Max)
}

func frameLen(mean float64) string {
	if mean == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", mean)
}

// dropList is the reasons, in order.
func dropList(drops map[string]uint64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		parts = append(parts, fmt.Sprintf("%d %s", drops[reason], reason))
	}
	return strings.Join(parts, ", ")
}

// congestion is the senders' congestion control.
func (r *Report) congestion() string {
	if len(r.Measurements) == 0 {
		return "nothing measured"
	}
	return r.Measurements[0].Congestion
}
