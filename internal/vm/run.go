package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what runs where.
type Options struct {
	Kernel string            // directory of a kernel, as scripts/vm-kernel prints it
	Init   string            // vminit, compiled without cgo
	Job    Job               // by paths of the machine
	Files  map[string]string // programs to bring: path in the machine, path here
	Tools  []string          // programs of this machine to bring into /bin

	Memory int    // MB
	CPUs   int    // at most Queues/2, see Queues
	Accel  string // of QEMU: "tcg" or "kvm"

	Output io.Writer // what the program prints
	// Console gets what the kernel says, as it says it; nil: it is shown on Output
	// when the machine ends without a result or the kernel complained.
	Console io.Writer
}

// Run boots a machine, runs the job there and returns its exit code. The error
// is of the machine, which then has no code. Run kills it when ctx ends.
func Run(ctx context.Context, o *Options) (code int, err error) {
	root, err := memoryFile("root")
	if err != nil {
		return 0, err
	}
	defer root.Close()
	if err := writeRoot(root, o); err != nil {
		return 0, fmt.Errorf("the machine's root file system: %w", err)
	}
	c, err := newCable()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	m := &machine{options: o}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64")
	var said bytes.Buffer // QEMU's own words
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second
	if err := m.attach(cmd, root, &c); err != nil {
		return 0, err
	}
	if err := runLocked(cmd); err != nil {
		m.abandon()
		return 0, fmt.Errorf("starting QEMU: %w", err)
	}
	m.closeFarEnds()
	ended := cmd.Wait()
	m.readers.Wait()
	code, err = m.result()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("the machine was stopped: %w", context.Cause(ctx))
	case err != nil:
		err = errors.Join(fmt.Errorf("the machine ended without a result: %w", err), ended)
		if said.Len() > 0 {
			err = fmt.Errorf("%w\nQEMU: %s", err, bytes.TrimSpace(said.Bytes()))
		}
	}
	m.showConsole(err != nil)
	return code, err
}

// machine is a run's view of QEMU: pipes that carry what comes out of it.
type machine struct {
	options *Options
	console bytes.Buffer
	code    bytes.Buffer
	readers sync.WaitGroup
	far     []*os.File // QEMU's ends of the pipes
}

// pipe makes one whose content goes to w, and returns QEMU's name for it.
func (m *machine) pipe(cmd *exec.Cmd, w io.Writer) (string, error) {
	r, far, err := os.Pipe()
	if err != nil {
		return "", err
	}
	m.far = append(m.far, far)
	m.readers.Go(func() {
		_, _ = io.Copy(w, r)
		_, _ = io.Copy(io.Discard, r) // w is gone; QEMU must not wait for it
		r.Close()
	})
	return inherit(cmd, far), nil
}

func (m *machine) closeFarEnds() {
	for _, f := range m.far {
		f.Close()
	}
}

func (m *machine) abandon() {
	m.closeFarEnds()
	m.readers.Wait()
}

// result is what vminit reported.
func (m *machine) result() (int, error) {
	text := strings.TrimSpace(m.code.String())
	if text == "" {
		return 0, errors.New("the kernel or QEMU failed, see above")
	}
	return strconv.Atoi(text)
}

// complaints are how the kernel begins to tell of its own faults.
var complaints = []string{"BUG:", "WARNING:", "Oops", "Kernel panic", "Call Trace", "general protection fault", "vminit:"}

// showConsole shows what the kernel said if somebody must see it.
func (m *machine) showConsole(failed bool) {
	text := m.console.String()
	for _, c := range complaints {
		failed = failed || strings.Contains(text, c)
	}
	if failed && m.options.Console == nil {
		fmt.Fprintf(m.options.Output, "--- the machine's console\n%s--- end of the console\n", text)
	}
}

// memoryFile is a file without a name, which ends with its last descriptor.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for the machine's %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// inherit gives a command a file and returns a path that opens it there.
func inherit(cmd *exec.Cmd, f *os.File) string { return fmt.Sprintf("/dev/fd/%d", inheritFD(cmd, f)) }

func inheritFD(cmd *exec.Cmd, f *os.File) int {
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	return 2 + len(cmd.ExtraFiles)
}

// runLocked starts a command that dies when this process does, whatever ends
// it. The kernel tells it by the death of the thread that started it, which
// therefore is one that stays.
func runLocked(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	errc := make(chan error)
	go func() {
		runtime.LockOSThread()
		errc <- cmd.Start()
		select {}
	}()
	return <-errc
}
