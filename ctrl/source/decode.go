package source

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"culvert/ctrl/config/yamlfile"
)

// decoder fills Go values from a parsed file by the rules of encoding/json,
// strictly: a key that the type does not have, with its exact case, is a
// mistake, as it is for an API server with strict field validation.
type decoder struct{ file string }

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

func (d decoder) fail(line int, path, what string) error {
	return &yamlfile.Error{File: d.file, Line: line, Key: path, What: what}
}

// want is the mistake of a node of the wrong kind.
func (d decoder) want(n *yamlfile.Node, path, what string) error {
	return d.fail(n.Line, path, fmt.Sprintf("is %s, want %s", n.Kind, what))
}

// value decodes n, which is at path, into v. Null leaves v as it is.
func (d decoder) value(n *yamlfile.Node, path string, v reflect.Value) error {
	if n.Kind == yamlfile.Null {
		return nil
	}
	if v.CanAddr() && v.Addr().Type().Implements(unmarshaler) {
		return d.special(n, path, v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(n, path, v.Elem())
	case reflect.Struct:
		return d.object(n, path, v)
	case reflect.Map:
		return d.mapping(n, path, v)
	case reflect.Slice:
		return d.list(n, path, v)
	case reflect.String:
		if n.Kind != yamlfile.String {
			if n.Kind == yamlfile.List || n.Kind == yamlfile.Map {
				return d.want(n, path, "text; write one value")
			}
			return d.want(n, path, "text; put it in quotes")
		}
		v.SetString(n.Text)
		return nil
	case reflect.Bool:
		if n.Kind != yamlfile.Bool {
			return d.want(n, path, "a truth value; write true or false")
		}
		v.SetBool(n.Text == "true")
		return nil
	}
	return d.number(n, path, v)
}

// number decodes into a Go number of any size.
func (d decoder) number(n *yamlfile.Node, path string, v reflect.Value) error {
	if v.CanFloat() {
		f, err := strconv.ParseFloat(n.Text, 64)
		if (n.Kind != yamlfile.Int && n.Kind != yamlfile.Float) || err != nil {
			return d.want(n, path, "a number; write one without quotes")
		}
		v.SetFloat(f)
		return nil
	}
	if n.Kind != yamlfile.Int {
		return d.want(n, path, "a whole number; write one without quotes")
	}
	if v.CanUint() {
		u, err := strconv.ParseUint(n.Text, 10, v.Type().Bits())
		if err != nil {
			return d.fail(n.Line, path, fmt.Sprintf("%s is out of range; at most %d bits without a sign fit", n.Text, v.Type().Bits()))
		}
		v.SetUint(u)
		return nil
	}
	i, err := strconv.ParseInt(n.Text, 10, v.Type().Bits())
	if err != nil {
		return d.fail(n.Line, path, fmt.Sprintf("%s is out of range; at most %d bits fit", n.Text, v.Type().Bits()))
	}
	v.SetInt(i)
	return nil
}

// object decodes a mapping into a struct.
func (d decoder) object(n *yamlfile.Node, path string, v reflect.Value) error {
	if n.Kind != yamlfile.Map {
		return d.want(n, path, "a mapping; write key: value lines")
	}
	fields := fieldsOf(v.Type())
	for _, f := range n.Fields {
		at := yamlfile.Join(path, f.Key)
		index, ok := fields[f.Key]
		if !ok {
			return d.fail(f.Line, at, unknownField(fields, f.Key))
		}
		if err := d.value(f.Value, at, v.FieldByIndex(index)); err != nil {
			return err
		}
	}
	return nil
}

func unknownField(fields map[string][]int, key string) string {
	for _, try := range []string{key, key + "s", strings.TrimSuffix(key, "s"), key + "e"} {
		for name := range fields {
			if strings.EqualFold(name, try) {
				return fmt.Sprintf("unknown field; did you mean %s?", name)
			}
		}
	}
	return "unknown field; remove it"
}

func (d decoder) mapping(n *yamlfile.Node, path string, v reflect.Value) error {
	if n.Kind != yamlfile.Map {
		return d.want(n, path, "a mapping; write key: value lines")
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Fields)))
	for _, f := range n.Fields {
		elem := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(f.Value, yamlfile.Join(path, f.Key), elem); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(f.Key).Convert(v.Type().Key()), elem)
	}
	return nil
}

func (d decoder) list(n *yamlfile.Node, path string, v reflect.Value) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b, err := base64.StdEncoding.DecodeString(n.Text)
		if n.Kind != yamlfile.String || err != nil {
			return d.want(n, path, "base64 text")
		}
		v.SetBytes(b)
		return nil
	}
	if n.Kind != yamlfile.List {
		return d.want(n, path, "a list; write - in front of each element")
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Items), len(n.Items)))
	for i, item := range n.Items {
		if err := d.value(item, yamlfile.Index(path, i), v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// special decodes types that read JSON themselves: times, quantities, ports by
// number or name.
func (d decoder) special(n *yamlfile.Node, path string, v reflect.Value) error {
	text, err := json.Marshal(plain(n))
	if err == nil {
		err = json.Unmarshal(text, v.Addr().Interface())
	}
	if err != nil {
		what, _, _ := strings.Cut(err.Error(), "\n")
		return d.fail(n.Line, path, fmt.Sprintf("%s is no %s: %s", text, v.Type().Name(), what))
	}
	return nil
}

// plain is n as encoding/json wants it.
func plain(n *yamlfile.Node) any {
	switch n.Kind {
	case yamlfile.Bool:
		return n.Text == "true"
	case yamlfile.Int:
		return json.Number(n.Text)
	case yamlfile.Float:
		f, _ := strconv.ParseFloat(n.Text, 64)
		return f
	case yamlfile.String:
		return n.Text
	case yamlfile.List:
		out := make([]any, len(n.Items))
		for i, item := range n.Items {
			out[i] = plain(item)
		}
		return out
	case yamlfile.Map:
		out := make(map[string]any, len(n.Fields))
		for _, f := range n.Fields {
			out[f.Key] = plain(f.Value)
		}
		return out
	}
	return nil
}

// fieldCache maps a struct type to its fields by JSON name, those of inlined
// structs included.
var fieldCache sync.Map // reflect.Type → map[string][]int

func fieldsOf(t reflect.Type) map[string][]int {
	if have, ok := fieldCache.Load(t); ok {
		return have.(map[string][]int)
	}
	fields := map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name != "":
			fields[name] = f.Index
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			for inner, index := range fieldsOf(f.Type) {
				fields[inner] = append([]int{i}, index...)
			}
		default:
			fields[f.Name] = f.Index
		}
	}
	fieldCache.Store(t, fields)
	return fields
}
