package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"culvert/ctrl/api"
)

// A DEL that finds no agent succeeds, and is left as a file for the agent to
// do when it starts.
//
// The other choice, to fail and let the runtime try again, keeps every pod of
// the node in Terminating while culvertd is away, and a node that is drained
// to repair Culvert could not be drained. Nothing is lost by succeeding: the
// runtime removes the pod's namespace and with it the link, the agent holds
// the address until it has done the DEL, and no ADD can come in between, since
// that needs the agent, which does the left DELs first. After a reboot the
// files are gone, and so are the links: the agent frees addresses without link.

// leave writes the request beside the socket. It returns the file's path.
func leave(socket string, req *api.CNIRequest) (path string, err error) {
	dir := api.PendingDir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	data, err := json.Marshal(req)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(req.ContainerID + "@" + req.IfName))
	path = filepath.Join(dir, hex.EncodeToString(sum[:16])+".json")
	f, err := os.CreateTemp(dir, ".tmp-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return path, nil
}

// takeBack removes a left request that the agent has done after all.
func takeBack(path string) { _ = os.Remove(path) }

// logCall appends a line about the call to the log file, if there is one.
func logCall(path string, start time.Time, req *api.CNIRequest, cerr *cniError) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	outcome := "ok"
	if cerr != nil {
		outcome = fmt.Sprintf("code=%d err=%q", cerr.Code, cerr.Error())
	}
	_, err = fmt.Fprintf(f, "%s %.10s container=%q ifname=%q netns=%q pod=%q took=%s %s\n",
		start.UTC().Format("2006-01-02T15:04:05.000Z"), req.Command, req.ContainerID, req.IfName, req.Netns,
		req.Args["K8S_POD_NAMESPACE"]+"/"+req.Args["K8S_POD_NAME"], time.Since(start).Round(time.Microsecond), outcome)
	return errors.Join(err, f.Close())
}
