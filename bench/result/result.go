package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"culvert/bench/sample"
)

// Format is the number of the form of results.json. It changes when an older
// reader would misunderstand a file.
const Format = 1

// Report is one run.
type Report struct {
	Format      int            `json:"format"`
	Started     time.Time      `json:"started"`
	Seconds     float64        `json:"seconds"` // that all of it took
	Version     string         `json:"version"` // of Culvert
	Machine     sample.Machine `json:"machine"`
	Settings    Settings       `json:"settings"`
	Experiments []Experiment   `json:"experiments"`
}

// Settings are what makes two runs comparable.
type Settings struct {
	Set     string  `json:"set"` // standard, quick, or what was chosen
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // measured, of each device, case and round
	WarmUp  float64 `json:"warmUpSeconds"`
	// Generator of packets, and the processor it ran on.
	Generator    string `json:"generator"`
	GeneratorCPU int    `json:"generatorCPU"`
}

// Experiment is one question asked of several devices under test.
type Experiment struct {
	Name  string `json:"name"`  // such as encap-size: letters, digits, hyphens
	Title string `json:"title"` // a heading
	About string `json:"about"` // what is done, in a sentence or two
	// Axis is what the X of the cases is, with its unit: "frame length, bytes".
	// Empty when the cases are no points of an axis.
	Axis string `json:"axis,omitempty"`
	Log  bool   `json:"log,omitempty"` // the axis is logarithmic
	// Metric is the one that its ratios and its first chart are about.
	Metric string `json:"metric"`
	// Definition tells experiments of the same name apart that measure something
	// else: a hash of what the cases are, hexadecimal.
	Definition string `json:"definition,omitempty"`
	// Cases in their order. In each the devices are in the order of their turns;
	// the first is what all others are compared with.
	Cases []Case `json:"cases"`
	// Missing are the devices that could not take part.
	Missing []Missing `json:"missing,omitempty"`
}

// Case is one load, such as one frame length.
type Case struct {
	Name string  `json:"name"` // unique in its experiment: "64 B"
	X    float64 `json:"x"`    // on the experiment's axis
	Runs []Run   `json:"runs"`
}

// Run is one device in one round.
type Run struct {
	Device string `json:"device"`
	Round  int    `json:"round"` // from 1
	// Note says how the device was really set up, where that can vary.
	Note string `json:"note,omitempty"`
	// Background is how many cores were busy just before.
	Background float64 `json:"background"`
	// Values by the names of Metrics.
	Values map[string]float64 `json:"values,omitempty"`
	// Latency is the distribution of single times, ascending; empty where none
	// was measured.
	Latency []Quantile `json:"latency,omitempty"`
	// Failed says why there are no values: the device did not do the work.
	Failed string `json:"failed,omitempty"`
}

// Quantile is a point of a distribution: Q of all times, 0 to 1, took at most
// Micros.
type Quantile struct {
	Q      float64 `json:"q"`
	Micros float64 `json:"us"`
}

// Missing is a device that this machine cannot run.
type Missing struct {
	Device string `json:"device"`
	Why    string `json:"why"`
}

// Write writes the report to a file, making its directory.
func (r *Report) Write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	return nil
}

// Read reads a file that Write wrote.
func Read(path string) (*Report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading results: %w", err)
	}
	r := &Report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("reading results: %s: %w", path, err)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("reading results: %s has form %d, this program knows %d: measure again", path, r.Format, Format)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("reading results: %s: %w", path, err)
	}
	return r, nil
}

// check makes sure that everything else may rely on what the types promise.
func (r *Report) check() error {
	names := make(map[string]bool)
	for _, e := range r.Experiments {
		if e.Name == "" || names[e.Name] {
			return fmt.Errorf("experiment %q: without a name of its own", e.Name)
		}
		names[e.Name] = true
		if _, ok := MetricOf(e.Metric); !ok {
			return fmt.Errorf("experiment %s: unknown metric %q", e.Name, e.Metric)
		}
		cases := make(map[string]bool)
		for _, c := range e.Cases {
			if c.Name == "" || cases[c.Name] {
				return fmt.Errorf("experiment %s: case %q: without a name of its own", e.Name, c.Name)
			}
			cases[c.Name] = true
			for _, run := range c.Runs {
				if err := run.check(); err != nil {
					return fmt.Errorf("experiment %s, case %s: %w", e.Name, c.Name, err)
				}
			}
		}
	}
	return nil
}

func (r *Run) check() error {
	if r.Device == "" || r.Round < 1 {
		return errors.New("a run needs a device and a round from 1")
	}
	for name := range r.Values {
		if _, ok := MetricOf(name); !ok {
			return fmt.Errorf("unknown metric %q", name)
		}
	}
	return nil
}
