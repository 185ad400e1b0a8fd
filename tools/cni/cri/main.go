// Command cri calls one method of a container runtime's CRI, as kubelet does:
//
//	cri SOCKET RunPodSandbox < request.json > reply.json
//
// Request and reply are JSON of the messages of k8s.io/cri-api, with its field names.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// timeout is kubelet's for one call (--runtime-request-timeout).
const timeout = 2 * time.Minute

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cri SOCKET METHOD < REQUEST")
		os.Exit(2)
	}
	if err := call(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "cri: %s: %v\n", os.Args[2], err)
		os.Exit(1)
	}
}

// call finds the method, which takes (context, request, options) and returns (reply, error).
func call(socket, name string) error {
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	method := reflect.ValueOf(runtime.NewRuntimeServiceClient(conn)).MethodByName(name)
	if !method.IsValid() {
		method = reflect.ValueOf(runtime.NewImageServiceClient(conn)).MethodByName(name)
	}
	if !method.IsValid() {
		return fmt.Errorf("CRI has no such method")
	}
	request := reflect.New(method.Type().In(1).Elem())
	if err := json.NewDecoder(os.Stdin).Decode(request.Interface()); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	out := method.Call([]reflect.Value{reflect.ValueOf(ctx), request})
	if err, failed := out[1].Interface().(error); failed {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out[0].Interface())
}
