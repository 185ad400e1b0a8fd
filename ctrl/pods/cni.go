package pods

import (
	"context"
	"fmt"
	"runtime/debug"

	"culvert/ctrl/api"
)

// CNI serves one call of the plugin. It never panics and never fails halfway:
// the answer is a result, success, or a code and a message. A transaction runs
// to its end even if the plugin has gone away, which ctx would tell: the
// runtime follows with a DEL.
func (m *Manager) CNI(_ context.Context, in api.CNIRequest) (out api.CNIResponse) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("defect while serving CNI", "command", in.Command, "panic", p, "stack", string(debug.Stack()))
			out = api.CNIResponse{Code: api.CNIInternal, Msg: "culvertd failed on this request: a defect, see its log", Details: fmt.Sprint(p)}
		}
	}()
	req, err := parse(&in)
	if err != nil {
		return response(err)
	}
	switch in.Command {
	case api.CNIAdd:
		m.Drain()
		return m.serveAdd(req)
	case api.CNIDel:
		return response(m.del(req))
	case api.CNICheck:
		return response(m.check(req))
	case api.CNIGC:
		m.Drain()
		return response(m.gc(req))
	case api.CNIStatus:
		return response(m.status())
	}
	return response(refuse(api.CNIInvalidEnvironment, "CNI_COMMAND %.20q is unknown", in.Command))
}

// status tells whether an ADD would be taken, and if not, whether the pods that are there
// are without connections as well.
func (m *Manager) status() error {
	err := m.cfg.Ready()
	if err == nil && m.cfg.MTU() == 0 {
		err = errNoMTU
	}
	if err == nil {
		return nil
	}
	code := api.CNINotAvailable
	cutOff := func(p *pod) bool { return p.rec.State == StateReady && !p.attached && !p.gone }
	if m.find(cutOff) != nil {
		code = api.CNIDegraded
	}
	return &Error{Code: code, Msg: "culvertd is not ready for pods yet", Details: err.Error()}
}

func (m *Manager) serveAdd(req *request) api.CNIResponse {
	res, err := m.add(req)
	if err != nil {
		return response(err)
	}
	data, err := encode(res, req.conf.CNIVersion)
	if err != nil {
		_ = m.del(req) // cannot happen: parse took only versions that convert
		return response(err)
	}
	return api.CNIResponse{Result: data}
}
