package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// supervisor tells systemd how the process fares; see sd_notify(3). Its zero value
// tells nobody.
type supervisor struct {
	socket   string        // of NOTIFY_SOCKET
	watchdog time.Duration // within which it wants to hear of the process; 0: it does not
	log      *slog.Logger
}

// newSupervisor reads what systemd left in the environment.
func newSupervisor(log *slog.Logger) *supervisor {
	s := &supervisor{socket: os.Getenv("NOTIFY_SOCKET"), log: log}
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid := os.Getenv("WATCHDOG_PID"); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.watchdog = time.Duration(us) * time.Microsecond
	}
	return s
}

// tell sends a state, such as READY=1.
func (s *supervisor) tell(state string) {
	if s.socket == "" {
		return
	}
	// A name that begins with @ is in Linux's abstract namespace, as in package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(state))
		_ = conn.Close() // a datagram is sent or not by now
	}
	if err != nil {
		s.log.Warn("systemd is not told how the process fares", "state", state, "cause", err)
	}
}

// reloading says that a reload begins; ready ends it.
func (s *supervisor) reloading() {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) == nil {
		s.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
	}
}

func (s *supervisor) ready() { s.tell("READY=1") }

// watch says that the process is ready when alive first says so, then that it lives as
// often as systemd wants to hear it, and at the end of ctx that it stops. alive is
// asked each time: a loop that hangs is found out also when there are no events.
func (s *supervisor) watch(ctx context.Context, alive func(context.Context) error) {
	if s.socket == "" {
		return
	}
	defer s.tell("STOPPING=1")
	wait, ready := s.watchdog/2, false
	if wait == 0 {
		wait = aliveWait
	}
	for {
		asking, cancel := context.WithTimeout(ctx, wait)
		err := alive(asking)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Error("The process does not answer itself", "cause", err)
		case !ready:
			s.ready()
			ready = true
		}
		if err == nil && s.watchdog > 0 {
			s.tell("WATCHDOG=1")
		}
		if ready && s.watchdog == 0 {
			<-ctx.Done() // nothing more is wanted
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
