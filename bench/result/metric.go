package result

import "slices"

// Metric is something that is measured.
type Metric struct {
	Name string // in results.json
	// Title is a column's heading, with the unit.
	Title string
	Unit  string
	// Lower says that less is better.
	Lower bool
	// Digits behind the point that mean something.
	Digits int
}

// Names of metrics.
const (
	Mpps         = "mpps"         // delivered packets
	Offered      = "offeredMpps"  // packets that the generator made
	Gbits        = "gbits"        // delivered, of the pods' frames or TCP payload
	Loss         = "loss"         // part of the offered packets that did not arrive
	ZeroLoss     = "zeroLossMpps" // the highest rate without loss (RFC 2544, section 26.1)
	NanosPacket  = "nsPerPacket"  // processor time of the machine, without the generator's, for a delivered packet
	CoresBusy    = "coresBusy"    // of the whole machine, the generator's included
	DeviceCores  = "deviceCores"  // of the device's processes
	Memory       = "memoryMiB"    // resident, of the device's processes, and what the kernel has for it
	P50          = "p50us"        // of request and response
	P99          = "p99us"
	P999         = "p999us"
	Transactions = "transactions" // requests answered a second
	Connections  = "connections"  // opened, used and closed a second
	Retransmits  = "retransmits"  // TCP segments sent again
)

// Metrics are all there are, in the order of columns.
var Metrics = []Metric{
	{Mpps, "Mpps", "Mpps", false, 3},
	{Offered, "offered Mpps", "Mpps", false, 3},
	{ZeroLoss, "zero loss Mpps", "Mpps", false, 3},
	{Gbits, "Gbit/s", "Gbit/s", false, 2},
	{Loss, "loss", "", true, 4},
	{NanosPacket, "ns/packet", "ns", true, 0},
	{CoresBusy, "cores busy", "cores", true, 2},
	{DeviceCores, "its own", "cores", true, 2},
	{Memory, "MiB", "MiB", true, 0},
	{P50, "p50 µs", "µs", true, 1},
	{P99, "p99 µs", "µs", true, 1},
	{P999, "p99.9 µs", "µs", true, 1},
	{Transactions, "requests/s", "1/s", false, 0},
	{Connections, "connections/s", "1/s", false, 0},
	{Retransmits, "retransmits", "", true, 0},
}

// MetricOf finds a metric by its name.
func MetricOf(name string) (Metric, bool) {
	i := slices.IndexFunc(Metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return Metrics[i], true
}
