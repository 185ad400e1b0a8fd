package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"sync"
	"time"

	"culvert/bench/peer"
	"culvert/bench/result"
	"culvert/bench/rr"
	"culvert/bench/run"
	"culvert/bench/testbed"
	"culvert/dataplane/xsk"
)

// question is a case of an experiment about requests and responses.
type question struct {
	name string
	ask  func(ctx context.Context, o rr.Options) (rr.Result, error)
	rr   rr.Options // without ends and times
	// half says that the rate is half of what the kernel answers at most.
	half bool
}

// clients is how many ask at the same time under load: more than the machine has
// processors.
const clients = 8

// latency is how long a response takes, while nothing else happens and under load.
func (o *Options) latency() run.Experiment {
	head := result.Experiment{
		Name: "latency", Title: "Request and response across nodes", Metric: result.P50,
		About: fmt.Sprintf("64 bytes each way, from a pod on the node under test to a kernel node beyond the wire. Idle: one connection, "+
			"the next request after each answer. At half load: %d connections together ask half as often as the kernel answers at most, "+
			"the same for all devices, each at its time.", clients),
	}
	all := questions()
	if o.quick() {
		all = all[:1]
	}
	return o.answering(head, o.askers(), all, result.Transactions)
}

// questions are those about latency.
func questions() (all []question) {
	for _, network := range []string{"tcp", "udp"} {
		all = append(all, question{name: network + ", idle", ask: rr.Run, rr: rr.Options{Network: network}})
		all = append(all, question{
			name: network + ", half load", ask: rr.Run, rr: rr.Options{Network: network, Connections: clients}, half: true,
		})
	}
	return all
}

// latencyBounds are those of the least that forwarders can be, beside the devices.
func (o *Options) latencyBounds() run.Experiment {
	head := result.Experiment{
		Name: "latency-bounds", Title: "Request and response through the least that a forwarder can be", Metric: result.P50,
		Definition: "bounds;",
		About:      "As latency. bare hands every packet to a thread that never sleeps and knows no tables; tcx-offload stays in the kernel.",
	}
	busy := peer.Culvert{Bin: o.Bin, Mode: "auto", Poll: "busy"}
	devices := append(o.culvert(), busy, peer.Bare{Pod: xsk.ModeGeneric, Uplink: xsk.ModeGeneric, CPU: o.workerCPU()},
		o.ovs()[1], peer.Kernel{}, peer.Offload{})
	return o.answering(head, devices, questions(), result.Transactions)
}

// transactions is how many requests are answered at most.
func (o *Options) transactions() run.Experiment {
	head := result.Experiment{
		Name: "transactions", Title: "Requests and responses a second across nodes", Metric: result.Transactions,
		About: fmt.Sprintf("As latency, but the next request after each answer, on %d connections at once: threads and device share the processors.", clients),
	}
	return o.answering(head, o.few(), []question{
		{name: "tcp", ask: rr.Run, rr: rr.Options{Network: "tcp", Connections: clients}},
		{name: "udp", ask: rr.Run, rr: rr.Options{Network: "udp", Connections: clients}},
	}, result.Transactions)
}

// connections is how many can be opened, used and closed.
func (o *Options) connections() run.Experiment {
	head := result.Experiment{
		Name: "connections", Title: "TCP connections a second across nodes", Metric: result.Connections,
		About: "Each is opened, asks once, and is closed. All of them are new to the device.",
	}
	return o.answering(head, o.few(), []question{
		{name: "1 client", ask: rr.Connect},
		{name: fmt.Sprintf("%d clients", clients), ask: rr.Connect, rr: rr.Options{Connections: clients}},
	}, result.Connections)
}

// askers are the devices whose latency is compared.
func (o *Options) askers() []peer.Device {
	if o.quick() {
		return o.few()
	}
	busy := peer.Culvert{Bin: o.Bin, Mode: "auto", Poll: "busy"}
	return append(append(o.culvert(), busy), o.ovs()[1], peer.Kernel{})
}

// answering is an experiment about requests and responses.
func (o *Options) answering(head result.Experiment, devices []peer.Device, questions []question, count string) run.Experiment {
	for _, q := range questions {
		head.Cases = append(head.Cases, result.Case{Name: q.name})
		head.Definition += fmt.Sprintf("%s %+v %t;", q.name, q.rr, q.half)
	}
	e := run.Experiment{Head: head}
	for _, d := range devices {
		e.Subjects = append(e.Subjects, run.Subject{
			Device: d.Name(), Check: func() error { return d.Check(peer.Options{}) },
			Takes: setupTime + time.Duration(len(questions))*(o.Timing.WarmUp+o.Timing.Duration),
			Turn: func(ctx context.Context, found func(int, run.Finding)) error {
				return o.answeringTurn(ctx, d, questions, count, found)
			},
		})
	}
	return e
}

func (o *Options) answeringTurn(ctx context.Context, d peer.Device, questions []question, count string, found func(int, run.Finding)) error {
	return withAnswers(ctx, d, func(i *peer.Instance) error {
		for n, q := range questions {
			r, err := o.ask(ctx, i, q)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f := run.Finding{Note: i.Note, Values: r.Values(count), Latency: r.Latency}
			if err != nil {
				f = run.Finding{Note: i.Note, Failed: err.Error() + "\n" + i.Log()}
			}
			found(n, f)
		}
		return nil
	})
}

// withAnswers builds a device with a peer that answers, and takes it down after f.
func withAnswers(ctx context.Context, d peer.Device, f func(*peer.Instance) error) (err error) {
	i, err := d.Start(ctx, peer.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	if err := i.Bed.Answer(); err != nil {
		return err
	}
	if err := awaitAnswer(ctx, i); err != nil {
		return err
	}
	return f(i)
}

// reachTime is how long the first answer may take.
const reachTime = 5 * time.Second

// awaitAnswer pings the far end until it answers.
func awaitAnswer(ctx context.Context, i *peer.Instance) error {
	limited, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	for {
		_, err := i.Bed.Pod.Run(limited, exec.Command("ping", "-c1", "-W0.2", "-q", testbed.PeerPod.String()))
		if err == nil {
			return nil
		}
		if limited.Err() != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("%s does not answer within %s: %w\n%s", testbed.PeerPod, reachTime, err, i.Log()))
		}
	}
}

// ask asks one question.
func (o *Options) ask(ctx context.Context, i *peer.Instance, q question) (rr.Result, error) {
	asked := q.rr
	if q.half {
		most, err := o.capacity.of(ctx, o, q)
		if err != nil {
			return rr.Result{}, err
		}
		asked.Rate = most / 2
	}
	return q.ask(ctx, o.between(i, asked))
}

// between completes options: the pod asks, the far end answers.
func (o *Options) between(i *peer.Instance, r rr.Options) rr.Options {
	r.Client, r.Server, r.Addr = i.Bed.Pod, i.Bed.Wire, netip.AddrPortFrom(testbed.PeerPod, 0)
	r.WarmUp, r.Duration = o.Timing.WarmUp, o.Timing.Duration
	return r
}

// capacities remember how many requests a second the kernel answers at most, by
// network.
type capacities struct {
	mu    sync.Mutex
	known map[string]float64
}

func (c *capacities) of(ctx context.Context, o *Options, q question) (most float64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if most, ok := c.known[q.rr.Network]; ok {
		return most, nil
	}
	err = withAnswers(ctx, peer.Kernel{}, func(i *peer.Instance) error {
		r, err := q.ask(ctx, o.between(i, q.rr))
		most = r.PerSecond
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measuring the kernel at full load: %w", err)
	}
	if c.known == nil {
		c.known = make(map[string]float64)
	}
	c.known[q.rr.Network] = most
	return most, nil
}
