package agent

import (
	"culvert/ctrl/api"
	"culvert/ctrl/kube"
	"culvert/ctrl/source"
)

// openSource prepares reading the objects from where the configuration says.
func (a *Agent) openSource() error {
	if dir, ok := a.cfg.Dir(); ok {
		a.source = source.NewDir(dir, a.log)
		return nil
	}
	client, err := kube.NewClient(a.cfg.Kubeconfig, "culvertd/"+a.version)
	if err != nil {
		return a.cfg.Errorf("kubeconfig", "%v", err)
	}
	a.calico = kube.NewIPAM(client)
	a.source = kube.NewSource(client, kube.SourceOptions{
		Node: a.cfg.Node, Mode: a.cfg.Mode, StateDir: a.cfg.StateDir, Log: a.log,
		Warm: func() bool { return a.pods.Count() > 0 }, // Run comes after the pods are brought back
	})
	a.publishTo(client)
	return nil
}

// sourceParts is what the files or kinds of the source gave.
func (a *Agent) sourceParts() (parts []api.ObjectSource) {
	switch s := a.source.(type) {
	case *source.Dir:
		for _, f := range s.Files() {
			parts = append(parts, api.ObjectSource{Name: f.Name, Objects: f.Objects, Error: f.Error})
		}
	case *kube.Source:
		for _, k := range s.Kinds() {
			parts = append(parts, api.ObjectSource{Name: k.Path, Objects: k.Objects, Error: k.Error})
		}
	}
	return parts
}

// sourceObjects is what has been read, by kind.
func (a *Agent) sourceObjects() []api.SourceObjects {
	out := []api.SourceObjects{}
	if s, ok := a.source.(*kube.Source); ok {
		for _, k := range s.Kinds() {
			o := api.SourceObjects{Kind: k.Kind, Objects: k.Objects, Version: k.Version, Lists: k.Lists, Resumes: k.Resumes}
			if !k.Heard.IsZero() {
				o.Heard = &k.Heard
			}
			out = append(out, o)
		}
		return out
	}
	a.mu.Lock()
	objects := a.objects
	a.mu.Unlock()
	if objects == nil {
		return out
	}
	for _, c := range objects.Counts() {
		out = append(out, api.SourceObjects{Kind: c.Kind, Objects: c.Objects})
	}
	return out
}
