// Package xdpgen makes and counts packets inside the kernel: a generator that
// puts UDP frames into a device as fast as XDP can carry them, and a sink that
// counts what arrives at another device and drops it.
//
// Neither needs a module or a second machine. The generator is a BPF program
// that the kernel runs over frames of its own (BPF_PROG_TEST_RUN in live-frame
// mode) and that redirects each into a veth; a 64-byte frame costs about half a
// microsecond of one core. Redirecting into a veth works only when the
// receiving end polls: it needs a native XDP program or GRO
// (drivers/net/veth.c, veth_xdp_xmit), see testbed.Space.GRO.
package xdpgen

// clang and llvm-strip make the objects, which are committed: building needs neither.
// The sink needs atomic operations with a result, which clang makes for v3 of the instruction set.
//go:generate go tool -modfile=../../tools/go.mod bpf2go -go-package xdpgen -target bpfel -cflags "-O2 -g -Wall -Werror" generate bpf/generate.bpf.c
//go:generate go tool -modfile=../../tools/go.mod bpf2go -go-package xdpgen -target bpfel -cflags "-O2 -g -Wall -Werror -mcpu=v3" count bpf/count.bpf.c
