package ethtool

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Commands of SIOCETHTOOL (include/uapi/linux/ethtool.h).
const (
	cmdGetDrvInfo  = 0x03 // ETHTOOL_GDRVINFO
	cmdGetChannels = 0x3c // ETHTOOL_GCHANNELS
)

// Channels are numbers of queues, as 'ethtool -l' has them. A combined one is a queue
// for each way.
type Channels struct {
	MaxCombined, Combined int
}

// GetChannels reads the channels of a device of the calling thread's namespace. A driver
// without such a setting is unix.EOPNOTSUPP.
func GetChannels(dev string) (Channels, error) {
	e, err := open(dev)
	if err != nil {
		return Channels{}, err
	}
	defer e.close()
	// struct ethtool_channels {u32 cmd, max_rx, max_tx, max_other, max_combined, rx_count,
	// tx_count, other_count, combined_count}
	buf := make([]byte, 36)
	binary.NativeEndian.PutUint32(buf, cmdGetChannels)
	if _, err := e.call(buf); err != nil {
		return Channels{}, fmt.Errorf("channels of %s: ETHTOOL_GCHANNELS: %w", dev, err)
	}
	at := func(i int) int { return int(binary.NativeEndian.Uint32(buf[i:])) }
	return Channels{MaxCombined: at(16), Combined: at(32)}, nil
}

// Driver is the name of the driver of a device of the calling thread's namespace.
func Driver(dev string) (string, error) {
	e, err := open(dev)
	if err != nil {
		return "", err
	}
	defer e.close()
	// struct ethtool_drvinfo {u32 cmd; char driver[32], ...}, of 196 bytes
	buf := make([]byte, 196)
	binary.NativeEndian.PutUint32(buf, cmdGetDrvInfo)
	if _, err := e.call(buf); err != nil {
		return "", fmt.Errorf("driver of %s: ETHTOOL_GDRVINFO: %w", dev, err)
	}
	return unix.ByteSliceToString(buf[4:36]), nil
}
