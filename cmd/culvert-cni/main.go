// Command culvert-cni is Culvert's CNI plugin: a thin client of culvertd. It
// hands each call to the agent over its unix socket and prints the answer;
// links, addresses and records are the agent's. It keeps nothing but DELs that
// found no agent (pending.go). Where the configuration names calico-ipam as its IPAM
// plugin, addresses are that one's (ipam.go).
//
// It speaks CNI 0.3.1 to 1.1.0: ADD, DEL, CHECK, STATUS, GC and VERSION. A
// failure is a CNI error object on standard output and exit code 1.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"culvert/ctrl/api"
	"culvert/internal/version"
)

// maxConfig bounds what is read from standard input: the agent takes 1 MB with
// the rest of the request.
const maxConfig = 768 << 10

func main() {
	if len(os.Args) > 1 {
		os.Exit(byHand(os.Args[1:]))
	}
	p := &plugin{getenv: os.Getenv, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.run())
}

// byHand answers a person: a runtime gives no arguments.
func byHand(args []string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-v") {
		fmt.Printf("culvert-cni %s, CNI %s\n", version.String(), strings.Join(api.CNIVersions, ", "))
		return 0
	}
	fmt.Fprintln(os.Stderr, "culvert-cni is called by the container runtime, with CNI_* variables and no arguments; by hand there is only --version")
	return 2
}

// plugin is one run, with its surroundings for tests to replace.
type plugin struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// cniError is the error object of the CNI specification.
type cniError struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

// Error is the message and the details.
func (e *cniError) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + ": " + e.Details
}

// fail makes a cniError; run fills in the version.
func fail(code uint, format string, args ...any) *cniError {
	return &cniError{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// run serves the one call and returns the exit code.
func (p *plugin) run() int {
	command := p.getenv("CNI_COMMAND")
	if command == "VERSION" {
		return p.versions()
	}
	if command == "" && p.getenv("CNI_CONTAINERID")+p.getenv("CNI_IFNAME")+p.getenv("CNI_NETNS") == "" { // a person
		fmt.Fprintf(p.stderr, "culvert-cni %s, a CNI plugin: it wants CNI_COMMAND in its environment\nCNI versions supported: %s\n",
			version.String(), strings.Join(api.CNIVersions, ", "))
		return 1
	}
	conf, cerr := p.readConf()
	var out []byte
	if cerr == nil {
		out, cerr = p.serve(command, conf)
	}
	if cerr != nil {
		cerr.CNIVersion = conf.CNIVersion
		if cerr.CNIVersion == "" {
			cerr.CNIVersion = api.CNIVersions[len(api.CNIVersions)-1]
		}
		out, _ = json.MarshalIndent(cerr, "", "    ")
	}
	if len(out) > 0 {
		if _, err := p.stdout.Write(append(out, '\n')); err != nil {
			fmt.Fprintln(p.stderr, "culvert-cni:", err)
			return 1
		}
	}
	if cerr != nil {
		return 1
	}
	return 0
}

// versions answers VERSION, which needs neither agent nor configuration.
func (p *plugin) versions() int {
	var in struct {
		CNIVersion string `json:"cniVersion"`
	}
	if f, ok := p.stdin.(*os.File); !ok || !isTerminal(f) {
		data, err := io.ReadAll(io.LimitReader(p.stdin, maxConfig))
		if err == nil {
			_ = json.Unmarshal(data, &in) // nothing is asked of the input
		}
	}
	if in.CNIVersion == "" {
		in.CNIVersion = api.CNIVersions[len(api.CNIVersions)-1]
	}
	out, _ := json.Marshal(map[string]any{"cniVersion": in.CNIVersion, "supportedVersions": api.CNIVersions})
	if _, err := p.stdout.Write(append(out, '\n')); err != nil {
		return 1
	}
	return 0
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
