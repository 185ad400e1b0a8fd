package kube

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Lists and watches are read from the wire one object at a time, so that only what is
// kept of an object outlives it: a list of ten thousand blocks is 80 MB of JSON.

// maxObject bounds one object; etcd takes at most 1.5 MB.
const maxObject = 8 << 20

// protoMagic begins what Kubernetes sends in protobuf
// (apimachinery/pkg/runtime/serializer/protobuf).
var protoMagic = []byte("k8s\x00")

// unmarshaler is a core kind.
type unmarshaler interface{ Unmarshal([]byte) error }

// protoReader reads an object from protobuf, as json.Unmarshal does from JSON.
func protoReader(data []byte) func(any) error {
	return func(to any) error {
		o, ok := to.(unmarshaler)
		if !ok {
			return fmt.Errorf("%T cannot be sent in protobuf", to)
		}
		return o.Unmarshal(data)
	}
}

func jsonReader(data []byte) func(any) error {
	return func(to any) error { return json.Unmarshal(data, to) }
}

// readList reads a list, in protobuf or JSON, and calls each for every object. It
// returns the list's resource version.
func readList(body io.Reader, k *kind, each func(metav1.Object, error)) (version string, err error) {
	r := bufio.NewReaderSize(body, 64<<10)
	if head, err := r.Peek(len(protoMagic)); err == nil && bytes.Equal(head, protoMagic) {
		return readProtoList(r, k, each)
	}
	return readJSONList(r, k, each)
}

// readJSONList reads {"metadata": {...}, "items": [...]} in any order.
func readJSONList(r io.Reader, k *kind, each func(metav1.Object, error)) (version string, err error) {
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return "", err
	}
	var m metav1.ListMeta
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return "", err
		}
		switch key {
		case "metadata":
			err = d.Decode(&m)
		case "items":
			err = readItems(d, k, each)
		default:
			var skip json.RawMessage
			err = d.Decode(&skip)
		}
		if err != nil {
			return "", err
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return "", err
	}
	return m.ResourceVersion, nil
}

func readItems(d *json.Decoder, k *kind, each func(metav1.Object, error)) error {
	first, err := d.Token()
	if err != nil || first == nil { // null
		return err
	}
	if first != json.Delim('[') {
		return fmt.Errorf("%v where a list should be", first)
	}
	for d.More() {
		before := d.InputOffset()
		o, err := k.decode(d.Decode, false)
		if err != nil && (d.InputOffset() == before || o.GetName() == "") {
			return err // the stream is broken, and not the object
		}
		each(o, err)
	}
	return expect(d, json.Delim(']'))
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v where %v should be", got, want)
	}
	return err
}

// Numbers of fields, as in generated.proto of the packages: all lists of Kubernetes
// have metadata and items as 1 and 2.
const (
	unknownRaw   = 2 // runtime.Unknown
	listMetadata = 1
	listItems    = 2
)

// readProtoList reads a list within its envelope, which is a runtime.Unknown.
func readProtoList(r *bufio.Reader, k *kind, each func(metav1.Object, error)) (version string, err error) {
	if _, err := r.Discard(len(protoMagic)); err != nil {
		return "", err
	}
	var m metav1.ListMeta
	var buf []byte
	err = protoFields(r, func(field, size int) error {
		if field != unknownRaw {
			return discard(r, size)
		}
		inner := bufio.NewReader(io.LimitReader(r, int64(size)))
		return protoFields(inner, func(field, size int) (err error) {
			if field != listMetadata && field != listItems {
				return discard(inner, size)
			}
			if buf, err = readN(inner, buf, size); err != nil {
				return err
			}
			if field == listMetadata {
				return m.Unmarshal(buf)
			}
			each(k.decode(protoReader(buf), true))
			return nil
		})
	})
	return m.ResourceVersion, err
}

// protoFields calls f for every field with a length, to read that many bytes; others
// are passed over.
func protoFields(r *bufio.Reader, f func(field, size int) error) error {
	for {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		size := uint64(0)
		switch tag & 7 {
		case 0:
			_, err = binary.ReadUvarint(r)
		case 1:
			size = 8
		case 2:
			size, err = binary.ReadUvarint(r)
		case 5:
			size = 4
		default:
			err = fmt.Errorf("no protobuf: a field of type %d", tag&7)
		}
		switch {
		case err != nil:
		case tag&7 == 2:
			err = f(int(tag>>3), int(size))
		default:
			err = discard(r, int(size))
		}
		if err != nil {
			return unexpected(err)
		}
	}
}

func discard(r *bufio.Reader, n int) error {
	_, err := r.Discard(n)
	return err
}

// readN reads n bytes into buf, which grows.
func readN(r io.Reader, buf []byte, n int) ([]byte, error) {
	if n < 0 || n > maxObject {
		return buf, fmt.Errorf("an object of %d bytes, at most %d are read", n, maxObject)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}

// unexpected is an end in the middle.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// event is one of a watch. read is good until the next one is read.
type event struct {
	kind  string // ADDED, MODIFIED, DELETED, BOOKMARK or ERROR
	read  func(any) error
	proto bool
}

// readEvents reads a watch, in protobuf or JSON, until it ends or f fails.
func readEvents(body io.Reader, f func(event) error) error {
	r := bufio.NewReaderSize(body, 16<<10)
	head, err := r.Peek(1)
	if err != nil {
		return err
	}
	if head[0] == 0 { // the length of a frame of less than 16 MB
		return readProtoEvents(r, f)
	}
	d := json.NewDecoder(r)
	for {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := d.Decode(&e); err != nil {
			return err
		}
		if err := f(event{kind: e.Type, read: jsonReader(e.Object)}); err != nil {
			return err
		}
	}
}

// readProtoEvents reads frames: a length of four bytes and a metav1.WatchEvent, whose
// object has an envelope of its own (apimachinery/pkg/util/framer).
func readProtoEvents(r *bufio.Reader, f func(event) error) error {
	var length [4]byte
	var buf []byte
	for {
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return err
		}
		var err error
		if buf, err = readN(r, buf, int(binary.BigEndian.Uint32(length[:]))); err != nil {
			return unexpected(err)
		}
		var e metav1.WatchEvent
		if err := e.Unmarshal(buf); err != nil {
			return err
		}
		next := event{kind: e.Type, read: jsonReader(e.Object.Raw)}
		if raw, ok := bytes.CutPrefix(e.Object.Raw, protoMagic); ok {
			var envelope runtime.Unknown
			if err := envelope.Unmarshal(raw); err != nil {
				return err
			}
			next.read, next.proto = protoReader(envelope.Raw), true
		}
		if err := f(next); err != nil {
			return err
		}
	}
}
