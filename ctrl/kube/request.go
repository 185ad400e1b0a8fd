package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// Times of requests.
const (
	// listLimit ends a list that does not come to an end.
	listLimit = 2 * time.Minute
	// watchFor is how long a watch is asked for, at least; at most twice that. So
	// the watches of many nodes end at different times, and a load balancer's idea of
	// which API server has how many is mended.
	watchFor = 5 * time.Minute
	// watchSlack is how much longer one may last until the server counts as gone.
	watchSlack = 30 * time.Second
)

// path is where a kind is found, in a layout of Calico's.
func (k *kind) path(l layout) string {
	switch {
	case k.core:
		return "/api/v1/" + k.resource
	case k.metadata:
		return "/apis/apiextensions.k8s.io/v1/" + k.resource
	}
	return "/apis/" + l.apiVersion + "/" + k.resource
}

// accept is the form in which a kind is asked for.
func (k *kind) accept(list bool) string {
	switch {
	case k.core:
		return "application/vnd.kubernetes.protobuf,application/json"
	case k.metadata && list:
		return "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	case k.metadata:
		return "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	}
	return "application/json"
}

// stream begins a request.
func (f *feed) stream(ctx context.Context, opt metav1.ListOptions) (io.ReadCloser, error) {
	opt.FieldSelector = f.store.kind.field
	return f.client.core.RESTClient().Get().AbsPath(f.path).
		SetHeader("Accept", f.store.kind.accept(!opt.Watch)).
		VersionedParams(&opt, scheme.ParameterCodec).
		MaxRetries(0). // who waits here also says so
		Stream(ctx)
}

// list reads all objects as they are now, or were at the version that is known, if the API server
// has them in memory: so that thousands of nodes that begin at once do not reach etcd.
func (f *feed) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	opt := metav1.ListOptions{ResourceVersion: "0"}
	switch {
	case f.consistent:
		opt.ResourceVersion = ""
	case f.seen != "":
		opt.ResourceVersion, opt.ResourceVersionMatch = f.seen, metav1.ResourceVersionMatchNotOlderThan
	}
	body, err := f.stream(ctx, opt)
	if err != nil {
		return err
	}
	defer body.Close()
	f.heard()
	var all []change
	version, err := readList(body, &f.store.kind, func(o metav1.Object, err error) {
		all = append(all, f.store.take(o, err))
	})
	if err == nil && version == "" {
		err = errors.New("the list has no resource version")
	}
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	f.replace(all, version)
	return nil
}

// watch follows the changes since the version that is known. With initial it gets all
// objects before, as events, which costs an API server less than a list.
func (f *feed) watch(ctx context.Context, initial bool) error {
	wanted := watchFor + time.Duration(f.random()*float64(watchFor))
	ctx, cancel := context.WithTimeout(ctx, wanted+watchSlack)
	defer cancel()
	seconds := int64(wanted / time.Second)
	opt := metav1.ListOptions{Watch: true, AllowWatchBookmarks: true, ResourceVersion: f.version, TimeoutSeconds: &seconds}
	if initial {
		opt.SendInitialEvents, opt.ResourceVersion, opt.ResourceVersionMatch = &initial, f.seen, metav1.ResourceVersionMatchNotOlderThan
		if f.seen == "" {
			opt.ResourceVersion = "0"
		}
	}
	body, err := f.stream(ctx, opt)
	if err != nil {
		return err
	}
	defer body.Close()
	// One that is cut off at once is no success.
	alive := time.AfterFunc(shortest, f.heard)
	defer alive.Stop()
	var first []change
	err = readEvents(body, func(e event) error {
		f.heard()
		if initial {
			done, err := f.gather(&first, e)
			initial = !done
			return err
		}
		return f.follow(e)
	})
	if initial && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// gather takes an event before the bookmark that says that all objects were sent.
func (f *feed) gather(all *[]change, e event) (done bool, err error) {
	switch e.kind {
	case "ADDED":
		*all = append(*all, f.store.take(f.store.kind.decode(e.read, e.proto)))
		return false, nil
	case "BOOKMARK":
		version, annotations, err := f.bookmark(e)
		if err != nil || annotations[metav1.InitialEventsAnnotationKey] != "true" {
			return false, err
		}
		f.replace(*all, version)
		*all = nil
		return true, nil
	}
	return false, f.unusual(e)
}

// follow takes an event.
func (f *feed) follow(e event) error {
	k := &f.store.kind
	switch e.kind {
	case "ADDED", "MODIFIED", "DELETED":
	case "BOOKMARK":
		version, _, err := f.bookmark(e)
		if err == nil {
			f.at(version)
		}
		return err
	default:
		return f.unusual(e)
	}
	o, err := k.decode(e.read, e.proto)
	if o.GetName() == "" {
		return errors.Join(fmt.Errorf("watch: an event %s of no object", e.kind), err)
	}
	version := o.GetResourceVersion()
	c := f.store.take(o, err)
	f.change(c, e.kind == "DELETED", version)
	return nil
}

// bookmark is how far the watch has come.
func (f *feed) bookmark(e event) (version string, annotations map[string]string, err error) {
	if e.proto {
		o, err := f.store.kind.decode(e.read, true)
		return o.GetResourceVersion(), o.GetAnnotations(), err
	}
	var w struct {
		Metadata meta `json:"metadata"`
	}
	err = e.read(&w)
	return w.Metadata.ResourceVersion, w.Metadata.Annotations, err
}

// unusual is an error that the API server sends, or what it should not.
func (f *feed) unusual(e event) error {
	if e.kind != "ERROR" {
		return fmt.Errorf("watch: an event %q", e.kind)
	}
	var status metav1.Status
	if err := e.read(&status); err != nil {
		return fmt.Errorf("watch: an error that cannot be read: %w", err)
	}
	return apierrors.FromObject(&status)
}
