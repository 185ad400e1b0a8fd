package xsk

// clang and llvm-strip make steer_bpfel.o and steer_bpfel.go, which are committed: building needs neither.
//go:generate go tool -modfile=../../tools/go.mod bpf2go -go-package xsk -target bpfel -cflags "-O2 -g -Wall -Werror" steer bpf/steer.bpf.c
