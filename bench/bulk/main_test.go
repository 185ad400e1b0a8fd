package bulk

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// stopped ends on Ctrl-C, so that the daemons' files are removed, too.
var stopped context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	var cancel context.CancelFunc
	stopped, cancel = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := m.Run()
	cancel()
	os.Exit(code)
}
