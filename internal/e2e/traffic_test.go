package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"culvert/ctrl/podlink"
)

// inside runs f on a thread in a namespace; sockets that f makes belong to it.
func inside(name string, f func() error) error {
	ns, err := podlink.OpenNetns(filepath.Join("/run/netns", name))
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(f)
}

// listen listens for TCP in a namespace.
func listen(t *testing.T, ns string) (l net.Listener, port int) {
	t.Helper()
	err := inside(ns, func() (err error) {
		l, err = net.Listen("tcp", ":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, l.Addr().(*net.TCPAddr).Port
}

// dial connects from a namespace.
func dial(ns, addr string) (c net.Conn, err error) {
	err = inside(ns, func() (err error) {
		c, err = net.DialTimeout("tcp", addr, 10*time.Second)
		return err
	})
	return c, err
}

// transfer sends size random bytes over each of conns TCP connections and
// compares their SHA-256 at both ends.
func transfer(t *testing.T, from, to, addr string, conns int, size int64) {
	t.Helper()
	l, port := listen(t, to)
	var g errgroup.Group
	g.Go(func() error {
		var served errgroup.Group
		for range conns {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			served.Go(func() error {
				defer c.Close()
				h := sha256.New()
				if _, err := io.Copy(h, c); err != nil {
					return fmt.Errorf("receiving: %w", err)
				}
				_, err := c.Write(h.Sum(nil))
				return err
			})
		}
		return served.Wait()
	})
	for range conns {
		g.Go(func() error {
			err := send(from, net.JoinHostPort(addr, strconv.Itoa(port)), size)
			if err != nil {
				l.Close() // the other end need not wait for this one
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("%d × %d bytes from %s to %s: %v", conns, size, from, addr, err)
	}
}

// send sends size random bytes and checks the digest that comes back.
func send(from, addr string, size int64) error {
	c, err := dial(from, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(90 * time.Second))
	h := sha256.New()
	if _, err := io.CopyN(c, io.TeeReader(rand.Reader, h), size); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	digest := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, digest); err != nil {
		return fmt.Errorf("reading the digest: %w", err)
	}
	if string(digest) != string(h.Sum(nil)) {
		return errors.New("the SHA-256 of what arrived is another one")
	}
	return nil
}

// echoUDP sends datagrams of the sizes and wants each back, whole.
func echoUDP(t *testing.T, from, to, addr string, sizes ...int) {
	t.Helper()
	var server, client net.PacketConn
	for ns, conn := range map[string]*net.PacketConn{to: &server, from: &client} {
		if err := inside(ns, func() (err error) {
			*conn, err = net.ListenPacket("udp", ":0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer (*conn).Close()
	}
	go func() {
		b := make([]byte, 65536)
		for {
			n, peer, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(b[:n], peer)
		}
	}()
	dst := &net.UDPAddr{IP: net.ParseIP(addr), Port: server.LocalAddr().(*net.UDPAddr).Port}
	for _, size := range sizes {
		out, in := make([]byte, size), make([]byte, 65536)
		rand.Read(out)
		if _, err := client.WriteTo(out, dst); err != nil {
			t.Fatalf("UDP of %d bytes from %s: %v", size, from, err)
		}
		client.SetReadDeadline(time.Now().Add(3 * time.Second))
		n, _, err := client.ReadFrom(in)
		if err != nil {
			t.Fatalf("UDP of %d bytes from %s to %s: %v", size, from, addr, err)
		}
		if string(in[:n]) != string(out) {
			t.Fatalf("UDP of %d bytes from %s to %s came back changed (%d bytes)", size, from, addr, n)
		}
	}
}
