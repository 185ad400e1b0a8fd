// Package fib holds what the dataplane forwards by: the longest-prefix table,
// the adjacencies and groups of them that its routes share, the FDB, the
// neighbours and the node's own addresses. docs/routes.md is about it.
//
// There is one writer, a [Table], and any number of readers, each with a
// [Snapshot]. A snapshot never changes; a new one shares with the last all that
// did not change, so that publishing one route among a million costs
// microseconds. Nothing here does I/O, reads a clock or starts a goroutine, and
// nothing knows Kubernetes: what should be in the tables is decided in ctrl,
// what happens to a packet in dataplane.
package fib
