// Package vm runs one program inside a virtual machine and hands back its exit
// code: tests that need what this machine's kernel lacks run there (kernel IPIP,
// AF_XDP zero copy). Boot takes seconds, without KVM too.
//
// The machine is QEMU with a Debian kernel that scripts/vm-kernel keeps, and a
// root file system in memory that holds the program, a few tools of this machine
// and vminit, which is the first process there: it loads the kernel's modules,
// runs the program, reports and turns the machine off. The machine has two
// virtio NICs, joined outside of it as if by a cable, and no other network.
//
// Nothing is left behind, however a run ends: the root file system is anonymous
// memory, the cable is in a network namespace without a name, and QEMU dies with
// the process that started it.
//
// Package vm knows nothing of Culvert; it may import no other package of it. It
// needs root, for the namespace. docs/vm-tests.md says how tests are run in it.
package vm

// NICs are the hardware addresses of the machine's NICs, eth0 and eth1 until
// somebody renames them. What one sends the other receives.
var NICs = [2]string{"52:54:00:c1:00:01", "52:54:00:c1:00:02"}

// The vocabulary that this package and vminit share.
const (
	// JobPath is where vminit finds its Job, as JSON.
	JobPath = "/vm/job.json"
	// ModuleDir holds the modules to load, in the order of their names.
	ModuleDir = "/vm/modules"
	// OutputPort and ResultPort are virtio serial ports: what the program prints,
	// and its exit code in decimal.
	OutputPort = "vm.output"
	ResultPort = "vm.result"
)

// Job is what vminit is to run.
type Job struct {
	Args []string `json:"args"` // the program's path in the machine first
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
}
