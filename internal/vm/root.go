package vm

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// writeRoot writes the machine's root file system.
func writeRoot(w io.Writer, o *Options) error {
	a := newArchive(w)
	for _, dir := range []string{"/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/var/lib", ModuleDir} {
		a.dir(dir)
	}
	a.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.file("/etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	modules, err := filepath.Glob(filepath.Join(o.Kernel, "modules", "*.ko"))
	if err != nil {
		return err
	}
	if len(modules) == 0 {
		return fmt.Errorf("kernel %s has no modules: scripts/vm-kernel makes it", o.Kernel)
	}
	for _, m := range modules {
		if err := a.copy(m, filepath.Join(ModuleDir, filepath.Base(m)), 0o644); err != nil {
			return err
		}
	}
	if err := a.copy(o.Init, "/init", 0o755); err != nil {
		return err
	}
	for _, tool := range o.Tools {
		found, err := lookTool(tool)
		if err != nil {
			return fmt.Errorf("a tool of the machine: %w; make deps-vm installs it", err)
		}
		if err := a.program(found, "/bin/"+filepath.Base(tool)); err != nil {
			return err
		}
	}
	for guest, host := range o.Files {
		if err := a.program(host, guest); err != nil {
			return err
		}
	}
	job, err := json.Marshal(o.Job)
	if err != nil {
		return err
	}
	a.file(JobPath, 0o644, job)
	return a.close()
}

// lookTool finds a program that may be one of the administrator's.
func lookTool(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil && !strings.Contains(name, "/") {
			return dir + name, nil
		}
	}
	return exec.LookPath(name)
}

// copy puts a file of this machine into the archive.
func (a *archive) copy(host, guest string, mode os.FileMode) error {
	content, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	a.file(guest, mode, content)
	return a.err
}

// program puts a program into the archive and the shared libraries that it needs.
func (a *archive) program(host, guest string) error {
	if err := a.copy(host, guest, 0o755); err != nil {
		return err
	}
	libraries, err := sharedLibraries(host)
	if err != nil {
		return err
	}
	for _, lib := range libraries {
		if err := a.copy(lib, lib, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// sharedLibraries lists the paths that the dynamic linker would load; none for
// a static program and for a script.
func sharedLibraries(program string) (paths []string, err error) {
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") || strings.Contains(string(out), "statically linked") {
			return nil, nil
		}
		return nil, fmt.Errorf("the libraries of %s: %w: %s", program, err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") {
				paths = append(paths, field)
			}
		}
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("the libraries of %s: %s", program, line)
		}
	}
	return paths, nil
}
