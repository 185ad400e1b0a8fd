package intake

// clang and llvm-strip make intake_bpfel.o and intake_bpfel.go, which are committed: building needs neither.
//go:generate go tool -modfile=../../tools/go.mod bpf2go -go-package intake -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3" intake bpf/intake.bpf.c
