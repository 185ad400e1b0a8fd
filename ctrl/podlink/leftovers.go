package podlink

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AliasPrefix begins the alias of every pod's host end.
const AliasPrefix = "culvert: "

// Made says what a device of the node is, that Culvert made.
type Made string

// What there can be.
const (
	MadeForPod    Made = "pod"    // the host end of a pod's veth
	MadeForIntake Made = "intake" // dataplane/intake's, which ends with culvertd
	MadeForUplink Made = "uplink" // dataplane/tap's beside an uplink, which does too
)

// Leftover is a device that Culvert has made in the calling thread's network namespace.
type Leftover struct {
	Name, Alias string
	Made        Made
	index       int
}

// The devices that end with culvertd have such names.
var (
	intakeName = regexp.MustCompile(`^cvi[0-9a-f]{6}[sb]$`)
	uplinkName = regexp.MustCompile(`^cvg[0-9a-f]{8}$`)
)

// Leftovers finds the devices that Culvert has made in the calling thread's network
// namespace, culvert0 aside. A pod's are known by their alias.
func Leftovers() (all []Leftover, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing the node's links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		left := Leftover{Name: a.Name, Alias: a.Alias, index: a.Index}
		switch kind := l.Type(); {
		case kind == "veth" && strings.HasPrefix(a.Alias, AliasPrefix):
			left.Made = MadeForPod
		case kind == "veth" && intakeName.MatchString(a.Name):
			left.Made = MadeForIntake
		case kind == tapType && uplinkName.MatchString(a.Name):
			left.Made = MadeForUplink
		default:
			continue
		}
		all = append(all, left)
	}
	return all, nil
}

// Remove deletes the device. One that is gone is no error.
func (l *Leftover) Remove() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByIndex(l.index)
	if err == nil {
		err = h.LinkDel(link)
	}
	if err != nil && !isGone(err) {
		return fmt.Errorf("deleting %s: %w", l.Name, err)
	}
	return nil
}
