package exporter

import (
	"time"

	"tetracast/internal/udp"
)

// The waits between two new source ports because of trouble: the first change is at
// once, and as long as trouble goes on each wait is twice the one before.
const (
	minPortWait = 5 * time.Second
	maxPortWait = time.Minute
)

// socket is a sender that is a socket, or stands for one.
type socket interface {
	sender
	Answers() (n udp.Answers, last *udp.Answer)
	Rotate() error
	Opened() uint64
}

// sourcePort is what a stream knows of its source port. A connection table on the
// way, as that of kube-proxy, keeps the port's way for as long as datagrams come, also
// to a receiver that is gone; only another port is looked up anew.
type sourcePort struct {
	conn    sender        // whose it is
	opened  uint64        // sockets of conn, when the receiver was last told who sends
	clock   time.Time     // when RotateSourcePort has it change; zero: at the first look
	trouble time.Time     // the last; zero: it has been dealt with
	due     time.Time     // the next change for it is not before
	wait    time.Duration // of the change before, for this one
}

// suspect notes trouble on the way to the destination, which another source port, or
// another address of its name, may end.
func (s *stream) suspect(now time.Time) {
	s.port.trouble = now
	select {
	case s.trouble <- struct{}{}: // to the resolver
	default:
	}
}

// rotate gives the socket another source port when its time has come. When that has
// changed, be it for this or with another socket, the stream says again who it is, for
// a receiver may know it by its address.
func (s *stream) rotate(now time.Time) {
	conn, ok := s.conn.(socket)
	if !ok {
		return
	}
	p := &s.port
	byClock := s.RotateSourcePort > 0 && !now.Before(p.clock)
	byTrouble := !p.trouble.IsZero() && !now.Before(p.due)
	if byTrouble {
		p.wait = min(max(2*p.wait, minPortWait), maxPortWait)
		p.due = now.Add(p.wait)
		// One that comes at once may come too early, and what answers now be silent
		// then: so another follows.
		if now.Sub(p.trouble) >= minPortWait {
			p.trouble = time.Time{}
			if s.failed.IsZero() {
				p.wait = 0
			}
		}
	}
	if byTrouble || byClock && !p.clock.IsZero() {
		if err := conn.Rotate(); err != nil {
			s.log.Debug("There is no other source port", "error", err)
		} else if byTrouble {
			s.log.Info("Another source port, because of the trouble")
		}
	}
	if byClock {
		p.clock = now.Add(s.RotateSourcePort)
	}
	if opened := conn.Opened(); p.conn != s.conn || p.opened != opened {
		if p.conn != nil && s.announced {
			s.announceNow()
			s.statsNow(now)
		}
		p.conn, p.opened = s.conn, opened
	}
}

// calmed notes that the trouble is over.
func (p *sourcePort) calmed() { p.wait = 0 }

// statsNow makes agent_stats due.
func (s *stream) statsNow(now time.Time) {
	if s.statsInterval > 0 {
		s.statsDue = now
	}
}
