// Package e2e holds the tests of the whole thing: real culvertd processes on
// real namespaces and veths, pods attached by the real plugin, and the kernel's
// own VXLAN as the peer. It needs root and the Debian packages that `make deps`
// installs; it makes and removes every namespace it uses.
package e2e
