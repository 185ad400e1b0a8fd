package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// fakeAPI is an API server in memory, a RoundTripper: inside a bubble of testing/synctest
// time stands still until nothing moves. It answers as kube-apiserver 1.33 does.
type fakeAPI struct {
	t *testing.T

	mu        sync.Mutex
	version   int
	forgotten int // watches from before that one are answered with 410
	objects   map[string]map[string]any
	events    []fakeEvent
	watchers  map[*fakeWatch]bool
	down      error                     // what connecting comes to
	refuse    map[string]*metav1.Status // by path, or "list " and the path
	streams   bool                      // the feature WatchList
	proto     bool                      // answers about core kinds are protobuf
	requests  []string
	hang      bool // requests are not answered
}

type fakeEvent struct {
	version    int
	path, kind string
	object     any
}

type fakeWatch struct {
	wake chan struct{}
	cut  chan struct{}
}

const (
	nodesPath = "/api/v1/nodes"
	mapsPath  = "/api/v1/configmaps"
	crdsPath  = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	poolsPath = "/apis/crd.projectcalico.org/v1/ippools"
	blockPath = "/apis/crd.projectcalico.org/v1/ipamblocks"
	affPath   = "/apis/crd.projectcalico.org/v1/blockaffinities"
	felixPath = "/apis/crd.projectcalico.org/v1/felixconfigurations"
)

func newFakeAPI(t *testing.T) *fakeAPI {
	return &fakeAPI{t: t, version: 100, objects: map[string]map[string]any{}, watchers: map[*fakeWatch]bool{}, refuse: map[string]*metav1.Status{}}
}

func (a *fakeAPI) client() *Client {
	c, err := clientFor(&rest.Config{Host: "https://api.test:6443", Transport: a})
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// put makes or changes an object.
func (a *fakeAPI) put(path string, o any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	name := a.stamp(o)
	kind := "MODIFIED"
	if a.objects[path] == nil {
		a.objects[path] = map[string]any{}
	}
	if a.objects[path][name] == nil {
		kind = "ADDED"
	}
	a.objects[path][name] = o
	a.tell(fakeEvent{a.version, path, kind, o})
}

// stamp gives an object the present version and returns its key.
func (a *fakeAPI) stamp(o any) string {
	version := strconv.Itoa(a.version)
	switch o := o.(type) {
	case metav1.Object:
		o.SetResourceVersion(version)
		return o.GetNamespace() + "/" + o.GetName()
	case map[string]any:
		m := o["metadata"].(map[string]any)
		m["resourceVersion"] = version
		return "/" + m["name"].(string)
	}
	a.t.Fatalf("no object: %T", o)
	return ""
}

func (a *fakeAPI) remove(path, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	o := a.objects[path][key]
	delete(a.objects[path], key)
	if c, ok := o.(*corev1.Node); ok {
		o = c.DeepCopy()
		a.stamp(o)
	} else {
		a.stamp(o)
	}
	a.tell(fakeEvent{a.version, path, "DELETED", o})
}

func (a *fakeAPI) tell(e fakeEvent) {
	a.events = append(a.events, e)
	for w := range a.watchers {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// cut breaks all watches.
func (a *fakeAPI) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watchers {
		close(w.cut)
		delete(a.watchers, w)
	}
}

// stop makes the API server unreachable, nil reachable again.
func (a *fakeAPI) stop(err error) {
	a.mu.Lock()
	a.down = err
	a.mu.Unlock()
	if err != nil {
		a.cut()
	}
}

// forget compacts the history, as a restart of the API server does.
func (a *fakeAPI) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.forgotten = a.version
}

func (a *fakeAPI) refusing(path string, err *apierrors.StatusError) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if delete(a.refuse, path); err != nil {
		a.refuse[path] = &err.ErrStatus
	}
}

// took is the requests since the last call.
func (a *fakeAPI) took() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.requests
	a.requests = nil
	return r
}

var errRefused = fmt.Errorf("dial tcp 192.0.2.1:6443: %w", syscall.ECONNREFUSED)

// RoundTrip implements http.RoundTripper.
func (a *fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	q := r.URL.Query()
	verb := "list"
	if q.Get("watch") != "" {
		verb = "watch"
	}
	if q.Get("sendInitialEvents") != "" {
		verb = "stream"
	}
	path := r.URL.Path
	a.requests = append(a.requests, fmt.Sprintf("%s %s %s", verb, path[strings.LastIndex(path, "/")+1:], q.Get("resourceVersion")))
	down, hang, refuse := a.down, a.hang, a.refuse[path]
	if s := a.refuse["list "+path]; s != nil && verb == "list" {
		refuse = s
	}
	streams := a.streams
	a.mu.Unlock()
	if hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	switch {
	case down != nil:
		return nil, down
	case refuse != nil:
		return failure(*refuse), nil
	case verb == "stream" && !streams:
		return failure(apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil).Status()), nil
	case verb == "list":
		return a.list(path, q.Get("fieldSelector")), nil
	}
	return a.watch(r.Context(), path, q.Get("resourceVersion"), verb == "stream"), nil
}

func failure(s metav1.Status) *http.Response {
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	return answer(int(s.Code), &s)
}

func answer(code int, body any) *http.Response {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return response(code, io.NopCloser(bytes.NewReader(text)), "application/json")
}

func response(code int, body io.ReadCloser, kind string) *http.Response {
	return &http.Response{StatusCode: code, Status: strconv.Itoa(code), Header: http.Header{"Content-Type": {kind}}, Body: body, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
}

func (a *fakeAPI) list(path, field string) *http.Response {
	a.mu.Lock()
	defer a.mu.Unlock()
	var items []any
	for _, o := range a.objects[path] {
		if m, ok := o.(metav1.Object); ok && field != "" && field != "metadata.name="+m.GetName() {
			continue
		}
		items = append(items, o)
	}
	version := strconv.Itoa(a.version)
	if a.proto && path == nodesPath {
		list := &corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, ListMeta: metav1.ListMeta{ResourceVersion: version}}
		for _, o := range items {
			list.Items = append(list.Items, *o.(*corev1.Node))
		}
		return response(200, io.NopCloser(bytes.NewReader(inProto(list))), "application/vnd.kubernetes.protobuf")
	}
	return answer(200, map[string]any{"kind": "List", "metadata": map[string]any{"resourceVersion": version}, "items": items})
}

// inProto is an object in its envelope.
func inProto(o runtime.Object) []byte {
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (a *fakeAPI) watch(ctx context.Context, path, version string, initial bool) *http.Response {
	from, err := strconv.Atoi(version)
	if err != nil {
		a.t.Errorf("a watch from %q", version)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !initial && from < a.forgotten {
		return failure(apierrors.NewResourceExpired("too old resource version").Status())
	}
	w := &fakeWatch{wake: make(chan struct{}, 1), cut: make(chan struct{})}
	a.watchers[w] = true
	r, out := io.Pipe()
	var first []fakeEvent
	if initial {
		for _, o := range a.objects[path] {
			first = append(first, fakeEvent{0, path, "ADDED", o})
		}
		first = append(first, fakeEvent{0, path, "BOOKMARK", a.endOfInitial(path)})
		from = a.version
	}
	go a.feed(ctx, w, out, path, first, from)
	kind := "application/json"
	if a.proto && path == nodesPath {
		kind = "application/vnd.kubernetes.protobuf;stream=watch"
	}
	return response(200, r, kind)
}

// endOfInitial is the bookmark behind the last of the initial events.
func (a *fakeAPI) endOfInitial(path string) any {
	m := metav1.ObjectMeta{ResourceVersion: strconv.Itoa(a.version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}
	if path == nodesPath {
		return &corev1.Node{ObjectMeta: m}
	}
	return map[string]any{"metadata": m}
}

func (a *fakeAPI) feed(ctx context.Context, w *fakeWatch, out *io.PipeWriter, path string, first []fakeEvent, from int) {
	defer func() {
		a.mu.Lock()
		delete(a.watchers, w)
		a.mu.Unlock()
	}()
	next := 0
	for {
		a.mu.Lock()
		batch := slices.Clone(a.events[next:])
		next += len(batch)
		a.mu.Unlock()
		for _, e := range append(first, batch...) {
			if e.path != path || e.version != 0 && e.version <= from {
				continue
			}
			if _, err := out.Write(a.frame(e)); err != nil {
				return
			}
		}
		first = nil
		select {
		case <-w.wake:
		case <-w.cut:
			out.CloseWithError(io.ErrUnexpectedEOF)
			return
		case <-ctx.Done():
			out.CloseWithError(ctx.Err())
			return
		}
	}
}

// frame is an event as a watch sends it.
func (a *fakeAPI) frame(e fakeEvent) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.proto && e.path == nodesPath {
		n := e.object.(*corev1.Node).DeepCopy()
		n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}
		ev := &metav1.WatchEvent{Type: e.kind, Object: runtime.RawExtension{Raw: inProto(n)}}
		var b bytes.Buffer
		if err := protobuf.NewRawSerializer(scheme.Scheme, scheme.Scheme).Encode(ev, &b); err != nil {
			panic(err)
		}
		var framed bytes.Buffer
		if _, err := protobuf.LengthDelimitedFramer.NewFrameWriter(&framed).Write(b.Bytes()); err != nil {
			panic(err)
		}
		return framed.Bytes()
	}
	text, err := json.Marshal(map[string]any{"type": e.kind, "object": e.object})
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}
