// Command podtool is what runs in the containers of these tests; nothing else is in their
// images.
//
//	podtool pause          waits for SIGTERM
//	podtool serve PORT     answers HTTP with the client's address
//	podtool get URL        prints what a server answers
package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
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
		return http.ListenAndServe(":"+command[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "you are", r.RemoteAddr)
		}))
	case "get":
		client := http.Client{Timeout: 5 * time.Second}
		r, err := client.Get(command[1])
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, r.Body)
		return errors.Join(err, r.Body.Close())
	}
	return fmt.Errorf("%q is not known", args)
}
