package ociimage

import (
	"debug/elf"
	"fmt"
)

// Machine is the GOARCH of a program, or an error where it could not run in an image
// that holds nothing else: one that is linked dynamically.
func Machine(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is linked dynamically: an image from scratch has no library; build it with CGO_ENABLED=0", program)
		}
	}
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("%s is for %s, which no image is built for", program, f.Machine)
}
