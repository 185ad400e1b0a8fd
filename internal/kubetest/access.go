package kubetest

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Config reaches the server as a user, without a limit of requests.
func (s *Server) Config(user string) *rest.Config { return s.config(user, s.port) }

func (s *Server) config(user string, port int) *rest.Config {
	return &rest.Config{
		Host: fmt.Sprintf("https://127.0.0.1:%d", port), BearerToken: s.token(user), QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: s.file("certs/apiserver.crt")},
	}
}

// Kubeconfig writes a file that reaches the server as a user, and returns its path.
func (s *Server) Kubeconfig(t testing.TB, user string) string {
	t.Helper()
	return s.kubeconfig(t, user, s.port)
}

func (s *Server) kubeconfig(t testing.TB, user string, port int) string {
	t.Helper()
	c, k := s.config(user, port), clientcmdapi.NewConfig()
	k.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthority: c.CAFile}
	k.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: c.BearerToken}
	k.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: user}
	k.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*k, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Proxy is another way to the server: from a network namespace that does not reach
// this one, or one that a test cuts.
type Proxy struct {
	server   *Server
	listener net.Listener
	port     int

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
}

// Proxy listens on 127.0.0.1 where inside runs its function, such as in a
// namespace of the test's; nil: here.
func (s *Server) Proxy(t testing.TB, inside func(func() error) error) *Proxy {
	t.Helper()
	p := &Proxy{server: s, conns: map[net.Conn]bool{}}
	if inside == nil {
		inside = func(f func() error) error { return f() }
	}
	err := inside(func() (err error) {
		p.listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.port = p.listener.Addr().(*net.TCPAddr).Port
	go p.serve()
	t.Cleanup(func() {
		p.listener.Close()
		p.Cut()
	})
	return p
}

// Kubeconfig is Server.Kubeconfig by way of the proxy.
func (p *Proxy) Kubeconfig(t testing.TB, user string) string {
	t.Helper()
	return p.server.kubeconfig(t, user, p.port)
}

func (p *Proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.forward(c)
	}
}

func (p *Proxy) forward(c net.Conn) {
	defer c.Close()
	to, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.server.port))
	if err != nil {
		return
	}
	defer to.Close()
	p.mu.Lock()
	down := p.down
	if !down {
		p.conns[c] = true
	}
	p.mu.Unlock()
	if down {
		return
	}
	go func() {
		_, _ = io.Copy(to, c)
		to.Close()
	}()
	_, _ = io.Copy(c, to)
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// Break ends every connection, those of watches too. New ones are taken.
func (p *Proxy) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Cut is Break, and nobody gets through any more.
func (p *Proxy) Cut() { p.set(true) }

// Mend lets connections through again.
func (p *Proxy) Mend() { p.set(false) }

func (p *Proxy) set(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.Break()
	}
}

// readFile is a manifest's text.
func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
