// Package rr asks and answers: a client in one namespace sends a request, a
// server in another its response, and how long that took is noted. Run does so
// over connections that stay, TCP or UDP; Connect opens a TCP connection for each
// request and closes it again.
//
// It knows no device under test: what lies between the two namespaces is
// the caller's. Nothing of Go's own is in the measured path: each end of each
// connection has a thread of its own that waits in the kernel, in plain blocking
// system calls, as most servers in C do.
package rr
