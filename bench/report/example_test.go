package report

import (
	"fmt"
	"math"
	"time"

	"culvert/bench/result"
	"culvert/bench/sample"
)

// example is a report with everything that can be in one: axes and none, times,
// devices that failed, are missing, or have names that are meant ill.
func example() *result.Report {
	devices := []string{"culvert", "ovs-native", "ovs-generic", "kernel", "kernel-rps"}
	r := &result.Report{
		Format: result.Format, Version: "v1.2-34-gabcdef", Started: time.Unix(1.79e9, 0).UTC(), Seconds: 812,
		Machine:  sample.Machine{Kernel: "6.18.44", Processor: "AMD EPYC", Cores: 2},
		Settings: result.Settings{Set: "standard", Rounds: 5, Seconds: 1, WarmUp: 0.3},
	}
	sizes := experiment("encap-size", "A pod's packets leave in VXLAN, by length", "length of the pod's frame, bytes", devices,
		[]float64{64, 256, 512, 1024, 1464}, func(d int, x float64) float64 { return 0.7 / (1 + 0.1*float64(d)) / (1 + x/4000) })
	flows := experiment("flows", "Many flows at once", "flows", devices[:2],
		[]float64{1, 1000, 100_000, 1_000_000}, func(d int, x float64) float64 { return 0.6 - 0.02*math.Log10(x) - 0.1*float64(d) })
	lanes := experiment("lanes", "Culvert's ways to attach and to poll", "",
		[]string{"culvert", "culvert-generic", "culvert-native", "culvert-busy", "bare-generic-generic", "bare-native-native"},
		[]float64{1, 2}, func(d int, _ float64) float64 { return 0.6 + 0.01*float64(d) })
	tcp := experiment("tcp-local", "TCP between pods of one node", "", []string{"culvert-culvert", "tap-tap", "kernel-kernel"},
		[]float64{1, 8}, func(d int, _ float64) float64 { return 26 - 3*float64(d) })
	tcp.Metric = result.Gbits
	hostile := experiment("hostile", `<script>alert("title")</script>`, "", []string{`<img src=x onerror=alert(1)>`, "averyveryverylongnamewithoutanyplacetobreakit"},
		[]float64{1}, func(int, float64) float64 { return 1 })
	hostile.About = `"><script>alert("about")</script>`
	hostile.Missing = []result.Missing{{Device: "ovs-native", Why: "ovs-vswitchd: executable file not found in $PATH: make deps-bench"}}
	hostile.Cases[0].Runs = append(hostile.Cases[0].Runs, result.Run{Device: "broken", Round: 1, Failed: "of 12 frames none arrived\n<b>log</b>"})
	r.Experiments = []result.Experiment{sizes, flows, lanes, times(devices[:4]), tcp, hostile}
	return r
}

// experiment has five rounds of every device in every case.
func experiment(name, title, axis string, devices []string, xs []float64, f func(d int, x float64) float64) result.Experiment {
	e := result.Experiment{Name: name, Title: title, About: "What it is about, in a sentence.", Axis: axis, Log: axis != "", Metric: result.Mpps}
	for _, x := range xs {
		c := result.Case{Name: fmt.Sprintf("%.0f", x), X: x}
		for round := 1; round <= 5; round++ {
			for d, device := range devices {
				v := f(d, x) * (1 + 0.02*math.Sin(float64(round*7+d)))
				c.Runs = append(c.Runs, result.Run{Device: device, Round: round, Background: 0.02, Note: "1 worker", Values: map[string]float64{
					result.Mpps: v, result.Gbits: v, result.NanosPacket: 1000 / v, result.CoresBusy: 1.9, result.Memory: 140,
				}})
			}
		}
		e.Cases = append(e.Cases, c)
	}
	return e
}

// times has distributions of times.
func times(devices []string) result.Experiment {
	e := experiment("latency", "Request and response", "", devices, []float64{1}, func(int, float64) float64 { return 1 })
	e.Metric = result.P50
	for n := range e.Cases[0].Runs {
		r := &e.Cases[0].Runs[n]
		base := 20.0 + float64(len(r.Device))
		r.Values = map[string]float64{result.P50: base, result.P99: 3 * base, result.P999: 9 * base, result.Transactions: 1e6 / base}
		for _, q := range []float64{0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1} {
			r.Latency = append(r.Latency, result.Quantile{Q: q, Micros: base * (0.8 + nines(q)*nines(q))})
		}
	}
	return e
}
