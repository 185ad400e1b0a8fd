package agent

import (
	"context"
	"errors"
	"maps"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/ctrl/api/apitest"
	"culvert/ctrl/flavour"
	"culvert/ctrl/kube"
	"culvert/ctrl/metrics"
	"culvert/ctrl/program"
	"culvert/ctrl/source"
	"culvert/ctrl/underlay"
	"culvert/fib"
)

// said is a publisher that notes what it is told.
type said struct {
	annotations map[string]string
	ready       *kube.NetworkReady
	objects     *source.Objects
	conflicts   []flavour.Conflict
}

func (s *said) Publish(a map[string]string, ready *kube.NetworkReady) {
	s.annotations, s.ready = a, ready
}
func (s *said) Seen(o *source.Objects)            { s.objects = o }
func (s *said) Conflicts(list []flavour.Conflict) { s.conflicts = list }
func (s *said) Problems() []string                { return []string{"patch of Node n1: no"} }
func (s *said) Run(ctx context.Context) error     { return ctx.Err() }

// nowhere is an engine and an underlay without anything.
type nowhere struct{}

func (nowhere) Publish(*fib.Snapshot)    {}
func (nowhere) Routes() []underlay.Route { return nil }

func (nowhere) NextHops(netip.Addr) ([]underlay.NextHop, error) { return nil, errors.New("no") }

// TestPublish: what the objects ask for is handed over, and readiness once pods can
// be added, also when nothing but the uplinks changed.
func TestPublish(t *testing.T) {
	a, _ := modeAgent(t, "flannel")
	a.program = program.New(a.log, nowhere{}, nowhere{})
	objects := clusterLike("flannel", true)
	d := &flavour.Desired{
		Mode: "flannel", Annotations: map[string]string{"k": "v"},
		Local:     &flavour.Node{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.1.0/24")}},
		Conflicts: []flavour.Conflict{{Object: source.Ref{Kind: "Node", Name: "n2"}, Key: "spec.podCIDRs", Reason: flavour.DuplicatePodCIDR, What: "is taken"}},
	}
	a.publish(d, objects) // there is nobody: the source is a directory
	s := &said{}
	a.publisher = s
	a.publish(d, nil) // nothing was read yet
	if s.annotations != nil {
		t.Errorf("published %+v", s)
	}
	a.program.SetDesired(d)
	a.objects = objects
	a.publish(d, objects)
	if !maps.Equal(s.annotations, d.Annotations) || s.objects != objects || !slices.Equal(s.conflicts, d.Conflicts) || s.ready != nil {
		t.Errorf("published %+v", s)
	}
	a.restored, a.mtu = true, 1450
	a.publishAgain()
	if s.ready == nil || s.ready.Reason != "CulvertIsUp" {
		t.Errorf("ready %+v", s.ready)
	}
}

// TestPublishingFails: it is counted, and told in status.
func TestPublishingFails(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	nobody := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],` +
		`"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(nobody), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kube.NewClient(kubeconfig, "culvertd/test")
	if err != nil {
		t.Fatal(err)
	}
	a, _ := modeAgent(t, "flannel")
	a.metrics = metrics.New(apitest.New(), "v1", "publish")
	a.publishTo(client)
	a.publisher.Publish(map[string]string{"flannel.alpha.coreos.com/backend-type": "vxlan"}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { _ = a.publisher.Run(ctx); close(done) }()
	for len(a.publisher.Problems()) == 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	<-done
	if got := a.publisher.Problems(); len(got) != 1 || !strings.HasPrefix(got[0], "get of Node n1: ") {
		t.Errorf("told %q", got)
	}
	w := httptest.NewRecorder()
	a.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !regexp.MustCompile(`(?m)^culvert_sync_errors_total\{source="publish"\} [1-9]`).Match(w.Body.Bytes()) {
		t.Error("it is not counted")
	}
}

// TestConflictsInStatus keep the time since when they are there.
func TestConflictsInStatus(t *testing.T) {
	a := &Agent{}
	one := flavour.Conflict{Object: source.Ref{Kind: "ConfigMap", Namespace: "kube-flannel", Name: "cm"}, Key: "data", Reason: flavour.NotFollowed, What: "is wrong"}
	two := flavour.Conflict{Object: source.Ref{Kind: "Node", Name: "n2"}, Key: "spec.podCIDRs", Reason: flavour.DuplicatePodCIDR, What: "is taken"}
	if got := a.conflicts(nil); got == nil || len(got) > 0 {
		t.Errorf("none are %#v", got)
	}
	a.noteConflicts([]flavour.Conflict{one})
	first := a.conflicts([]flavour.Conflict{one})[0]
	if first.Object.Kind != "ConfigMap" || first.Object.Namespace != "kube-flannel" || first.Object.Name != "cm" || first.Key != "data" ||
		first.Reason != "NotFollowed" || first.What != "is wrong" || first.Since.IsZero() {
		t.Errorf("%+v", first)
	}
	a.noteConflicts([]flavour.Conflict{two, one})
	both := a.conflicts([]flavour.Conflict{two, one})
	if both[1] != first || !both[0].Since.After(first.Since) {
		t.Errorf("%+v", both)
	}
	a.noteConflicts(nil)
	a.noteConflicts([]flavour.Conflict{one})
	if again := a.conflicts([]flavour.Conflict{one})[0]; !again.Since.After(both[0].Since) {
		t.Errorf("it came back: %+v", again)
	}
}
