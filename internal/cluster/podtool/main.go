// Command podtool is what runs in the pods of these tests; nothing else is in their image.
//
//	podtool pause          waits for SIGTERM
//	podtool serve PORT     answers HTTP: / with the client's address, /healthz, and echoes on PORT+1
//	podtool get URL        prints what a server answers
//	podtool hold ADDRESS   keeps one connection to an echo and says every second how far it is
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "podtool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	command := append(args, "", "")
	switch command[0] {
	case "pause":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		return nil
	case "serve":
		return serve(command[1])
	case "get":
		return get(command[1])
	case "hold":
		return hold(command[1])
	}
	return fmt.Errorf("%q is not known", args)
}

func serve(port string) error {
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", n+1))
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	host, _ := os.Hostname()
	return http.ListenAndServe(":"+port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, "you are", client, "and I am", host)
	}))
}

func get(url string) error {
	client := http.Client{Timeout: 3 * time.Second}
	r, err := client.Get(url)
	if err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, r.Body)
	return errors.Join(err, r.Body.Close())
}

// hold sends a line every 20 ms, and wants it back within 20 seconds.
func hold(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 16)
	longest := time.Duration(0)
	for i := 0; ; i++ {
		begin := time.Now()
		line := fmt.Sprintf("%015d\n", i)
		if err := c.SetDeadline(begin.Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, line); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		if string(buf) != line {
			return fmt.Errorf("%q came back for %q", buf, line)
		}
		longest = max(longest, time.Since(begin))
		if i%50 == 0 {
			fmt.Println("echoes", i, "longest", longest.Milliseconds(), "ms")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
