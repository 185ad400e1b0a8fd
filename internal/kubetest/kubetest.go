// Package kubetest runs a real etcd and kube-apiserver for tests, with RBAC on:
// who may do what is what the test's manifests say.
//
// The programs are those of scripts/kube-binaries; tests that need them carry
// the build tag kube and belong to `make test-kube`. Nothing of a cluster but its API
// is there: no scheduler, no controllers, no kubelet. All of it ends with the test.
//
//	server := kubetest.Start(t, kubetest.User{Name: "system:serviceaccount:kube-system:culvert"})
//	server.ApplyFiles(t, "deploy/rbac.yaml")
//	kubeconfig := server.Kubeconfig(t, "system:serviceaccount:kube-system:culvert")
package kubetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Admin may do everything.
const Admin = "admin"

// User is somebody who may ask the API server, as far as RBAC lets them.
type User struct {
	Name   string
	Groups []string
}

// Server is an API server and its etcd.
type Server struct {
	dir      string
	bin      string
	users    []User
	secret   string // of all tokens
	etcdURL  string
	port     int
	etcd     *process
	api      *process
	apiFlags []string
}

// startTimeout bounds the start of either program; both take seconds.
const startTimeout = 2 * time.Minute

// Start starts both and waits until the API is served. Besides Admin only users are
// known to it.
func Start(t testing.TB, users ...User) *Server {
	t.Helper()
	s := &Server{dir: t.TempDir(), bin: binaries(t), secret: rand.Text(), users: append([]User{{Admin, []string{"system:masters"}}}, users...)}
	s.writeSecrets(t)
	t.Cleanup(func() {
		for _, p := range []*process{s.api, s.etcd} {
			if p != nil {
				p.kill()
			}
		}
		if t.Failed() {
			for _, p := range []*process{s.etcd, s.api} {
				if p != nil {
					t.Logf("%s:\n%s", p.name, p.tail())
				}
			}
		}
	})
	s.startEtcd(t)
	s.apiFlags = []string{
		"--etcd-servers=" + s.etcdURL, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--cert-dir=" + s.file("certs"), "--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + s.file("sa.pub"), "--service-account-signing-key-file=" + s.file("sa.key"),
		"--token-auth-file=" + s.file("tokens.csv"), "--endpoint-reconciler-type=none", "--allow-privileged=true",
		"--disable-admission-plugins=ServiceAccount", // there is no controller that makes them
	}
	var err error
	for range 3 { // on ports that somebody took in between, once more
		s.port = freePort(t)
		if err = s.startAPI(); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

// binaries is where scripts/kube-binaries has put the programs.
func binaries(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("KUBETEST_BIN")
	if dir == "" {
		t.Fatal("this test needs etcd and kube-apiserver: run 'make test-kube', or set KUBETEST_BIN=$(scripts/kube-binaries)")
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Fatalf("%v: run scripts/kube-binaries", err)
		}
	}
	return dir
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// writeSecrets makes the key that service account tokens are signed with, and a
// token for each user.
func (s *Server) writeSecrets(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	var tokens strings.Builder
	for _, u := range s.users {
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", s.token(u.Name), u.Name, u.Name, strings.Join(u.Groups, ","))
	}
	for name, data := range map[string][]byte{
		"sa.key":     pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}),
		"sa.pub":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"tokens.csv": []byte(tokens.String()),
	} {
		if err := os.WriteFile(s.file(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// token is what a user shows. No other server takes it.
func (s *Server) token(user string) string {
	return s.secret + "-" + strings.ReplaceAll(user, ":", "-")
}

// startEtcd starts etcd; on ports that somebody took in between, once more.
func (s *Server) startEtcd(t testing.TB) {
	t.Helper()
	var err error
	for range 3 {
		peer := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
		s.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
		s.etcd = &process{name: "etcd", path: filepath.Join(s.bin, "etcd"), log: s.file("etcd.log"), args: []string{
			"--data-dir", s.file("etcd"), "--unsafe-no-fsync",
			"--listen-client-urls", s.etcdURL, "--advertise-client-urls", s.etcdURL,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		}}
		if err = s.etcd.start(s.etcdURL+"/health", nil); err == nil {
			return
		}
		if err := os.RemoveAll(s.file("etcd")); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal(err)
}

// StartAPI starts the API server, where it was before. Its data are etcd's.
func (s *Server) StartAPI(t testing.TB) {
	t.Helper()
	if err := s.startAPI(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) startAPI() error {
	s.api = &process{name: "kube-apiserver", path: filepath.Join(s.bin, "kube-apiserver"), log: s.file("apiserver.log"),
		args: append(slices.Clone(s.apiFlags), fmt.Sprintf("--secure-port=%d", s.port))}
	client, err := rest.HTTPClientFor(&rest.Config{BearerToken: s.token(Admin), TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		return err
	}
	return s.api.start(fmt.Sprintf("https://127.0.0.1:%d/readyz", s.port), client)
}

// StopAPI ends the API server at once; what it had stored stays.
func (s *Server) StopAPI() { s.api.kill() }

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
