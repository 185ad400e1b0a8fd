// Package suite has the experiments: which devices under test get which load, and
// what is read from it. An experiment is a function here that says so, most of
// them in a page.
//
// How a device is built is package peer's affair, how a load is measured that of
// packages forward, rr and tcp, and in which order everything happens that of
// package run.
package suite
