package command

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// secondAfter is how long after the first signal another one means what it says. GNU
// timeout and tini -g send one to the process and then the same to its group, so the
// process gets it twice, microseconds apart, though nobody asked twice.
const secondAfter = 100 * time.Millisecond

// catchSignals takes over the signals that would end the process without its account.
// The first one that asks for the end cancels the context; later than secondAfter the
// default action is back, so that another one ends the process at once. hangUp makes
// SIGHUP ask for the end, too, unless it was ignored when the process began (nohup).
//
// A signal that comes before main, while Go initialises the packages, ends the process
// as if it had never begun: nothing is open, seen or sent by then.
func catchSignals() (ctx context.Context, hangUp func()) {
	nohup := signal.Ignored(syscall.SIGHUP)
	// These never end the process, whether or not somebody listens to them just now:
	// without a listener of its own a reload or a look at the account that comes too
	// early or too late would. With SIGPIPE caught, a write to a standard stream whose
	// reader is gone fails with EPIPE, as any other write does.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGPIPE)

	ctx, cancel := context.WithCancel(context.Background())
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-end
		cancel()
		time.Sleep(secondAfter)
		signal.Stop(end)
	}()
	return ctx, func() {
		if !nohup {
			signal.Notify(end, syscall.SIGHUP)
		}
	}
}

// Reloads are the annotations of a command that SIGHUP does not end: it reads its
// configuration again, or opens its file anew.
var Reloads = map[string]string{reloadsKey: "SIGHUP"}

const reloadsKey = "reloads"
