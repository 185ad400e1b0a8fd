package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"culvert/ctrl/cniconf"
)

// lookForReadyEvery is how often is looked whether pods can be added, until they can;
// lookAtConfEvery, whether the runtime's configuration is still there.
const (
	lookForReadyEvery = 200 * time.Millisecond
	lookAtConfEvery   = 10 * time.Second
)

// openCNI reads the configuration for the container runtime, if one is to be installed.
func (a *Agent) openCNI() (err error) {
	if a.cfg.CNI.ConfDir == "" {
		return nil
	}
	if a.cniConf, err = cniconf.Load(a.cfg.CNI.Conf, a.cfg.Socket); err != nil {
		return a.cfg.Errorf("cni.conf", "%v", err)
	}
	return nil
}

// followCNI installs the configuration for the container runtime once pods can be
// added, so that no pod is tried before, and again when it is gone. It stays
// when the agent ends: the pods do, too, and the plugin says that the agent is away.
func (a *Agent) followCNI(ctx context.Context) error {
	if a.cniConf == nil {
		return nil
	}
	tick := time.NewTicker(lookForReadyEvery)
	defer tick.Stop()
	for installed := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !installed && (!a.Status().Ready || a.readyForPods() != nil) {
			continue
		}
		a.installConf()
		if !installed {
			installed = true
			tick.Reset(lookAtConfEvery)
		}
	}
}

// installConf puts the configuration in place, and notes what keeps the runtime from it.
func (a *Agent) installConf() {
	dir, problem := a.cfg.CNI.ConfDir, ""
	changed, err := a.cniConf.Install(dir)
	if err != nil {
		problem = "CNI configuration: " + err.Error()
	} else {
		problem = firstOther(dir, a.cniConf.Name)
	}
	a.mu.Lock()
	news := problem != a.cniProblem
	a.cniProblem = problem
	a.mu.Unlock()
	if changed {
		a.log.Info("CNI configuration installed", "file", filepath.Join(dir, a.cniConf.Name))
	}
	if news && problem != "" {
		a.log.Warn("pods may get another network", "cause", problem)
	}
}

// firstOther says which configuration the runtime takes rather than ours, if any.
func firstOther(dir, name string) string {
	others, err := cniconf.Others(dir, name)
	if err != nil {
		return "CNI configuration: " + err.Error()
	}
	for _, o := range others {
		if o.First {
			return fmt.Sprintf("%s comes before %s: the container runtime takes the first; remove it",
				filepath.Join(dir, o.Name), name)
		}
	}
	return ""
}
