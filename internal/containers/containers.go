// Package containers holds the tests of Culvert with the programs that run it on a node:
// the CNI project's cnitool and its plugins chained after ours, containerd and ctr with
// runc, and real containers made from nothing. `make test-containers` runs them; they have
// the build tag containers. Everything happens in namespaces of their own, on nodes of
// package lab, and nothing of the machine changes but cgroups, which go with the test.
package containers
