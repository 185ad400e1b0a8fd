package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"culvert/ctrl/api"
)

// calicoIPAM is the IPAM plugin that addresses are left to where the configuration
// names it. With any other, or none, they are the agent's.
const calicoIPAM = "calico-ipam"

// askAll asks the IPAM plugin, if there is one, and the agent: at ADD the addresses
// come first, and go back if the agent fails; at DEL they go last.
func (p *plugin) askAll(req *api.CNIRequest, conf *netConf) ([]byte, *cniError) {
	if conf.IPAM.Type != calicoIPAM {
		return ask(req, conf)
	}
	if req.Command == api.CNIAdd {
		return p.add(req, conf)
	}
	out, cerr := ask(req, conf)
	if cerr != nil && req.Command != api.CNIGC { // which goes on after errors
		return nil, cerr
	}
	_, failed := p.ipam(req.Command, conf, delTimeout)
	switch {
	case failed == nil:
		return out, cerr
	case cerr != nil:
		cerr.Details += "; and " + failed.Error()
		return nil, cerr
	}
	return nil, failed
}

// add has the IPAM plugin give addresses, and the agent attach the pod with them.
func (p *plugin) add(req *api.CNIRequest, conf *netConf) ([]byte, *cniError) {
	res, cerr := p.ipam(api.CNIAdd, conf, addTimeout)
	if cerr != nil {
		return nil, cerr
	}
	var out []byte
	var err error
	if req.Given, err = addresses(res); err != nil {
		cerr = fail(api.CNIDecodingFailure, "%s gave no address: %v", calicoIPAM, err)
	} else {
		out, cerr = ask(req, conf)
	}
	if cerr == nil {
		return out, nil
	}
	// A runtime follows with a DEL, but need not.
	if _, failed := p.ipam(api.CNIDel, conf, delTimeout); failed != nil {
		cerr.Details += fmt.Sprintf("; and the addresses were not taken back: %v", failed)
	}
	return nil, cerr
}

// ipam runs a command of the IPAM plugin, as the CNI specification has it in section
// 4: the same configuration and environment, but for CNI_COMMAND.
func (p *plugin) ipam(command string, conf *netConf, timeout time.Duration) ([]byte, *cniError) {
	path := ""
	for _, dir := range filepath.SplitList(p.getenv("CNI_PATH")) {
		at := filepath.Join(dir, calicoIPAM)
		if info, err := os.Stat(at); path == "" && err == nil && info.Mode().IsRegular() {
			path = at
		}
	}
	if path == "" {
		return nil, fail(api.CNIInvalidConfig, "the IPAM plugin %s is in none of the directories of CNI_PATH %q", calicoIPAM, p.getenv("CNI_PATH"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(conf.raw), p.stderr
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	// Its failure is an error object, which has the codes of the specification.
	var said types.Error
	if json.Unmarshal(out, &said) == nil && said.Msg != "" {
		return nil, &cniError{Code: said.Code, Msg: calicoIPAM + ": " + said.Msg, Details: said.Details}
	}
	return nil, &cniError{Code: api.CNIInternal, Msg: calicoIPAM + " failed", Details: err.Error()}
}

// addresses are those of an IPAM plugin's result.
func addresses(text []byte) (all []string, err error) {
	res, err := create.CreateFromBytes(text)
	if err != nil {
		return nil, err
	}
	now, err := types100.NewResultFromResult(res)
	if err != nil {
		return nil, err
	}
	for _, ip := range now.IPs {
		if ip != nil {
			all = append(all, ip.Address.IP.String())
		}
	}
	if len(all) == 0 {
		return nil, errors.New("its result has no ips")
	}
	return all, nil
}
