package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"culvert/bench/sample"
)

// Report is what a run found.
type Report struct {
	Started  time.Time      `json:"started"`
	Machine  sample.Machine `json:"machine"`
	Settings Settings       `json:"settings"`
	Devices  []Summary      `json:"devices"`
	Ratios   []Ratio        `json:"ratios"`
	Rounds   []Measurement  `json:"rounds"`
}

// Settings are the options that make runs comparable.
type Settings struct {
	Direction    Direction `json:"direction"`
	Rounds       int       `json:"rounds"`
	Seconds      float64   `json:"seconds"`
	WarmUp       float64   `json:"warmUpSeconds"`
	FrameLen     int       `json:"frameLen"`
	Flows        int       `json:"flows"`
	GeneratorCPU int       `json:"generatorCPU"`
}

// Summary is one device over all rounds.
type Summary struct {
	Device      string  `json:"device"`
	Note        string  `json:"note,omitempty"`
	Mpps        float64 `json:"mpps"` // median, as all but the next two
	MinMpps     float64 `json:"minMpps"`
	MaxMpps     float64 `json:"maxMpps"`
	Spread      float64 `json:"spread"` // (max - min) / median
	CoresBusy   float64 `json:"coresBusy"`
	DeviceCores float64 `json:"deviceCores"`
	Nanos       float64 `json:"nanosPerPacket"`
	Background  float64 `json:"background"`
}

// Ratio compares two devices' delivered packets round by round.
type Ratio struct {
	Device string  `json:"device"`
	To     string  `json:"to"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func newReport(o Options) *Report {
	return &Report{
		Started: time.Now().UTC().Truncate(time.Second),
		Machine: sample.ThisMachine(),
		Settings: Settings{
			Direction: o.Direction, Rounds: o.Rounds, Seconds: o.Duration.Seconds(), WarmUp: o.WarmUp.Seconds(),
			FrameLen: o.FrameLen, Flows: o.Flows, GeneratorCPU: o.GeneratorCPU,
		},
	}
}

// Of is a device's summary.
func (r *Report) Of(device string) (Summary, bool) {
	i := slices.IndexFunc(r.Devices, func(s Summary) bool { return s.Device == device })
	if i < 0 {
		return Summary{}, false
	}
	return r.Devices[i], true
}

// background is the median over all rounds.
func (r *Report) background() float64 {
	return sample.Median(sample.Column(r.Rounds, func(m Measurement) float64 { return m.Background }))
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

// WriteTable writes the report for a terminal.
func (r *Report) WriteTable(w io.Writer) error {
	s := r.Settings
	_, err := fmt.Fprintf(w, "%s, %d-byte frames, %d flows, %d rounds of %gs; Linux %s, %d × %s\n\n",
		s.Direction, s.FrameLen, s.Flows, s.Rounds, s.Seconds, r.Machine.Kernel, r.Machine.Cores, r.Machine.Processor)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "device\tMpps\tmin\tmax\tspread\tcores busy\tits own\tns/packet\t")
	for _, d := range r.Devices {
		fmt.Fprintf(t, "%s\t%.3f\t%.3f\t%.3f\t%.0f%%\t%.2f\t%.2f\t%.0f\t\n",
			d.Device, d.Mpps, d.MinMpps, d.MaxMpps, 100*d.Spread, d.CoresBusy, d.DeviceCores, d.Nanos)
	}
	err = errors.Join(err, t.Flush())
	if len(r.Ratios) > 0 {
		fmt.Fprintln(t, "\nratio, round by round\tmedian\tmin\tmax\t")
	}
	for _, x := range r.Ratios {
		fmt.Fprintf(t, "%s / %s\t%.2f\t%.2f\t%.2f\t\n", x.Device, x.To, x.Median, x.Min, x.Max)
	}
	err = errors.Join(err, t.Flush())
	if busy := r.background(); busy > sample.QuietCores {
		fmt.Fprintf(t, "\nthe machine was not quiet: %.2f cores were busy before the rounds (median)\n", busy)
	}
	err = errors.Join(err, t.Flush())
	for _, d := range r.Devices {
		_, noteErr := fmt.Fprintf(w, "%s: %s\n", d.Device, d.Note)
		err = errors.Join(err, noteErr)
	}
	return err
}
