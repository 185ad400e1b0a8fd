package tap

// clang and llvm-strip make redirect_bpfel.o and redirect_bpfel.go, which are committed: building needs neither.
//go:generate go tool -modfile=../../tools/go.mod bpf2go -go-package tap -target bpfel -cflags "-O2 -g -Wall -Werror" redirect bpf/redirect.bpf.c
