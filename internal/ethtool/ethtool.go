// Package ethtool reads and switches offloads of network devices, as 'ethtool -k' and
// '-K' do, by the long names that the kernel has for them ("tx-udp-segmentation"), and
// reads their channels and drivers ('-l', '-i'). It knows nothing of why.
package ethtool

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// GRO is generic-receive-offload.
const GRO = "rx-gro"

// The limits of the ethtool feature interface (include/uapi/linux/ethtool.h).
const (
	gstringLen  = 32 // ETH_GSTRING_LEN
	maxFeatures = 512
)

// Set switches offloads of a device of the calling thread's namespace on or off, those
// that are not yet so, and makes sure of the first. One that this kernel does not know
// is skipped.
func Set(dev string, want bool, names ...string) error {
	e, err := open(dev)
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", dev, err)
	}
	defer e.close()
	index, err := e.featureIndex()
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", dev, err)
	}
	on, err := e.active(len(index))
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", dev, err)
	}
	var bits []int
	for _, name := range names {
		if bit, ok := index[name]; ok && on[bit] != want {
			bits = append(bits, bit)
		}
	}
	if len(bits) == 0 {
		return nil
	}
	if err := e.set(len(index), bits, want); err != nil {
		return fmt.Errorf("switching offloads of %s: %w", dev, err)
	}
	if on, err = e.active(len(index)); err != nil {
		return fmt.Errorf("offloads of %s: %w", dev, err)
	}
	if bit, ok := index[names[0]]; ok && on[bit] != want {
		return fmt.Errorf("offload %s of %s is on: %t, although it was switched otherwise", names[0], dev, on[bit])
	}
	return nil
}

// Feature reports whether an offload is active on a
// device of the calling thread's namespace.
func Feature(dev, name string) (bool, error) {
	e, err := open(dev)
	if err != nil {
		return false, err
	}
	defer e.close()
	index, err := e.featureIndex()
	if err != nil {
		return false, err
	}
	bit, ok := index[name]
	if !ok {
		return false, fmt.Errorf("offload %q: %w", name, errors.ErrUnsupported)
	}
	on, err := e.active(len(index))
	if err != nil {
		return false, err
	}
	return on[bit], nil
}

// featureIndex reads the kernel's feature names and their bits.
func (e *device) featureIndex() (map[string]int, error) {
	n, err := e.featureCount()
	if err != nil {
		return nil, err
	}
	if n == 0 || n > maxFeatures {
		return nil, fmt.Errorf("kernel reports %d features", n)
	}
	text, err := e.featureStrings(n)
	if err != nil {
		return nil, err
	}
	index := make(map[string]int, n)
	for i := range n {
		index[unix.ByteSliceToString(text[i*gstringLen:(i+1)*gstringLen])] = i
	}
	return index, nil
}
