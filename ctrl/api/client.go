package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The exit codes of the culvert command.
const (
	ExitOK       = 0
	ExitRefused  = 1 // the agent said no, or could not be asked
	ExitUsage    = 2
	ExitNotReady = 3 // status of an agent that is not ready
)

// maxBody bounds an answer that the client is willing to read.
const maxBody = 1 << 30

// maxLine bounds a line of a watch: the largest has a frame of 256 KB.
const maxLine = 1 << 20

// ExitCode is what a command exits with after this error.
func (e *Error) ExitCode() int {
	if e.Status == http.StatusBadRequest {
		return ExitUsage
	}
	return ExitRefused
}

// UnavailableError says that nobody answers on the socket: the request did
// not reach an agent and had no effect.
type UnavailableError struct {
	Socket string
	Err    error
}

// Error names the socket and what to do about it.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("culvertd does not answer on %s (%v): is it running, and is --socket right?", e.Socket, e.Err)
}

// Unwrap is the error of the connection attempt.
func (e *UnavailableError) Unwrap() error { return e.Err }

// ExitCode is what a command exits with after this error.
func (e *UnavailableError) ExitCode() int { return ExitRefused }

// ExitCode finds the exit code of any error: that of an Error or
// UnavailableError inside it, ExitRefused for others, ExitOK for none.
func ExitCode(err error) int {
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.ExitCode()
	}
	return ExitRefused
}

// Client asks the agent over its unix socket. It is safe for concurrent use
// and needs no closing: every request has a connection of its own.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client of the agent that listens on socket; an empty
// name is DefaultSocket. It does not connect.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	c := &Client{socket: socket}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	c.http.Transport = &http.Transport{
		DisableKeepAlives:  true,
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", socket)
			if err != nil && ctx.Err() == nil {
				return nil, &UnavailableError{Socket: socket, Err: err}
			}
			return conn, err
		},
	}
	return c
}

// Socket is the path of the agent's socket.
func (c *Client) Socket() string { return c.socket }

// Get asks for path (with its query) and decodes the answer into out, which
// may be nil. Errors are *Error, *UnavailableError, or of ctx and transport.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

// Post sends in as JSON to path and decodes the answer into out, which may be
// nil. A nil in is an empty object. Errors are those of Get.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	body := []byte("{}")
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("request to %s: %w", path, err)
		}
	}
	return c.do(ctx, http.MethodPost, path, body, out)
}

// Watch asks for path and calls each with every line of the answer, which goes on
// until ctx ends or each fails. The end of ctx is no error.
func (c *Client) Watch(ctx context.Context, path string, each func(line []byte) error) error {
	resp, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return ended(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		data, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		return answerError(resp.StatusCode, data)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return ended(ctx, fmt.Errorf("answer of culvertd to GET %s: %w", path, err))
	}
	return ended(ctx, &UnavailableError{Socket: c.socket, Err: errors.New("it has ended the answer")})
}

// ended is err, or nil when ctx has ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// request sends a request. The caller closes the answer's body.
func (c *Client) request(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://culvert"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request to %s: %w", path, err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var down *UnavailableError
		if errors.As(err, &down) {
			return nil, down
		}
		return nil, fmt.Errorf("asking culvertd on %s: %w", c.socket, err)
	}
	return resp, nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	resp, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("answer of culvertd to %s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return answerError(resp.StatusCode, data)
	}
	if out == nil || len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("answer of culvertd to %s %s is not what this version expects (%w): are both of one version?", method, path, err)
	}
	return nil
}

// answerError makes the error out of an answer that is not 2xx.
func answerError(status int, body []byte) error {
	e := &Error{}
	if json.Unmarshal(body, e) != nil || e.Message == "" {
		text := strings.TrimSpace(string(body))
		if len(text) > 300 {
			text = text[:300]
		}
		e.Message = fmt.Sprintf("culvertd answered %d %s: %s", status, http.StatusText(status), text)
	}
	e.Status = status
	return e
}
