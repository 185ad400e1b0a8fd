package kube

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"culvert/ctrl/flavour"
	"culvert/ctrl/source"
)

// grace is how long the API server may be away without a word: watches end and are
// resumed all the time, and it is updated now and then.
const grace = 5 * time.Second

// problems is all that is wrong at a time, in an order that does not change, and when
// to look again because something may have become a problem. The lock is held.
func (s *Source) problems(now time.Time) (all []error, again time.Time) {
	lines := map[string]bool{}
	add := func(format string, args ...any) {
		if line := fmt.Sprintf(format, args...); !lines[line] {
			lines[line] = true
			all = append(all, errors.New(line))
		}
	}
	for _, f := range s.following() {
		due, line := f.trouble(now)
		if line != "" {
			add("%s", line)
		} else if !due.IsZero() && (again.IsZero() || due.Before(again)) {
			again = due
		}
	}
	if d := s.defined(); d != nil && d.synced && s.opt.Mode == flavour.ModeCalico && !d.store.has("ippools."+layoutOf(d.store).group) {
		add("API server %s has no CustomResourceDefinition ippools.%s, nor that of %s, and mode is calico; install Calico's CustomResourceDefinitions, or change mode",
			s.client.Host(), classic.group, native.group)
	}
	for _, st := range s.stores {
		for _, ref := range sortedRefs(st.bad) {
			kept := "it is left out"
			if _, found := st.get(ref); found {
				kept = "its last good version stays in force"
			}
			add("%s: %s; %s", ref, st.bad[ref], kept)
		}
	}
	if !s.begun && s.state.problem != "" {
		add("%s", s.state.problem)
	}
	if !s.begun && s.stale && now.Sub(s.began) >= coldWait {
		add("the objects are those of %s, from %s, until API server %s has sent its own", s.state.saved.UTC().Format(time.RFC3339), s.state.path, s.client.Host())
	}
	return all, again
}

func sortedRefs(bad map[source.Ref]string) []source.Ref {
	refs := make([]source.Ref, 0, len(bad))
	for ref := range bad {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, compare)
	return refs
}

// trouble is what is wrong with a feed, in words; or when that will be said.
func (f *feed) trouble(now time.Time) (due time.Time, line string) {
	if f.since.IsZero() {
		return due, ""
	}
	due = f.since.Add(grace)
	denied := apierrors.IsUnauthorized(f.err) || apierrors.IsForbidden(f.err)
	if now.Before(due) && !denied {
		return due, ""
	}
	return due, f.words()
}

// words say why the feed is out of touch, and what to do.
func (f *feed) words() string {
	host, err := f.client.Host(), f.err
	k := &f.store.kind
	var status apierrors.APIStatus
	switch {
	case apierrors.IsUnauthorized(err):
		return fmt.Sprintf("API server %s does not know culvertd: 401 %s; check the token or certificate that the kubeconfig or the service account gives it", host, message(err))
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("API server %s does not allow culvertd to list and watch %s: 403 %s; a ClusterRole of culvertd's needs the rule %s, see deploy/rbac.yaml",
			host, k.resource, message(err), f.rule())
	case apierrors.IsNotFound(err) && !k.core:
		return fmt.Sprintf("API server %s has no %s: 404 %s; check that CustomResourceDefinition %s is established and serves that version", host, f.path, message(err), f.definitionName())
	case errors.As(err, &status):
		return fmt.Sprintf("API server %s does not answer about %s: %d %s; what was read before stays in force", host, k.resource, status.Status().Code, message(err))
	case ended(err) && err != nil:
		return fmt.Sprintf("API server %s ends every connection at once; check what is between it and this node; what was read before stays in force", host)
	}
	return fmt.Sprintf("API server %s cannot be reached: %s; check that it runs, that this node has a route to it and that the kubeconfig is right; what was read before stays in force", host, cause(err))
}

// rule is the RBAC rule that is missing.
func (f *feed) rule() string {
	return fmt.Sprintf("{apiGroups: [%q], resources: [%q], verbs: [list, watch]}", f.group(), f.store.kind.resource)
}

// group is the API group of the feed's path.
func (f *feed) group() string {
	parts := strings.Split(f.path, "/")
	if parts[1] == "api" {
		return ""
	}
	return parts[2]
}

func (f *feed) definitionName() string { return f.store.kind.resource + "." + f.group() }

// message is what the API server said, in a line.
func message(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// cause is why a connection failed, without what changes with every attempt.
func cause(err error) string {
	if err == nil {
		return "no answer"
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op != "dial" {
		err = op.Err // without the port of this end
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return "the name " + dns.Name + " cannot be resolved: " + dns.Err
	}
	return message(err)
}
