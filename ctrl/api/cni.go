package api

import (
	"encoding/json"
	"slices"
)

// PathCNI is where the CNI plugin posts a CNIRequest and gets a CNIResponse.
const PathCNI = "/v1/cni"

// The commands of a CNIRequest; VERSION needs no agent.
const (
	CNIAdd    = "ADD"
	CNIDel    = "DEL"
	CNICheck  = "CHECK"
	CNIStatus = "STATUS"
	CNIGC     = "GC"
)

// The error codes of a CNIResponse: those of the CNI specification, and from
// 100 on Culvert's own.
const (
	CNIOk                  uint = 0
	CNIIncompatibleVersion uint = 1
	CNIUnsupportedField    uint = 2
	CNIUnknownContainer    uint = 3
	CNIInvalidEnvironment  uint = 4
	CNIIOFailure           uint = 5
	CNIDecodingFailure     uint = 6
	CNIInvalidConfig       uint = 7
	CNITryAgain            uint = 11
	CNINotAvailable        uint = 50 // STATUS: cannot serve ADD
	CNIDegraded            uint = 51 // STATUS: nor do the pods that are there have their connections

	CNINoAddress       uint = 100 // every address of the node's pod CIDRs is taken
	CNIAddressRefused  uint = 101 // the address that was asked for cannot be given
	CNIInterfaceExists uint = 102 // the container has that interface already
	CNILinkFailed      uint = 103 // the pod's link could not be made or removed
	CNIAttachFailed    uint = 104 // the dataplane did not take the pod's port
	CNICheckFailed     uint = 105 // CHECK found something else than ADD had made
	CNIHostPortTaken   uint = 106 // another pod has a port of the node that was asked for
	CNIInternal        uint = 199 // a defect of Culvert
)

// CNIRequest is one call of the CNI plugin, as the runtime made it. The agent
// trusts none of it.
type CNIRequest struct {
	Command     string `json:"command"`
	ContainerID string `json:"containerID,omitempty"`
	Netns       string `json:"netns,omitempty"`
	IfName      string `json:"ifName,omitempty"`
	// Args is CNI_ARGS taken apart: K8S_POD_NAMESPACE, K8S_POD_NAME, IP...
	Args map[string]string `json:"args,omitempty"`
	// Config is the network configuration from the plugin's standard input.
	Config json.RawMessage `json:"config,omitempty"`
	// Given are the pod's addresses, of ADD, where another IPAM plugin has given them:
	// culvertd then gives none.
	Given []string `json:"given,omitempty"`
}

// CNIResponse is the agent's answer, always under HTTP status 200: either a
// result or a code other than CNIOk.
type CNIResponse struct {
	// Result is a CNI result in the version that the configuration asked
	// for; only ADD has one.
	Result json.RawMessage `json:"result,omitempty"`

	Code    uint   `json:"code,omitempty"`
	Msg     string `json:"msg,omitempty"`
	Details string `json:"details,omitempty"`
}

// CNIVersions are the versions of the CNI specification that Culvert speaks.
var CNIVersions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// CNISince reports whether version is minimum or later; both are of CNIVersions.
func CNISince(version, minimum string) bool {
	return slices.Index(CNIVersions, version) >= slices.Index(CNIVersions, minimum)
}

// PendingDir is where the plugin leaves the DELs that found no agent, and the
// agent looks for them: a directory beside the socket, one a socket. It is on
// the memory file system that a socket is usually on, and lives exactly as
// long as what a DEL removes: until the node is booted again.
func PendingDir(socket string) string { return socket + ".pending" }
