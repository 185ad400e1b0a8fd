package agent

import (
	"context"
	"fmt"
	"time"

	"culvert/ctrl/hostlink"
	"culvert/ctrl/underlay"
)

// resyncEvery is how often the next hops are looked up and uplinks are checked
// without an event.
const resyncEvery = 10 * time.Second

// repairEvery is how often the tables are compared, row by row, with what they
// ought to be.
const repairEvery = time.Minute

// followUnderlay keeps ports and tables in step with the kernel's devices and
// neighbours. Events of the pods' devices, which come by the hundred, cost
// nothing but a look at whose they are.
func (a *Agent) followUnderlay(ctx context.Context) error {
	resync, repair := time.NewTicker(resyncEvery), time.NewTicker(repairEvery)
	defer resync.Stop()
	defer repair.Stop()
	again := time.NewTimer(holdAgain) // for uplinks that could not be taken
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-a.underlay.Events():
			if e.Kind == underlay.LinkGone {
				a.linkGone(e.Ifindex)
			}
			if e.Kind == underlay.LinkGone && e.Name == hostlink.Name {
				select {
				case a.hostGone <- struct{}{}:
				default: // runHost has not seen the last one yet
				}
			}
			if e.Kind != underlay.Changed { // which follows when it was an uplink
				continue
			}
		case <-again.C:
			if a.holdUplinks() {
				again.Reset(holdAgain)
			}
			continue
		case <-repair.C:
			a.repair()
			continue
		case <-resync.C:
			a.steer(false)
			a.listen()
			a.expirePaths()
		}
		a.measureMTU()
		if a.holdUplinks() {
			again.Reset(holdAgain)
		}
		a.program.UnderlayChanged()
		a.followAddress()
		a.publishAgain()
	}
}

// repair mends what the tables say otherwise than they ought to.
func (a *Agent) repair() {
	d := a.program.Repair()
	if d.Any() {
		a.log.Error("the tables were not what they ought to be and were mended: report this", "drift", fmt.Sprintf("%+v", d))
	}
	for table, rows := range map[string]int{"adjacencies": d.Adjacencies, "routes": d.Routes, "fdb": d.FDB, "neighbours": d.Neighbours} {
		a.metrics.Repaired(table, rows)
	}
}

// lookForTAPsEvery is how often the pods' TAPs are looked for: no event tells that
// one is gone.
const lookForTAPsEvery = 2 * time.Second

// followPods tries again, now and then, to attach the pods that could not be
// attached when they were brought back, and notices TAPs that are gone. It may
// wait for the kernel, pod by pod, and nothing else has to.
func (a *Agent) followPods(ctx context.Context) error {
	resync, taps := time.NewTicker(resyncEvery), time.NewTicker(lookForTAPsEvery)
	defer resync.Stop()
	defer taps.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-taps.C:
			a.pods.LookForTAPs()
			continue
		case <-resync.C:
		}
		err := a.pods.Retry(ctx)
		if err == nil {
			told = ""
			continue
		}
		a.metrics.SyncError("pods")
		if told != err.Error() {
			told = err.Error()
			a.log.Warn("pods are still detached", "cause", told)
		}
	}
}
