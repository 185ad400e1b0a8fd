package mixed

import "culvert/dataplane/frame"

// NewAlone makes a device of the big way alone, for frames of every size: one system
// call each. It is for a worker that the device has no queue for, and only sends.
// The way ends with it.
func NewAlone(big Big, pool *frame.Pool) *Device {
	l := big.Limits()
	l.TxOnly = true
	return &Device{small: nothing{}, big: big, pool: pool, limits: l, txOnly: true}
}

// nothing is the socket that is not there: it takes no chain, not even of one chunk.
type nothing struct{}

func (nothing) Start(frame.Owner, int) error { return nil }
func (nothing) SetFill(int)                  {}
func (nothing) Recv(*frame.Burst) int        { return 0 }
func (nothing) Send([]frame.Frame) int       { return 0 }
func (nothing) Sending() bool                { return false }
func (nothing) FD() int                      { return -1 }
func (nothing) Limits() frame.Limits         { return frame.Limits{} }
func (nothing) Stats(*frame.DeviceStats)     {}
func (nothing) Close() error                 { return nil }
func (nothing) ZeroCopy() bool               { return false }
