package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve answers on a socket of its own with a status and a body.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return NewClient(socket)
}

func TestGetAndPost(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("content type %q", r.Header.Get("Content-Type"))
		}
		fmt.Fprintf(w, `{"said":"%s %s"}`, r.Method, r.URL)
	})
	var out struct{ Said string }
	if err := c.Get(t.Context(), "/v1/x?a=b", &out); err != nil || out.Said != "GET /v1/x?a=b" {
		t.Errorf("get: %v, %v", out, err)
	}
	if err := c.Post(t.Context(), "/v1/y", nil, &out); err != nil || out.Said != "POST /v1/y" {
		t.Errorf("post: %v, %v", out, err)
	}
	if err := c.Post(t.Context(), "/v1/y", map[string]int{"a": 1}, nil); err != nil {
		t.Errorf("post without answer: %v", err)
	}
	if err := c.Get(t.Context(), "/v1/x", &[]int{}); err == nil || !strings.Contains(err.Error(), "of one version") {
		t.Errorf("unexpected answer: %v", err)
	}
	if err := c.Post(t.Context(), "/v1/y", func() {}, nil); err == nil {
		t.Error("what is no JSON was sent")
	}
}

func TestErrorsAndExitCodes(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   string
		exit   int
	}{
		{404, `{"error":"no route to 1.2.3.4"}`, "no route to 1.2.3.4", ExitRefused},
		{400, `{"error":"bad address"}`, "bad address", ExitUsage},
		{502, "<html>" + strings.Repeat("x", 1000), "culvertd answered 502 Bad Gateway: <html>xxx", ExitRefused},
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		err := client.Get(t.Context(), "/v1/x", nil)
		var said *Error
		if !errors.As(err, &said) || said.Status != c.status || !strings.HasPrefix(err.Error(), c.want) || ExitCode(err) != c.exit || len(err.Error()) > 400 {
			t.Errorf("%d: %v, exit %d", c.status, err, ExitCode(err))
		}
	}
	down := NewClient(filepath.Join(t.TempDir(), "none"))
	err := down.Get(t.Context(), "/v1/x", nil)
	var gone *UnavailableError
	if !errors.As(err, &gone) || !strings.Contains(err.Error(), down.Socket()) || ExitCode(err) != ExitRefused {
		t.Errorf("down: %v", err)
	}
	if ExitCode(nil) != ExitOK || ExitCode(errors.New("x")) != ExitRefused || NewClient("").Socket() != DefaultSocket {
		t.Error("exit codes or default socket")
	}
}

func TestContextEndsARequest(t *testing.T) {
	done := make(chan struct{})
	c := serve(t, func(http.ResponseWriter, *http.Request) { <-done })
	defer close(done)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Get(ctx, "/v1/x", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
}
