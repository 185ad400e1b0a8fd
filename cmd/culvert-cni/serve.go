package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"culvert/ctrl/api"
)

// How long the agent may take. ADD opens sockets for every worker and waits
// for nobody; a runtime gives up later than that.
const (
	addTimeout = 60 * time.Second
	delTimeout = 30 * time.Second
)

// netConf is the part of the configuration that the plugin itself needs; raw
// is all of it, for the agent.
type netConf struct {
	CNIVersion string `json:"cniVersion"`
	Socket     string `json:"socket"`
	LogFile    string `json:"logFile"`
	IPAM       struct {
		Type string `json:"type"`
	} `json:"ipam"`
	raw []byte
}

// readConf reads and checks the configuration. The result is never nil.
func (p *plugin) readConf() (*netConf, *cniError) {
	conf := &netConf{}
	raw, err := io.ReadAll(io.LimitReader(p.stdin, maxConfig+1))
	switch {
	case err != nil:
		return conf, fail(api.CNIIOFailure, "the network configuration on standard input is not readable: %v", err)
	case len(raw) > maxConfig:
		return conf, fail(api.CNIInvalidConfig, "the network configuration is larger than %d bytes", maxConfig)
	case len(bytes.TrimSpace(raw)) == 0:
		return conf, fail(api.CNIDecodingFailure, "no network configuration on standard input")
	}
	if err := json.Unmarshal(raw, conf); err != nil {
		return &netConf{}, fail(api.CNIDecodingFailure, "the network configuration is not what CNI defines: %v", err)
	}
	if !slices.Contains(api.CNIVersions, conf.CNIVersion) {
		e := fail(api.CNIIncompatibleVersion, "cniVersion %q is not supported: one of %s is needed", conf.CNIVersion, strings.Join(api.CNIVersions, ", "))
		return &netConf{}, e
	}
	conf.raw = raw
	return conf, nil
}

// serve checks what the agent cannot be asked without, asks it, and writes
// the log.
func (p *plugin) serve(command string, conf *netConf) (out []byte, cerr *cniError) {
	start := time.Now()
	req, cerr := p.request(command, conf)
	if cerr == nil {
		out, cerr = p.askAll(req, conf)
	}
	if err := logCall(conf.LogFile, start, req, cerr); err != nil {
		fmt.Fprintln(p.stderr, "culvert-cni: log file:", err) // never a reason to fail
	}
	return out, cerr
}

// request takes the environment apart. It is never nil.
func (p *plugin) request(command string, conf *netConf) (*api.CNIRequest, *cniError) {
	req := &api.CNIRequest{
		Command: command, ContainerID: p.getenv("CNI_CONTAINERID"), Netns: p.getenv("CNI_NETNS"),
		IfName: p.getenv("CNI_IFNAME"), Config: conf.raw,
	}
	required := map[string][]string{
		api.CNIAdd:    {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
		api.CNICheck:  {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"},
		api.CNIDel:    {"CNI_CONTAINERID", "CNI_IFNAME"},
		api.CNIStatus: nil,
		api.CNIGC:     nil,
	}
	names, known := required[command]
	if command == "" {
		return req, fail(api.CNIInvalidEnvironment, "CNI_COMMAND is missing")
	}
	if !known {
		return req, fail(api.CNIInvalidEnvironment, "CNI_COMMAND %.20q is unknown", command)
	}
	for _, name := range names {
		if p.getenv(name) == "" {
			return req, fail(api.CNIInvalidEnvironment, "%s is missing: %s needs it", name, command)
		}
	}
	args, err := parseArgs(p.getenv("CNI_ARGS"))
	if err != nil {
		return req, fail(api.CNIInvalidEnvironment, "CNI_ARGS: %v", err)
	}
	req.Args = args
	return req, nil
}

// parseArgs takes CNI_ARGS apart: K=V;K=V. The last of a name counts.
func parseArgs(s string) (map[string]string, error) {
	var args map[string]string
	for _, pair := range strings.Split(s, ";") {
		if pair == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%.40q is not of the form NAME=VALUE", pair)
		}
		if args == nil {
			args = map[string]string{}
		}
		args[k] = v
	}
	return args, nil
}

// ask hands the request to the agent. A DEL that finds none is left for it.
func ask(req *api.CNIRequest, conf *netConf) ([]byte, *cniError) {
	client := api.NewClient(conf.Socket)
	out, cerr, reached := post(client, req)
	if reached || req.Command != api.CNIDel {
		return out, cerr
	}
	path, err := leave(client.Socket(), req)
	if err != nil {
		cerr.Details += "; and the DEL could not be left for it: " + err.Error()
		return nil, cerr
	}
	// The agent may have started in between and looked before the file was there.
	if out, cerr, reached = post(client, req); reached {
		if cerr == nil {
			takeBack(path)
		}
		return out, cerr
	}
	return nil, nil
}

// post asks once. reached is false when no agent has seen the request through.
func post(client *api.Client, req *api.CNIRequest) (out []byte, cerr *cniError, reached bool) {
	timeout := addTimeout
	if req.Command != api.CNIAdd {
		timeout = delTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var resp api.CNIResponse
	err := client.Post(ctx, api.PathCNI, req, &resp)
	var said *api.Error
	switch {
	case err == nil && resp.Code != api.CNIOk:
		return nil, &cniError{Code: resp.Code, Msg: resp.Msg, Details: resp.Details}, true
	case err == nil:
		return resp.Result, nil, true
	case errors.As(err, &said) && said.Status != http.StatusServiceUnavailable:
		return nil, &cniError{Code: api.CNIInternal, Msg: "culvertd refused the request", Details: said.Message}, true
	}
	code := api.CNITryAgain
	if req.Command == api.CNIStatus {
		code = api.CNIDegraded // no pod's packets are carried without it
	}
	cerr = &cniError{Code: code, Msg: "culvertd is not answering, try again when it is running", Details: err.Error()}
	return nil, cerr, ctx.Err() != nil // one that is slow has the request
}
