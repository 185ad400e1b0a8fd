package vm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// bootArgs are the kernel's. A panic ends the machine at once (-no-reboot);
// a loaded host's timers must not make the kernel doubt its own.
const bootArgs = "console=ttyS0 quiet panic=-1 no_timer_check tsc=unstable random.trust_cpu=on mitigations=off nokaslr"

// attach completes QEMU's command line and gives it what it inherits.
func (m *machine) attach(cmd *exec.Cmd, root *os.File, c *cable) error {
	o := m.options
	console := o.Console
	if console == nil {
		console = &m.console
	}
	args := []string{
		"-M", "q35,usb=off,sata=off,smbus=off,graphics=off", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-smp", fmt.Sprint(o.CPUs), "-m", fmt.Sprint(o.Memory), "-cpu", "max",
		"-kernel", filepath.Join(o.Kernel, "vmlinuz"), "-initrd", inherit(cmd, root), "-append", bootArgs,
		"-device", "virtio-serial-pci",
	}
	if o.Accel == "kvm" {
		args = append(args, "-accel", "kvm")
	} else {
		// One thread for all CPUs: with a thread for each, QEMU before 8.1 may keep
		// code that it translated while another CPU patched it, and the kernel dies
		// of a breakpoint that it has long taken away (arch/x86/kernel/alternative.c,
		// smp_text_poke_batch_finish). The price is a quarter of the speed.
		args = append(args, "-accel", "tcg,thread=single")
	}
	consolePath, err := m.pipe(cmd, console)
	if err != nil {
		return err
	}
	args = append(args, "-chardev", "file,id=console,path="+consolePath, "-serial", "chardev:console")
	output, err := m.pipe(cmd, o.Output)
	if err != nil {
		return err
	}
	args = append(args, serialPort("output", output, OutputPort)...)
	result, err := m.pipe(cmd, &m.code)
	if err != nil {
		return err
	}
	args = append(args, serialPort("result", result, ResultPort)...)
	for i, queues := range c {
		args = append(args, nic(cmd, i, queues)...)
	}
	cmd.Args = append(cmd.Args, args...)
	return nil
}

func serialPort(id, path, name string) []string {
	return []string{"-chardev", "file,id=" + id + ",path=" + path, "-device", "virtserialport,chardev=" + id + ",name=" + name}
}

// nic is a virtio-net device on the queues of a TAP device. The driver has
// zero copy only where it maps memory for DMA itself (virtqueue_dma_dev), which
// iommu_platform asks for and legacy devices cannot.
func nic(cmd *exec.Cmd, i int, queues []*os.File) []string {
	var fds []string
	for _, f := range queues {
		fds = append(fds, fmt.Sprint(inheritFD(cmd, f)))
	}
	return []string{
		"-netdev", fmt.Sprintf("tap,id=net%d,vhost=off,fds=%s", i, strings.Join(fds, ":")),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,mac=%s,mq=on,vectors=%d,rx_queue_size=1024,romfile=,disable-legacy=on,iommu_platform=on",
			i, NICs[i], 2*len(queues)+2),
	}
}

// DefaultAccel is kvm where this machine's CPU offers it. A /dev/kvm alone says
// little: inside a virtual machine it may be there and not work.
func DefaultAccel() string {
	if runtime.GOARCH != "amd64" {
		return "tcg"
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "tcg"
	}
	flags := strings.Fields(string(info))
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg"
	}
	f.Close()
	for _, flag := range flags {
		if flag == "svm" || flag == "vmx" {
			return "kvm"
		}
	}
	return "tcg"
}
