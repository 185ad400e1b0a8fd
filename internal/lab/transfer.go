package lab

import (
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// transferTimeout bounds one transfer.
const transferTimeout = 60 * time.Second

// TransferResult is what Transfer saw.
type TransferResult struct {
	Bytes          int64
	Took           time.Duration
	Sent, Received [sha256.Size]byte // hashes of the data at either end
}

// Intact reports whether what arrived is what was sent.
func (r *TransferResult) Intact() bool { return r.Sent == r.Received }

// Rate is in gigabits a second.
func (r *TransferResult) Rate() float64 { return float64(r.Bytes) * 8 / r.Took.Seconds() / 1e9 }

// Transfer sends random data over TCP from one pod to another, with default
// socket options, over the first family that both have, and hashes it at both ends. The receiver answers with its
// hash, so that the time is that of all data having arrived.
func Transfer(ctx context.Context, from, to *Pod, bytes int64) (*TransferResult, error) {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	listener, err := listen(to)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	go receive(listener)

	conn, err := dial(ctx, from, to.Addr, listener.Addr().(*net.TCPAddr).Port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()

	r := &TransferResult{}
	start := time.Now()
	sum := sha256.New()
	if r.Bytes, err = io.Copy(conn, io.TeeReader(io.LimitReader(randomData(), bytes), sum)); err != nil {
		return nil, fmt.Errorf("after %d bytes: %w", r.Bytes, err)
	}
	if err := conn.CloseWrite(); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, r.Received[:]); err != nil {
		return nil, fmt.Errorf("waiting for the receiver's hash: %w", err)
	}
	r.Took = time.Since(start)
	copy(r.Sent[:], sum.Sum(nil))
	return r, nil
}

// randomData is an endless stream, different every time.
func randomData() io.Reader {
	var seed [32]byte
	_, _ = cryptorand.Read(seed[:]) // never fails: crypto/rand
	return rand.NewChaCha8(seed)
}

// listen opens a TCP listener in a pod, on a port of the kernel's choice.
func listen(p *Pod) (l *net.TCPListener, err error) {
	err = enter(p.Netns, func() error {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: p.Addr.AsSlice()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listening in pod %s: %w", p.Name, err)
	}
	return l, nil
}

// dial connects from a pod. The socket is made on the thread that is there.
func dial(ctx context.Context, p *Pod, to netip.Addr, port int) (c *net.TCPConn, err error) {
	err = enter(p.Netns, func() error {
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", netip.AddrPortFrom(to, uint16(port)).String())
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connecting from pod %s: %w", p.Name, err)
	}
	return c, nil
}

// receive takes one connection, hashes what comes and answers with the hash.
// It ends when the listener or the connection does.
func receive(l *net.TCPListener) {
	conn, err := l.Accept()
	if err != nil {
		return // the sender tells why nothing came of it
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(transferTimeout))
	sum := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{conn}, make([]byte, 256<<10)); err == nil {
		_, _ = conn.Write(sum.Sum(nil))
	}
}
