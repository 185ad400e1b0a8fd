package source

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"culvert/ctrl/config/yamlfile"
)

// object is one object of a file, decoded and checked.
type object struct {
	ref   Ref
	kind  *kind
	place Place
	value metav1.Object
}

// manifest is what one file says.
type manifest struct {
	objects []object
	ignored int // objects of kinds that Culvert does not read
}

// decodeManifest reads all objects of a file. file stands in errors and places.
// The error is the first mistake; then nothing of the file is to be used.
func decodeManifest(file string, text []byte) (*manifest, error) {
	m := &manifest{}
	for _, doc := range yamlfile.Split(text) {
		root, err := yamlfile.Parse(file, doc)
		if err != nil {
			return nil, err
		}
		if root.Kind == yamlfile.Null {
			continue
		}
		if err := m.document(decoder{file}, root); err != nil {
			return nil, err
		}
	}
	return m, m.twice()
}

// document adds an object, or those of a list.
func (m *manifest) document(d decoder, n *yamlfile.Node) error {
	apiVersion, name, err := d.typeOf(n, "", "", "")
	if err != nil {
		return err
	}
	item, isList := strings.CutSuffix(name, "List")
	if !isList || (name != "List" && findKind(apiVersion, item) == nil) {
		return m.object(d, n, "", apiVersion, name)
	}
	for _, f := range n.Fields {
		switch f.Key {
		case "apiVersion", "kind", "metadata":
		case "items":
			if f.Value.Kind != yamlfile.List && f.Value.Kind != yamlfile.Null {
				return d.want(f.Value, "items", "a list; write - in front of each object")
			}
		default:
			return d.fail(f.Line, yamlfile.Join("", f.Key), "unknown field; a list has apiVersion, kind, metadata and items")
		}
	}
	items := n.Field("items")
	if items == nil {
		return nil
	}
	if name == "List" {
		apiVersion = "" // the items say theirs
	}
	for i, n := range items.Items {
		path := yamlfile.Index("items", i)
		itemVersion, itemKind, err := d.typeOf(n, path, apiVersion, item)
		if err != nil {
			return err
		}
		if err := m.object(d, n, path, itemVersion, itemKind); err != nil {
			return err
		}
	}
	return nil
}

// typeOf reads apiVersion and kind of n, an object at path, with defaults for
// items of typed lists.
func (d decoder) typeOf(n *yamlfile.Node, path, apiVersion, name string) (string, string, error) {
	if n.Kind != yamlfile.Map {
		return "", "", d.want(n, path, "a Kubernetes object; write apiVersion, kind and metadata")
	}
	for _, f := range []struct {
		key string
		to  *string
	}{{"apiVersion", &apiVersion}, {"kind", &name}} {
		v := n.Field(f.key)
		at := yamlfile.Join(path, f.key)
		switch {
		case v == nil || v.Kind == yamlfile.Null || (v.Kind == yamlfile.String && v.Text == ""):
			if *f.to == "" {
				return "", "", d.fail(n.Line, at, "is missing; every object begins with apiVersion and kind")
			}
		case v.Kind != yamlfile.String:
			return "", "", d.want(v, at, "text; put it in quotes")
		default:
			*f.to = v.Text
		}
	}
	return apiVersion, name, nil
}

// object decodes and checks one object, which is at path.
func (m *manifest) object(d decoder, n *yamlfile.Node, path, apiVersion, name string) error {
	k := findKind(apiVersion, name)
	if k == nil {
		if known := ours(apiVersion, name); known != "" {
			return d.fail(lineOf(n, []any{"apiVersion"}), yamlfile.Join(path, "apiVersion"), fmt.Sprintf("%s is no version of %s that is read; write %s", apiVersion, name, known))
		}
		if !exists(apiVersion, name) {
			return d.fail(lineOf(n, []any{"kind"}), yamlfile.Join(path, "kind"), misspelled(apiVersion, name))
		}
		m.ignored++
		return nil
	}
	o := k.make()
	if err := d.object(n, path, reflect.ValueOf(o).Elem()); err != nil {
		return err
	}
	f := checkMeta(k, o)
	if f == nil {
		f = k.check(o)
	}
	if f != nil {
		return d.fail(lineOf(n, f.at), path+keyOf(path, f.at), f.what)
	}
	if k.cluster {
		o.SetNamespace("")
	} else if o.GetNamespace() == "" {
		o.SetNamespace(metav1.NamespaceDefault)
	}
	m.objects = append(m.objects, object{
		ref:   Ref{k.name, o.GetNamespace(), o.GetName()},
		kind:  k,
		place: Place{d.file, n.Line},
		value: o,
	})
	return nil
}

func misspelled(apiVersion, name string) string {
	for _, k := range kinds {
		if strings.EqualFold(k.name, name) || strings.EqualFold(k.name, strings.TrimSuffix(name, "s")) {
			return fmt.Sprintf("%s has no kind %s; did you mean %s of %s?", apiVersion, name, k.name, k.apiVersion)
		}
	}
	return fmt.Sprintf("%s has no kind %s; check apiVersion and kind", apiVersion, name)
}

// twice finds an object that the file has two times.
func (m *manifest) twice() error {
	seen := make(map[Ref]Place, len(m.objects))
	for _, o := range m.objects {
		if first, ok := seen[o.ref]; ok {
			return alsoIn(o, first)
		}
		seen[o.ref] = o.place
	}
	return nil
}

// alsoIn is the mistake of an object that is at another place too.
func alsoIn(o object, other Place) error {
	return &yamlfile.Error{File: o.place.File, Line: o.place.Line, Key: "metadata.name",
		What: fmt.Sprintf("%s is also in %s:%d; keep one of them", o.ref, other.File, other.Line)}
}

// objectName is what API servers accept as the name of all our kinds.
var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// checkMeta checks what all kinds have.
func checkMeta(k *kind, o metav1.Object) *finding {
	switch name := o.GetName(); {
	case name == "":
		return found("is missing; name the object", "metadata", "name")
	case len(name) > 253 || !objectName.MatchString(name):
		return found(fmt.Sprintf("%q is no object name; write lower-case letters, digits, - and .", name), "metadata", "name")
	}
	if ns := o.GetNamespace(); ns != "" {
		if k.cluster {
			return found(fmt.Sprintf("a %s is in no namespace; remove it", k.name), "metadata", "namespace")
		}
		if len(ns) > 63 || !objectName.MatchString(ns) || strings.Contains(ns, ".") {
			return found(fmt.Sprintf("%q is no namespace; write lower-case letters, digits and -", ns), "metadata", "namespace")
		}
	}
	return nil
}
