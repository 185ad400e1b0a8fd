package calicoipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"culvert/ctrl/source"
)

// handle is an IPAMHandle; obj is nil if there is none yet.
type handle struct {
	obj  *unstructured.Unstructured
	spec source.IPAMHandleSpec
}

// handle reads one; one that is not there has no addresses.
func (c *Client) handle(ctx context.Context, id string) (*handle, error) {
	h := &handle{spec: source.IPAMHandleSpec{HandleID: id}}
	obj, err := c.cfg.Store.Get(ctx, handleRef(id))
	if errors.Is(err, ErrNotFound) {
		delete(c.handles, id)
		return h, nil
	}
	if err != nil {
		return nil, fmt.Errorf("IPAMHandle %s: %w", id, err)
	}
	if h.obj = obj; readSpec(obj, &h.spec) != nil {
		return nil, fmt.Errorf("IPAMHandle %s: its spec cannot be read: %w", id, ErrRefused)
	}
	if h.spec.Deleted { // somebody was about to delete it
		if err := c.remove(ctx, obj); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("IPAMHandle %s: %w", id, err)
		}
		return &handle{spec: source.IPAMHandleSpec{HandleID: id}}, nil
	}
	return h, nil
}

// changeHandle writes a handle's counts by compare-and-swap, and deletes it when
// there is nothing left to count.
func (c *Client) changeHandle(ctx context.Context, id string, change func(counts map[string]int)) error {
	h := c.handles[id]
	for range tries {
		if h == nil {
			var err error
			if h, err = c.handle(ctx, id); err != nil {
				return err
			}
		}
		err := c.writeHandle(ctx, h, change)
		if err == nil {
			return nil
		}
		delete(c.handles, id)
		if h = nil; !again(err) {
			return fmt.Errorf("IPAMHandle %s: %w", id, err)
		}
	}
	return fmt.Errorf("IPAMHandle %s: %w", id, errBusy)
}

func (c *Client) writeHandle(ctx context.Context, h *handle, change func(map[string]int)) (err error) {
	spec := h.spec
	spec.Block = maps.Clone(h.spec.Block)
	if spec.Block == nil {
		spec.Block = map[string]int{}
	}
	change(spec.Block)
	maps.DeleteFunc(spec.Block, func(_ string, n int) bool { return n <= 0 })
	obj := h.obj
	switch {
	case obj != nil && maps.Equal(spec.Block, h.spec.Block):
		return nil
	case obj == nil && len(spec.Block) == 0:
		return nil
	case len(spec.Block) == 0:
		obj = obj.DeepCopy()
		delete(c.handles, spec.HandleID)
		if err = writeSpec(obj, &spec); err != nil {
			return err
		}
		if err = c.remove(ctx, obj); errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	case obj == nil:
		obj = newObject(handleRef(spec.HandleID), nil)
		if err = writeSpec(obj, &spec); err == nil {
			obj, err = c.cfg.Store.Create(ctx, obj)
		}
	default:
		obj = obj.DeepCopy()
		if err = writeSpec(obj, &spec); err == nil {
			obj, err = c.cfg.Store.Update(ctx, obj)
		}
	}
	if err == nil {
		c.handles[spec.HandleID] = &handle{obj, spec}
	}
	return err
}

// count adds to what a handle has of a block. The first one is tried without looking
// whether there is a handle, which a new container has not.
func (c *Client) count(ctx context.Context, id string, cidr netip.Prefix, n int) error {
	if c.handles[id] == nil && n > 0 {
		h := &handle{spec: source.IPAMHandleSpec{HandleID: id}}
		err := c.writeHandle(ctx, h, func(counts map[string]int) { counts[cidr.String()] += n })
		if !errors.Is(err, ErrExists) {
			if err != nil {
				err = fmt.Errorf("IPAMHandle %s: %w", id, err)
			}
			return err
		}
	}
	return c.changeHandle(ctx, id, func(counts map[string]int) { counts[cidr.String()] += n })
}

// again reports whether an operation is worth another look: somebody else was faster.
func again(err error) bool {
	return errors.Is(err, ErrConflict) || errors.Is(err, ErrExists) || errors.Is(err, ErrNotFound)
}
